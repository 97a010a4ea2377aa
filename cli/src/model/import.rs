//! `octet model import`: any model as a Hugging Face directory of one's own.
//!
//! Invariant: the directory is the same model to the bit where the element type is f32; only the chat template
//! may be another, and then there is no other one left in it.

use super::{open, shows_tools};
use crate::screen::{note, say};
use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use clap::Args;
use octet_policy::config::Dtype;
use octet_policy::files::StagedDir;
use octet_policy::model::{Model, Params};
use octet_policy::policy::Policy;
use octet_policy::template::{COMPACT_TEMPLATE, ChatTemplate};
use std::path::{Path, PathBuf};

/// The name of the bundled policy's template.
const COMPACT: &str = "compact";
const TEMPLATE_FILE: &str = "chat_template.jinja";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Write a model as a Hugging Face directory: a GGUF file dequantised, or any model with another chat template.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// A Hugging Face directory, a GGUF file, or a name on the hub (OWNER/NAME[@REVISION]).
    model: PathBuf,
    /// The directory to write; it must not exist.
    target: PathBuf,
    /// A Jinja file that replaces the model's chat template, or "compact": ChatML that shows tools one a line.
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
    /// The weights' type in the file: f32, or bf16.
    #[arg(long, default_value = "f32")]
    dtype: String,
}

/// Runs the command.
pub fn run(args: &ImportArgs) -> Result<()> {
    let dtype = match args.dtype.as_str() {
        "f32" => Dtype::F32,
        "bf16" => Dtype::Bf16,
        other => bail!("--dtype: expected f32 or bf16, found {other}"),
    };
    let (path, source) = open(&args.model)?;
    let config = source.config()?;
    let tokenizer = source.tokenizer()?;
    tokenizer.check(&config)?;
    let replaced = args.chat_template.as_deref().map(text_of).transpose()?;
    let template = match &replaced {
        None => source.template()?,
        Some((text, file)) => ChatTemplate::from_source(text, file)?,
    };
    if args.chat_template.as_deref() == Some(Path::new(COMPACT)) {
        for token in ["<|im_start|>", "<|im_end|>"] {
            tokenizer.require(token, "the chat template `compact`")?;
        }
    }
    if !shows_tools(&template) {
        note(
            "the chat template shows the model no tools: data sets with tools need another, see --chat-template",
        );
    }
    let params = Params::from_vecs(&config, source.weights(&config)?, DType::F32, &Device::Cpu)?;
    let directory = source.companions(&path).to_owned();
    let count = params.count();
    let mut policy = Policy { model: Model::new(config, params)?, tokenizer, template, directory };
    if let Some(adapter) = source.adapter() {
        // Written with the others, which have taken it in.
        policy = policy.with_adapter(adapter)?;
    }
    let staged = StagedDir::create(&args.target)?;
    policy.save_into(&staged, dtype)?;
    if let Some((text, _)) = &replaced {
        replace_template(&staged, text)?;
    }
    staged.commit()?;
    say(format_args!("{count} parameters as {} in {}", args.dtype, args.target.display()));
    Ok(())
}

/// A template's text, and what it is called in errors.
fn text_of(file: &Path) -> Result<(String, PathBuf)> {
    if file == Path::new(COMPACT) {
        return Ok((COMPACT_TEMPLATE.to_owned(), "compact.jinja".into()));
    }
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("reading the chat template {}", file.display()))?;
    Ok((text, file.into()))
}

/// Leaves one template in the directory, where all readers look first.
fn replace_template(staged: &StagedDir, text: &str) -> Result<()> {
    let at = |name: &str| staged.path().join(name);
    let more = at("additional_chat_templates");
    if more.is_dir() {
        std::fs::remove_dir_all(&more).with_context(|| format!("removing {}", more.display()))?;
    }
    let json = at("chat_template.json");
    if json.is_file() {
        std::fs::remove_file(&json).with_context(|| format!("removing {}", json.display()))?;
    }
    staged.write(TEMPLATE_FILE, text.as_bytes())?;
    let path = at(TOKENIZER_CONFIG);
    if let Ok(bytes) = std::fs::read(&path) {
        let mut config: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&bytes)
            .with_context(|| format!("reading {}", path.display()))?;
        config.shift_remove("chat_template");
        staged.write(
            TOKENIZER_CONFIG,
            format!("{:#}\n", serde_json::Value::from(config)).as_bytes(),
        )?;
    }
    Ok(())
}
