//! `octet data`: make data sets, check them, and read other people's.

mod import;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use octet_dataset::{Example, Spec, Split, Statistics, generate, load, write_jsonl};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Make data sets, check them, and read other people's.
#[derive(Args, Debug)]
pub struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Subcommand, Debug)]
enum DataCommand {
    /// Write the recipe's kind of data set: 60 % execute, 25 % clarify, 15 % refuse. Repeatable by seed.
    Generate {
        /// The file to write, JSON lines.
        #[arg(long)]
        out: PathBuf,
        /// Which tools: training's, the held-out ones that training never sees, or some invented for each row.
        #[arg(long, value_enum, default_value_t = Tools::Training)]
        tools: Tools,
        /// Rows to write.
        #[arg(long, default_value_t = 1500)]
        rows: usize,
        /// The same seed gives the same rows.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Validate a file and print its statistics. Every fault is file, line, field, what was expected.
    Check {
        /// JSON lines, or a JSON array.
        file: PathBuf,
    },
    Import(import::ImportArgs),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Tools {
    Training,
    HeldOut,
    Invented,
}

/// Runs the command.
pub fn run(args: &DataArgs) -> Result<()> {
    match &args.command {
        DataCommand::Generate { out, tools, rows, seed } => {
            let split = match tools {
                Tools::Training => Split::Train,
                Tools::HeldOut => Split::HeldOut,
                Tools::Invented => Split::Invented,
            };
            let examples = generate(&Spec { seed: *seed, rows: *rows, split });
            write(out, &examples)?;
        }
        DataCommand::Check { file } => {
            let examples = load(file)?;
            crate::screen::say(format_args!(
                "{}: sound\n{}",
                file.display(),
                Statistics::of(&examples)
            ));
        }
        DataCommand::Import(args) => import::run(args)?,
    }
    Ok(())
}

/// Writes rows, and prints where and what they are.
fn write(out: &Path, examples: &[Example]) -> Result<()> {
    let writing = || format!("writing {}", out.display());
    let file = std::fs::File::create(out).with_context(writing)?;
    let mut file = BufWriter::new(file);
    write_jsonl(examples, &mut file).with_context(writing)?;
    file.flush().with_context(writing)?;
    crate::screen::say(format_args!("{}\n{}", out.display(), Statistics::of(examples)));
    Ok(())
}
