//! `octet reward-service`: one replica of a reward.
//!
//! Invariant: the first line on standard output says where it answers, when it does.

use super::process::{self, NodeArgs, blocking, listen};
use crate::reward::SourceArgs;
use crate::screen;
use anyhow::Result;
use clap::Args;
use octet_reward_service::ServiceSettings;
use octet_runtime::CancellationToken;
use octet_runtime::net::Exposure;
use std::net::SocketAddr;
use std::time::Duration;

const ROLE: &str = "reward-service";

/// Serve a reward: score completions, with a built-in function or with one of your own in Python.
///
/// A run may have any number of replicas, all of the same function; one that fails is left for the others,
/// and with none left the run waits and goes on by itself. `octet reward swap` changes the reward of a run
/// while it goes on.
///
/// It needs no recipe: a completion comes with its row of the data set. A function of your own needs Python 3.8
/// or later, and runs in processes of its own with limits on time and memory. It is asked without a join token.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:

  octet reward-service --python mine.py:compute_score --listen 127.0.0.1:50051

It prints where it answers and the digest of the reward. docs/rewards.md shows how functions are written,
docs/cluster.md goes through a whole cluster.")]
pub struct ServiceArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50051")]
    listen: SocketAddr,
    /// Seconds that what was asked has to be answered after SIGTERM or Ctrl-C.
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    drain: u64,
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the command.
pub fn run(args: &ServiceArgs) -> Result<()> {
    let exposure = args.node.network.exposure()?;
    let drain = Duration::from_secs(args.drain);
    process::run(ROLE, &args.node, drain, |stop| serve(args, exposure, stop))
}

async fn serve(args: &ServiceArgs, exposure: Exposure, stop: CancellationToken) -> Result<()> {
    let listener = listen("--listen", args.listen, &exposure).await?;
    let source = args.source.clone();
    let Some(function) = blocking(&stop, move || source.open(false)).await? else { return Ok(()) };
    let settings = ServiceSettings {
        threads: args.source.processes(),
        // The function's own limit kills it; this one is for what it cannot see.
        score_timeout: args.source.time_limit().saturating_add(Duration::from_secs(90)),
        drain: Duration::from_secs(args.drain).mul_f64(0.8),
        ..ServiceSettings::default()
    };
    let endpoint = process::from_here(&listener);
    screen::say(format_args!(
        "{endpoint} serves {} with digest {}",
        function.name(),
        function.digest()
    ));
    let serving = octet_reward_service::serve(listener, function, settings, stop);
    process::named(ROLE, "", ROLE, serving).await?;
    Ok(())
}
