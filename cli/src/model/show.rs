//! `octet model show`: what a model is, before anything is done with it.

use super::{open, shows_tools};
use crate::screen::say;
use anyhow::Result;
use clap::Args;
use indicatif::HumanBytes;
use std::path::PathBuf;

/// Say what a model is: family, size, context, and whether its chat template shows tools.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// A Hugging Face directory, a GGUF file, or a name on the hub (OWNER/NAME[@REVISION]).
    model: PathBuf,
}

/// Runs the command.
pub fn run(args: &ShowArgs) -> Result<()> {
    let (path, source) = open(&args.model)?;
    let config = source.config()?;
    let tokenizer = source.tokenizer()?;
    tokenizer.check(&config)?;
    let template = match source.template() {
        Ok(template) if shows_tools(&template) => "shows tools".to_owned(),
        Ok(_) => "shows no tools: import the model with --chat-template".to_owned(),
        Err(error) => error.to_string(),
    };
    let ends: Vec<String> =
        config.eos_token_ids.iter().filter_map(|id| tokenizer.token(*id)).collect();
    let weights = 4 * config.param_count() as u64;
    let adapter = source.adapter().map_or_else(String::new, |adapter| {
        let (lora, base) = (adapter.lora(), source.companions(&path).display());
        let count = lora.param_count(&config);
        format!("\nadapter      of rank {}, {count} parameters, on {base}", lora.rank)
    });
    say(format_args!(
        "model        {}\nfamily       {}\nparameters   {} ({} as f32)\nlayers       {} of width {}\ncontext      {} tokens\n\
         vocabulary   {} tokens\nends with    {}\ntemplate     {template}{adapter}",
        path.display(),
        config.architecture.model_type(),
        config.param_count(),
        HumanBytes(weights),
        config.num_hidden_layers,
        config.hidden_size,
        config.max_position_embeddings,
        tokenizer.id_count(),
        ends.join(" "),
    ));
    Ok(())
}
