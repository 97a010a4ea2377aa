//! `octet reward`: score answers, serve a reward, and swap the reward of a run while it goes on.

mod admin;
pub mod history;
mod serve;
mod shadow;
mod source;
mod tried;

pub use source::SourceArgs;

use anyhow::Result;
use clap::{Args, Subcommand};

/// Score answers, serve a reward, and swap the reward of a run while it goes on.
#[derive(Args, Debug)]
pub struct RewardArgs {
    #[command(subcommand)]
    command: RewardCommand,
}

#[derive(Subcommand, Debug)]
enum RewardCommand {
    Try(tried::TryArgs),
    Serve(serve::ServeArgs),
    Status(admin::StatusArgs),
    Swap(admin::SwapArgs),
    Rollback(admin::RollbackArgs),
    Shadow(shadow::ShadowArgs),
    History(history::HistoryArgs),
}

/// Runs the command.
pub fn run(args: &RewardArgs) -> Result<()> {
    match &args.command {
        RewardCommand::Try(args) => tried::run(args),
        RewardCommand::Serve(args) => serve::run(args),
        RewardCommand::Status(args) => admin::status(args),
        RewardCommand::Swap(args) => admin::swap(args),
        RewardCommand::Rollback(args) => admin::rollback(args),
        RewardCommand::Shadow(args) => shadow::run(args),
        RewardCommand::History(args) => history::run(args),
    }
}
