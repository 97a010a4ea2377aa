//! `octet coordinator`: leases the work of a run and knows how far it is.
//!
//! Invariant: nothing is leased before each replica of the reward has said that it is well and who it is,
//! unless the journal knows the reward from before.

use super::metrics::{Metrics, MetricsListen};
use super::process::{self, NodeArgs, RecipeArgs, from_here, listen};
use super::reward::{Known, Rewards};
use crate::reach::{REACH_FILE, Reach};
use crate::screen;
use crate::train::basis::Basis;
use crate::train::directory::{Identity, RunDirectory};
use anyhow::{Context, Result};
use clap::Args;
use octet_coordinator::{Config, Coordinator, Handle, JOURNAL_FILE, JoinToken, Timing};
use octet_runtime::CancellationToken;
use octet_runtime::net::{Exposure, Listener};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const ROLE: &str = "coordinator";
/// Where a join token is kept that nobody gave, for the next start.
const TOKEN_FILE: &str = "join-token";
/// How often it is looked whether all workers know that the run is complete.
const LOOK: Duration = Duration::from_millis(100);

/// Lead a run: lease its groups to workers, keep its versions, rewards and leases in a journal.
///
/// There is one coordinator a run. It calls nobody but, at its start, the reward service; the learner and
/// the workers come to it. It may be killed and started again with the same --run-dir at any time: the nodes
/// come back to it, and the final weights are the same. It ends when the run is complete and every worker
/// knows.
///
/// It needs the recipe, the data set and the policy to start from, a directory of its own, and a reward
/// service that answers.
#[derive(Args, Debug)]
#[command(after_help = "\
Example, on one machine, after `octet reward-service`:

  octet coordinator --run-dir runs/first --reward http://127.0.0.1:50051

It prints where it listens. A join token that it makes itself is in runs/first/join-token.

  octet status --run runs/first

shows the run. docs/cluster.md goes through a whole cluster.")]
pub struct CoordinatorArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// The journal and the run's identity; made where it is not there.
    #[arg(long, value_name = "DIR")]
    run_dir: PathBuf,
    /// Where the learner and the workers call; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50050")]
    listen: SocketAddr,
    /// Where metrics and liveness are shown over plain HTTP (/metrics, /healthz), or off.
    #[arg(long, value_name = "ADDR|off", default_value = "127.0.0.1:9464")]
    metrics_listen: MetricsListen,
    /// What every node of the run shows; without it, one is made and kept in the run directory.
    #[arg(long, value_name = "TOKEN")]
    join_token: Option<String>,
    /// Seconds that workers have, once the run is complete, to find that out.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    linger: u64,
    /// Seconds that open calls have to end after SIGTERM or Ctrl-C.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    drain: u64,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    rewards: Rewards,
}

/// Runs the command.
pub fn run(args: &CoordinatorArgs) -> Result<()> {
    let exposure = args.node.network.exposure()?;
    let drain = Duration::from_secs(args.drain);
    process::run(ROLE, &args.node, drain, |stop| lead(args, exposure, stop))
}

async fn lead(args: &CoordinatorArgs, exposure: Exposure, stop: CancellationToken) -> Result<()> {
    let listener = listen("--listen", args.listen, &exposure).await?;
    let metrics = Metrics::begin(ROLE, args.metrics_listen, &exposure, &stop).await?;
    let Some(basis) = args.recipe.basis(&stop).await? else { return Ok(()) };
    let directory = RunDirectory::at(&args.run_dir);
    let identity = directory.take(&basis.recipe, &basis.identity(&directory))?;
    let started = Started { exposure, stop, listener, metrics, basis };
    let serving = serve(args, started, &directory, &identity);
    let ended = process::named(ROLE, &identity.run_id, ROLE, serving).await;
    directory.remove(REACH_FILE);
    ended
}

/// What there is before the run's directory is looked at.
struct Started {
    exposure: Exposure,
    stop: CancellationToken,
    listener: Listener,
    metrics: Metrics,
    basis: Basis,
}

async fn serve(
    args: &CoordinatorArgs,
    started: Started,
    directory: &RunDirectory,
    identity: &Identity,
) -> Result<()> {
    let Started { exposure, stop, listener, metrics, basis } = started;
    let join_token = token(directory, args.join_token.as_deref())?;
    let known = Known::read(&directory.join(JOURNAL_FILE))?;
    let found = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        found = args.rewards.find(&basis.recipe.reward, &known, &exposure) => found?,
    };
    let timing = Timing::default();
    let config = Config {
        plan: basis.plan(identity)?,
        timing,
        reward: found.first,
        join_token: JoinToken::new(&join_token),
        journal: directory.join(JOURNAL_FILE),
        drain: Duration::from_secs(args.drain).mul_f64(0.6),
    };
    let send = basis.recipe.weights.broadcast_within;
    let coordinator = Coordinator::open(config, basis.rows())?
        .with_schedule(&found.later)?
        .with_broadcast_within(send);
    // Rows are all that is needed from here on; weights and tokenizer are not.
    drop(basis);
    let endpoint = from_here(&listener);
    let reach = Reach { coordinator: endpoint.clone(), join_token };
    directory.write_private(REACH_FILE, &serde_json::to_vec_pretty(&reach)?)?;
    metrics.ready(coordinator.handle());
    screen::say(format_args!(
        "{endpoint} leads run {} with configuration {}: {} steps{metrics}",
        identity.run_id, identity.config_digest, identity.total_steps
    ));

    // Workers that knew the coordinator before it was started again come back within that time.
    let settle = if known.is_empty() { Duration::ZERO } else { timing.silence };
    let (handle, stop_serving) = (coordinator.handle(), stop.child_token());
    let linger = Duration::from_secs(args.linger);
    let finish = async {
        let told = all_told(&handle, settle, linger).await;
        stop_serving.cancel();
        told
    };
    let serving = coordinator.serve(listener.incoming(), stop_serving.clone());
    let (served, told) = tokio::join!(serving, finish);
    served?;
    if let Some(late) = told {
        screen::say(format_args!("run {} is complete{late}", identity.run_id));
    }
    Ok(())
}

/// Waits until the run is complete and every worker has left for it, for at most `linger`. What to say
/// of it; nothing when the coordinator ended before.
async fn all_told(handle: &Handle, settle: Duration, linger: Duration) -> Option<String> {
    let started = Instant::now();
    handle.complete().await.ok()?;
    let complete = Instant::now();
    loop {
        let workers = handle.status().await.ok()?.workers;
        let settled = started.elapsed() >= settle;
        let waited = complete.elapsed() >= linger;
        if workers.is_empty() && (settled || waited) {
            return Some(String::new());
        }
        if waited {
            let names: Vec<String> = workers.into_iter().map(|worker| worker.name).collect();
            tracing::warn!(?linger, workers = ?names, "workers did not find out that the run is complete");
            return Some(format!("; not told: {}", names.join(", ")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The token that was given, the one of the last start, or a new one.
fn token(directory: &RunDirectory, given: Option<&str>) -> Result<String> {
    if let Some(given) = given {
        anyhow::ensure!(!given.is_empty(), "--join-token: expected a token, found an empty one");
        return Ok(given.to_owned());
    }
    let path = directory.join(TOKEN_FILE);
    match std::fs::read_to_string(&path) {
        Ok(kept) => Ok(kept.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let token = crate::train::token()?;
            directory.write_private(TOKEN_FILE, token.as_bytes())?;
            Ok(token)
        }
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}
