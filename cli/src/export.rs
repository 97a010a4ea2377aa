//! `octet export`: a run's policy as a Hugging Face directory to give away.
//!
//! Invariants: the directory appears whole or not at all; its weights are those that were committed, or their
//! rounding to bf16; the card states nothing that the run has not written down.

mod card;
mod files;
mod origin;

use crate::screen;
use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use card::Card;
use clap::{Args, ValueEnum};
use octet_policy::config::Dtype;
use octet_policy::files::StagedDir;
use octet_policy::policy::Policy;
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
    let policy = Policy::load(&origin.checkpoint, DType::F32, &Device::Cpu)?;
    let stored = policy.model.config().dtype.unwrap_or(Dtype::F32);
    let dtype = args.dtype.map_or(stored, Dtype::from);
    if dtype == Dtype::F16 {
        bail!(
            "{} holds float16 weights: say with --dtype what to write, f32 (exact) or bf16",
            origin.checkpoint.display()
        );
    }
    let digest = policy.model.params().digest()?.to_hex().to_string();
    origin.check(&digest)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => {
            let out = std::path::absolute(&args.out).context("finding the model's name")?;
            out.file_name().map_or_else(|| "policy".into(), |n| n.to_string_lossy().into_owned())
        }
    };
    let card = Card { name: &name, origin: &origin, policy: &policy, dtype, digest: &digest };
    let staged = StagedDir::create(&args.out)?;
    policy.save_into(&staged, dtype)?;
    files::complete(&staged, &policy)?;
    staged.write("README.md", card.text()?.as_bytes())?;
    staged.commit()?;
    screen::say(format_args!(
        "exported {} as {} to {}",
        origin.checkpoint.display(),
        dtype.name(),
        args.out.display()
    ));
    Ok(())
}
