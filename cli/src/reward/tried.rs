//! `octet reward try`: scores answers to a data set's rows.

use super::source::SourceArgs;
use anyhow::{Result, bail};
use clap::Args;
use octet_dataset::load;
use octet_reward_service::trivial;
use octet_reward_service::tryout::{read_answers, try_answers};
use std::path::PathBuf;

/// Score answers to a data set's rows, and show what trivial policies would earn on it: a policy
/// that learns nothing but silence must not look like skill.
#[derive(Args, Debug)]
pub struct TryArgs {
    /// The data set, JSON lines.
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    source: SourceArgs,
    /// JSON lines with a "completion" each, one a row of the data set.
    #[arg(long)]
    answers: Option<PathBuf>,
    /// One answer, scored against every row.
    #[arg(long, conflicts_with = "answers")]
    answer: Option<String>,
}

/// Runs the command.
pub fn run(args: &TryArgs) -> Result<()> {
    let rows = load(&args.data)?;
    let function = args.source.open(true)?;
    let answers = match (&args.answers, &args.answer) {
        (Some(path), _) => Some(read_answers(path)?),
        (None, Some(text)) => Some(vec![text.clone()]),
        (None, None) => None,
    };
    if let Some(answers) = answers {
        if answers.is_empty() {
            bail!("expected at least one answer, found none");
        }
        crate::screen::say(try_answers(&rows, &answers, &*function)?);
    }
    crate::screen::say(trivial::table(&rows, &*function));
    Ok(())
}
