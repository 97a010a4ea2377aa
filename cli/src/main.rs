//! `octet`: reinforcement learning from verifiable rewards for tool calling, in one binary.

mod certs;
mod data;
mod eval;
mod evaluation;
mod machine;
mod network;
mod plot;
mod recipe;
mod reward;
mod screen;
mod sft;
mod train;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    Data(data::DataArgs),
    Reward(reward::RewardArgs),
    Sft(sft::SftArgs),
    Certs(certs::CertsArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Train(args) => train::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Data(args) => data::run(&args),
        Command::Reward(args) => reward::run(&args),
        Command::Sft(args) => sft::run(&args),
        Command::Certs(args) => certs::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            screen::complain(&error);
            ExitCode::FAILURE
        }
    }
}
