//! `octet data import`: other people's files of function calls as octet's rows.
//!
//! Invariant: nothing is written unless every row was read, or --skip-faulty says that the others will do; what is
//! left out is said.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use octet_dataset::{BFCL_CATEGORIES, Format, Imported, import, import_bfcl};
use std::path::PathBuf;

/// Read other people's data: the Berkeley leaderboard's files, TRL's, xLAM's, ToolACE's and Hermes' rows.
#[derive(Args, Debug)]
pub struct ImportArgs {
    #[command(subcommand)]
    source: Source,
}

#[derive(Subcommand, Debug)]
enum Source {
    /// The Berkeley Function Calling Leaderboard's files, as the Python package bfcl-eval ships them.
    Bfcl {
        /// The package's folder `data`, or the package.
        directory: PathBuf,
        /// Only this category; may be given several times.
        #[arg(long, value_name = "NAME", value_parser = BFCL_CATEGORIES)]
        category: Vec<String>,
        #[command(flatten)]
        to: To,
    },
    /// TRL's conversational rows: messages, or prompt and completion or chosen; with a column of tools.
    Trl(One),
    /// xLAM's rows: query, tools, answers.
    Xlam(One),
    /// ToolACE's rows: functions in the system text, calls like [f(a=1)].
    Toolace(One),
    /// Hermes' rows: <tools> in the system turn, <tool_call> in the answers.
    Hermes(One),
}

#[derive(Args, Debug)]
struct One {
    /// JSON lines, or a JSON array.
    file: PathBuf,
    /// Keep answers that call nothing as rows that want their text.
    #[arg(long)]
    text_answers: bool,
    #[command(flatten)]
    to: To,
}

#[derive(Args, Debug)]
struct To {
    /// The file to write, JSON lines.
    #[arg(long)]
    out: PathBuf,
    /// Leave out the rows that have faults instead of writing nothing.
    #[arg(long)]
    skip_faulty: bool,
}

/// Runs the command.
pub fn run(args: &ImportArgs) -> Result<()> {
    let one = |format, one: &One| import(format, &one.file, one.text_answers);
    let (imported, to) = match &args.source {
        Source::Bfcl { directory, category, to } => (import_bfcl(directory, category), to),
        Source::Trl(args) => (one(Format::Trl, args), &args.to),
        Source::Xlam(args) => (one(Format::Xlam, args), &args.to),
        Source::Toolace(args) => (one(Format::ToolAce, args), &args.to),
        Source::Hermes(args) => (one(Format::Hermes, args), &args.to),
    };
    write(imported, to)
}

fn write(imported: Imported, to: &To) -> Result<()> {
    let Imported { rows, faults, left_out, notes } = imported;
    match faults {
        Some(faults) if !to.skip_faulty => return Err(faults.into()),
        Some(faults) => {
            crate::screen::note(&faults.to_string());
            crate::screen::note(&format!("left out for {} faults", faults.count));
        }
        None => {}
    }
    for (why, count) in &left_out {
        crate::screen::note(&format!("left out: {count} {why}"));
    }
    for note in &notes {
        crate::screen::note(note);
    }
    if rows.is_empty() {
        bail!(
            "expected at least one row to write, found none; {} was not written",
            to.out.display()
        );
    }
    super::write(&to.out, &rows)
}
