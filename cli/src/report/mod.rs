//! `octet report`: a run as one HTML page.
//!
//! Invariant: the run directory alone is read, also while its run goes on, and nothing in it is changed but the page.

mod chart;
mod compare;
mod curves;
mod groups;
mod page;
mod pairs;
mod source;
pub mod text;
mod view;

use crate::screen;
use crate::train::directory::RunDirectory;
use anyhow::{Context, Result};
use clap::Args;
use source::Source;
use std::path::{Path, PathBuf};
use view::View;

/// Make one HTML page of a run: curves, before and after, what got worse, and a sample of what it learned from.
///
/// The page needs no network and no other file. The run may go on meanwhile; what is not there yet is said on the
/// page.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:

  octet report runs/first
  octet report runs/first --out first.html --groups 300")]
pub struct ReportArgs {
    /// The run directory of `octet train`, or of the learner.
    run: PathBuf,
    /// The page; RUN/report.html without it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Groups in the sample; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 120)]
    groups: usize,
    /// A directory with the tokenizer; without it, that of the run's policy.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &ReportArgs) -> Result<()> {
    let source = Source::read(&args.run, args.model.as_deref(), args.groups)?;
    let missing = source.missing.clone();
    let page = page::render(&View::new(source))?;
    let out = args.out.clone().unwrap_or_else(|| args.run.join("report.html"));
    write(&out, &page)?;
    for text in missing {
        screen::note(&text);
    }
    screen::say(format_args!("{} ({:.1} MB)", out.display(), page.len() as f64 / 1e6));
    Ok(())
}

/// Writes the whole page at once: one that is open in a browser is never half there.
fn write(out: &Path, page: &str) -> Result<()> {
    let name = out.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("--out {}: expected a file", out.display()))?;
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    RunDirectory::at(folder.unwrap_or(Path::new("."))).write(name, page.as_bytes())
}
