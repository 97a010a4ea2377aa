//! `octet`: reinforcement learning from verifiable rewards for tool calling, in one binary.

mod allocator;
mod bench;
mod certs;
mod compare;
mod compute;
mod data;
mod eval;
mod evaluation;
mod export;
mod machine;
mod model;
mod network;
mod plot;
mod reach;
mod recipe;
mod report;
mod reward;
mod roles;
mod rollouts;
mod screen;
mod serve;
mod sft;
mod status;
mod track;
mod train;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

/// Teach a language model to call tools correctly: GRPO over eight completions per prompt, with
/// verifiable rewards, on a laptop or a cluster.
///
/// Start here: `octet train` teaches the bundled policy in a few minutes and shows what it learned.
#[derive(Parser)]
#[command(name = "octet", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Train(train::TrainArgs),
    Eval(eval::EvalArgs),
    Compare(compare::CompareArgs),
    Serve(serve::ServeArgs),
    Export(export::ExportArgs),
    Data(data::DataArgs),
    Model(model::ModelArgs),
    Reward(reward::RewardArgs),
    Sft(sft::SftArgs),
    Certs(certs::CertsArgs),
    Status(status::StatusArgs),
    Rollouts(rollouts::RolloutsArgs),
    Report(report::ReportArgs),
    Bench(bench::BenchArgs),
    Track(track::TrackArgs),
    Coordinator(roles::CoordinatorArgs),
    Learner(roles::LearnerArgs),
    RolloutWorker(roles::WorkerArgs),
    RewardService(roles::ServiceArgs),
}

fn main() -> ExitCode {
    allocator::keep_freed_memory();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let command = match roles::layered(Cli::command(), &arguments) {
        Ok(command) => command,
        Err(error) => {
            screen::complain(&error);
            return ExitCode::FAILURE;
        }
    };
    let matches = command.get_matches_from(arguments);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let result = match cli.command {
        Command::Train(args) => train::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Data(args) => data::run(&args),
        Command::Model(args) => model::run(&args),
        Command::Reward(args) => reward::run(&args),
        Command::Sft(args) => sft::run(&args),
        Command::Certs(args) => certs::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Rollouts(args) => rollouts::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Track(args) => track::run(&args),
        Command::Coordinator(args) => roles::coordinator(&args),
        Command::Learner(args) => roles::learner(&args),
        Command::RolloutWorker(args) => roles::rollout_worker(&args),
        Command::RewardService(args) => roles::reward_service(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            screen::complain(&error);
            ExitCode::FAILURE
        }
    }
}
