//! `octet reward`: score answers from the command line.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use octet_dataset::load;
use octet_reward_service::tryout::{read_answers, try_answers};
use octet_reward_service::{by_name, trivial};
use std::path::PathBuf;

/// Score answers from the command line.
#[derive(Args, Debug)]
pub struct RewardArgs {
    #[command(subcommand)]
    command: RewardCommand,
}

#[derive(Subcommand, Debug)]
enum RewardCommand {
    /// Score answers to a data set's rows, and show what trivial policies would earn on it: a policy
    /// that learns nothing but silence must not look like skill.
    Try {
        /// The data set, JSON lines.
        #[arg(long)]
        data: PathBuf,
        /// The reward function: tool-call or aws-compat.
        #[arg(long, default_value = "tool-call")]
        function: String,
        /// JSON lines with a "completion" each, one a row of the data set.
        #[arg(long)]
        answers: Option<PathBuf>,
        /// One answer, scored against every row.
        #[arg(long, conflicts_with = "answers")]
        answer: Option<String>,
    },
}

/// Runs the command.
pub fn run(args: &RewardArgs) -> Result<()> {
    let RewardCommand::Try { data, function, answers, answer } = &args.command;
    let rows = load(data)?;
    let function = by_name(function)?;
    let answers = match (answers, answer) {
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
