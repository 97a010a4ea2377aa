//! `octet rollout-worker`: samples groups and has them scored.
//!
//! Invariant: a worker keeps nothing that cannot be made again, so it may come and go at any time.

use super::metrics::{Metrics, MetricsListen, WorkerPage};
use super::process::{self, NodeArgs, RecipeArgs, advertised, listen};
use super::transport::transport;
use crate::train::basis::{Membership, WorkerShape};
use crate::{compute, screen};
use anyhow::{Result, ensure};
use clap::Args;
use octet_rollout_worker::{Limits, Worker};
use octet_runtime::CancellationToken;
use octet_runtime::net::Exposure;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

const ROLE: &str = "rollout-worker";

/// Sample for a run: lease groups, write their completions, have them scored, deliver them to the learner.
///
/// Start as many as there are machines, at any time, and stop them at any time: their number changes no bit
/// of the final weights. A worker that is killed loses its leases within seconds, and others sample the same
/// groups to the same bits. It ends when the run is complete.
///
/// It needs the recipe, the data set and the policy to start from. Later policy versions come over the
/// network, from the learner or from other workers.
#[derive(Args, Debug)]
#[command(after_help = "\
Example, on one machine:

  octet rollout-worker --coordinator http://127.0.0.1:50050 --join-token TOKEN

docs/cluster.md goes through a whole cluster.")]
pub struct WorkerArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Where the coordinator is.
    #[arg(long, value_name = "URL")]
    coordinator: String,
    /// The run's join token.
    #[arg(long, value_name = "TOKEN")]
    join_token: String,
    /// Where other workers fetch weights from it; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What others dial to reach it; without it, the address that it listens on.
    #[arg(long, value_name = "URL")]
    advertise: Option<String>,
    /// What people call it; without it, the machine's name and the process's number.
    #[arg(long)]
    name: Option<String>,
    /// Completions that are decoded together; without it, the recipe's workers.rows.
    #[arg(long)]
    rows: Option<usize>,
    /// Groups that are sampled at once; without it, as many as the rows hold.
    #[arg(long)]
    capacity: Option<NonZeroU32>,
    /// Where metrics and liveness are shown over plain HTTP (/metrics, /healthz), or off.
    #[arg(long, value_name = "ADDR|off", default_value = "127.0.0.1:0")]
    metrics_listen: MetricsListen,
    /// Seconds that the coordinator may be away before the worker ends.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    coordinator_patience: u64,
    /// Seconds that groups under way have to end after SIGTERM or Ctrl-C; the others are given back.
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    drain: u64,
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the command.
pub fn run(args: &WorkerArgs) -> Result<()> {
    let exposure = args.node.network.exposure()?;
    let drain = Duration::from_secs(args.drain);
    process::run(ROLE, &args.node, drain, |stop| sample(args, exposure, stop))
}

async fn sample(args: &WorkerArgs, exposure: Exposure, stop: CancellationToken) -> Result<()> {
    let listener = listen("--listen", args.listen, &exposure).await?;
    let metrics = Metrics::begin(ROLE, args.metrics_listen, &exposure, &stop).await?;
    let endpoint = advertised(args.advertise.as_deref(), &listener, &exposure)?;
    let Some(basis) = args.recipe.basis(&stop).await? else { return Ok(()) };
    let completions = basis.recipe.sampling.completions;
    let rows = args.rows.unwrap_or(basis.recipe.workers.rows);
    ensure!(
        rows >= completions,
        "--rows: expected at least the {completions} completions of a group, found {rows}"
    );
    let name = args.name.clone().unwrap_or_else(|| format!("{}-{}", host(), std::process::id()));
    let member =
        Membership { coordinator: args.coordinator.clone(), join_token: args.join_token.clone() };
    let shape = WorkerShape {
        name: name.clone(),
        rows,
        capacity: args.capacity,
        weights_endpoint: endpoint.clone(),
        // What is left of it is for the farewell, and for the engine's last step.
        drain: Duration::from_secs(args.drain).mul_f64(0.6),
    };
    let device = compute::open(&basis.recipe.model.device)?;
    let mut config = basis.worker(&member, shape, &device);
    config.limits =
        Limits { coordinator: Duration::from_secs(args.coordinator_patience), ..config.limits };
    let line = format!(
        "{endpoint} samples as {name} with configuration {}: {} groups of {completions} at once{metrics}",
        basis.config_digest, config.capacity
    );
    let run = basis.recipe.run.name.clone();
    let transport = transport(&basis.recipe)?;
    // The worker loads its own policy.
    drop(basis);
    let worker = Worker::new(config, Arc::new(exposure))?;
    let worker = worker.serving(listener.incoming(), endpoint);
    let worker = match transport {
        Some(transport) => worker.broadcasting(transport),
        None => worker,
    };
    metrics.ready(WorkerPage(worker.handle()));
    screen::say(line);
    Ok(process::named(ROLE, &run, &name, worker.run(stop)).await?)
}

/// What the machine calls itself, as far as can be told without asking the network.
fn host() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let told = told.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    match told.trim() {
        "" => "worker".to_owned(),
        name => name.to_owned(),
    }
}
