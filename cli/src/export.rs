//! `octet export`: a run's policy as a Hugging Face directory to give away, or its adapter as PEFT has it.
//!
//! Invariants: the directory appears whole or not at all; its weights are those that were committed (an adapter merged
//! into its base, or alone), or their rounding to bf16; the card states nothing that the run has not written down.

mod card;
mod files;
mod origin;

use crate::{model, screen};
use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use card::Card;
use clap::{Args, ValueEnum};
use octet_policy::config::Dtype;
use octet_policy::files::{AdapterBase, AdapterFiles, StagedDir};
use origin::Origin;
use std::path::PathBuf;

/// Write a policy as a Hugging Face directory with a model card: for transformers, vLLM, or the hub.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// A run directory, for its newest checkpoint, or a checkpoint's or any policy's directory.
    #[arg(value_name = "RUN|CHECKPOINT")]
    source: PathBuf,
    /// The directory to make.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The weights' type; without it, the type that they have. bf16 rounds to nearest, ties to even.
    #[arg(long)]
    dtype: Option<Type>,
    /// Of a run, the checkpoint of this step instead of the newest.
    #[arg(long)]
    step: Option<u64>,
    /// What the card calls the model; without it, the directory's name.
    #[arg(long)]
    name: Option<String>,
    /// Of a run that trained an adapter, the adapter alone, as PEFT has it; without this it is merged into its base.
    #[arg(long, conflicts_with = "dtype")]
    adapter: bool,
    /// What the adapter names as its base: a path, or a name on the hub; without it, the recipe's model.path.
    #[arg(long, requires = "adapter", value_name = "MODEL")]
    base: Option<String>,
}

/// A type of weights.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Type {
    /// 32 bits: what was trained and evaluated on the CPU, to the bit.
    F32,
    /// 16 bits, as most servers want them.
    Bf16,
}

impl From<Type> for Dtype {
    fn from(named: Type) -> Self {
        match named {
            Type::F32 => Self::F32,
            Type::Bf16 => Self::Bf16,
        }
    }
}

/// Runs the command.
pub fn run(args: &ExportArgs) -> Result<()> {
    let origin = Origin::find(&args.source, args.step)?;
    let policy = model::load(&origin.checkpoint, DType::F32, &Device::Cpu)?;
    // What an adapter is merged into is rounded once, if at all: by whoever says so.
    let merged = policy.model.lora().is_some();
    let stored = policy.model.config().dtype.filter(|_| !merged).unwrap_or(Dtype::F32);
    let dtype = args.dtype.map_or(stored, Dtype::from);
    if dtype == Dtype::F16 {
        bail!(
            "{} holds float16 weights: say with --dtype what to write, f32 (exact) or bf16",
            origin.checkpoint.display()
        );
    }
    let digest = policy.model.trained().digest()?.to_hex().to_string();
    origin.check(&digest)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => {
            let out = std::path::absolute(&args.out).context("finding the model's name")?;
            out.file_name().map_or_else(|| "policy".into(), |n| n.to_string_lossy().into_owned())
        }
    };
    let base = args.adapter.then(|| base(args, &origin)).transpose()?;
    let card = Card {
        name: &name,
        origin: &origin,
        policy: &policy,
        dtype,
        digest: &digest,
        base: base.as_ref().map(|base| base.name.as_str()),
    };
    let staged = StagedDir::create(&args.out)?;
    match &base {
        Some(base) => policy.save_adapter_into(&staged, base)?,
        None => {
            policy.save_into(&staged, dtype)?;
            files::complete(&staged, &policy)?;
        }
    }
    staged.write("README.md", card.text()?.as_bytes())?;
    staged.commit()?;
    let what = match (&base, merged) {
        (Some(base), _) => format!("its adapter of {}", base.name),
        (None, true) => format!("{}, its adapter merged,", dtype.name()),
        (None, false) => dtype.name().to_owned(),
    };
    screen::say(format_args!(
        "exported {} as {what} to {}",
        origin.checkpoint.display(),
        args.out.display()
    ));
    Ok(())
}

/// What the exported adapter names as its base.
fn base(args: &ExportArgs, origin: &Origin) -> Result<AdapterBase> {
    if !AdapterFiles::is_one(&origin.checkpoint) {
        bail!(
            "--adapter: {} is a whole model, expected the checkpoint of a run that trains an adapter (policy.lora)",
            origin.checkpoint.display()
        );
    }
    let mut base = AdapterFiles::open(&origin.checkpoint)?.base().clone();
    if let Some(run) = &origin.run {
        base.name = run.recipe.model.path.to_string_lossy().into_owned();
    }
    if let Some(name) = &args.base {
        base.name.clone_from(name);
    }
    Ok(base)
}
