//! `octet learner`: turns scored groups into the next policy version, to the last step.
//!
//! Invariant: what it needs to go on is in its run directory; what it ends with is what `octet train` ends
//! with: the same weights, and a summary.json that says their digest.

use super::metrics::{LearnerPage, Metrics, MetricsListen};
use super::process::{self, NodeArgs, RecipeArgs, advertised, blocking, listen};
use super::transport::transport;
use crate::track::{self, Tracked};
use crate::train::Work;
use crate::train::basis::Membership;
use crate::train::directory::{Identity, RunDirectory};
use crate::train::summary::Summary;
use crate::{compute, machine, plot, screen};
use anyhow::Result;
use clap::Args;
use octet_learner::learner::{METRICS_FILE, Patience};
use octet_learner::metrics::StepMetrics;
use octet_learner::{Handle, Learner};
use octet_runtime::CancellationToken;
use octet_runtime::net::Exposure;
use octet_tracking::event::Status;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

const ROLE: &str = "learner";

/// Learn a run: take scored groups in, make one policy version after the other, give them to the workers.
///
/// There is one learner a run. Every group that it acknowledged and every step that it committed is on the
/// disk, so it may be killed and started again with the same --run-dir at any time. It ends when the last
/// step is committed and the coordinator knows.
///
/// It needs the recipe, the data set and the policy to start from, a directory of its own (checkpoints, and
/// every completion with its reward: gigabytes for a large model), and memory for the optimiser.
#[derive(Args, Debug)]
#[command(after_help = "\
Example, on one machine:

  octet learner --run-dir runs/first --coordinator http://127.0.0.1:50050 --join-token TOKEN

At the end it prints the digest of the final weights, which is that of `octet train` with the same
recipe, and writes summary.json. It does not evaluate; see what was learned with

  octet eval runs/first/checkpoints/step-000046 --show 5

docs/cluster.md goes through a whole cluster.")]
pub struct LearnerArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Checkpoints, spool and metrics; made where it is not there.
    #[arg(long, value_name = "DIR")]
    run_dir: PathBuf,
    /// Where the coordinator is.
    #[arg(long, value_name = "URL")]
    coordinator: String,
    /// The run's join token.
    #[arg(long, value_name = "TOKEN")]
    join_token: String,
    /// Where workers deliver groups and fetch weights; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50052")]
    listen: SocketAddr,
    /// What others dial to reach it; without it, the address that it listens on.
    #[arg(long, value_name = "URL")]
    advertise: Option<String>,
    /// Threads to learn with; without it, all of the machine. Their number changes no bit of the result.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Where metrics and liveness are shown over plain HTTP (/metrics, /healthz), or off.
    #[arg(long, value_name = "ADDR|off", default_value = "127.0.0.1:9465")]
    metrics_listen: MetricsListen,
    /// Seconds that the coordinator may be away before the learner ends.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    coordinator_patience: u64,
    /// Seconds to wait, once all is learned, for a coordinator that does not know it yet.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    linger: u64,
    /// Seconds that a micro-batch or a commit has to end after SIGTERM or Ctrl-C.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    drain: u64,
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the command.
pub fn run(args: &LearnerArgs) -> Result<()> {
    let exposure = args.node.network.exposure()?;
    let drain = Duration::from_secs(args.drain);
    process::run(ROLE, &args.node, drain, |stop| learn(args, exposure, stop))
}

async fn learn(args: &LearnerArgs, exposure: Exposure, stop: CancellationToken) -> Result<()> {
    let begin = Instant::now();
    let listener = listen("--listen", args.listen, &exposure).await?;
    let metrics = Metrics::begin(ROLE, args.metrics_listen, &exposure, &stop).await?;
    let endpoint = advertised(args.advertise.as_deref(), &listener, &exposure)?;
    let Some(basis) = args.recipe.basis(&stop).await? else { return Ok(()) };
    let directory = RunDirectory::at(&args.run_dir);
    let recipe = basis.recipe.clone();
    let targets = track::targets(&recipe.tracking, &directory)?;
    let identity = directory.take(&basis.recipe, &basis.identity(&directory))?;
    let member =
        Membership { coordinator: args.coordinator.clone(), join_token: args.join_token.clone() };
    let drain = Duration::from_secs(args.drain);
    let device = compute::open(&basis.recipe.model.device)?;
    let transport = transport(&basis.recipe)?;
    let config = octet_learner::Config {
        endpoint: Some(endpoint.clone()),
        threads: args.threads,
        patience: Patience {
            coordinator: Duration::from_secs(args.coordinator_patience),
            drain: Patience::default().drain.min(drain / 2),
            stop: drain.mul_f64(0.8),
            ..Patience::default()
        },
        ..basis.learner(directory.path(), &member, basis.longest_prompt, &device)
    };
    // The learner loads its own weights, from the last commit.
    drop(basis);
    let opening = blocking(&stop, move || Ok((machine::gflops(), Learner::open(config)?)));
    let Some((machine_gflops, learner)) = opening.await? else { return Ok(()) };
    let learner = match transport {
        Some(transport) => learner.broadcasting(transport),
        None => learner,
    };
    let (handle, total) = (learner.handle(), identity.total_steps);
    let last = watch::Sender::new(None);
    metrics.ready(LearnerPage { learner: handle.clone(), last: last.subscribe() });
    screen::say(format_args!(
        "{endpoint} learns run {} with configuration {}: {} of {total} steps are committed{metrics}",
        identity.run_id,
        identity.config_digest,
        handle.committed_steps()
    ));

    let tracked = Tracked::begin(&recipe, &identity, &directory, targets)?;
    let stop_serving = stop.child_token();
    let linger = Duration::from_secs(args.linger);
    let watching = follow(handle, last, linger, stop_serving.clone());
    let serving = learner.serve(listener.incoming(), endpoint, Arc::new(exposure), stop_serving);
    let work = async {
        tokio::select! {
            served = serving => served,
            never = watching => match never {},
        }
    };
    let done = process::named(ROLE, &identity.run_id, ROLE, work).await;
    let ended = match done {
        Ok(done) => conclude(&done, &identity, &directory, (begin, machine_gflops)),
        Err(error) => Err(error.into()),
    };
    let status = match &ended {
        Ok(true) => Status::Finished,
        Ok(false) => Status::Killed,
        Err(_) => Status::Failed,
    };
    tokio::task::spawn_blocking(move || tracked.finish(status)).await?;
    ended.map(drop)
}

/// Writes and says what came of the run; false when it is not complete.
fn conclude(
    done: &octet_learner::learner::Summary,
    identity: &Identity,
    directory: &RunDirectory,
    (begin, machine_gflops): (Instant, f64),
) -> Result<bool> {
    let total = identity.total_steps;
    if !done.complete {
        screen::say(format_args!(
            "stopped after {} of {total} steps; the same command goes on with them",
            done.committed_steps
        ));
        return Ok(false);
    }
    plot::write(directory.path(), &octet_learner::metrics::read(&directory.join(METRICS_FILE))?)?;
    let totals = done.totals;
    let learning = Work::new(totals.learned_tokens, totals.flops, totals.learn_seconds);
    let summary = Summary {
        before: None,
        after: None,
        weights_digest: done.weights_digest.clone(),
        logprob_gap_max: totals.logprob_gap_max,
        steps: total,
        wall_seconds: begin.elapsed().as_secs_f64(),
        sampling: None,
        learning: learning.map(|work| work.beside(machine_gflops)),
        policy: done.weights.display().to_string(),
        config_digest: identity.config_digest.to_string(),
    };
    directory.write("summary.json", &serde_json::to_vec_pretty(&summary)?)?;
    screen::say(format_args!(
        "\n{summary}\n\npolicy       {policy}\n\ntry next     octet eval {policy} --show 5",
        policy = done.weights.display()
    ));
    Ok(true)
}

/// Tells of each step, and ends the learner when all are committed and nobody can be told any more.
async fn follow(
    handle: Handle,
    last: watch::Sender<Option<Arc<StepMetrics>>>,
    linger: Duration,
    stop: CancellationToken,
) -> Infallible {
    let mut steps = handle.steps();
    while handle.committed_steps() < handle.total_steps() {
        match steps.recv().await {
            Ok(m) => {
                tracing::info!(
                    step = m.step,
                    reward = m.rollout.reward_mean,
                    entropy = m.rollout.entropy_estimate,
                    logprob_gap = m.logprob_gap_max,
                    seconds = m.timing.learn_seconds,
                    waited = m.timing.sample_wait_seconds,
                    "step committed"
                );
                last.send_replace(Some(m));
            }
            Err(RecvError::Lagged(missed)) => tracing::debug!(missed, "steps not told"),
            Err(RecvError::Closed) => break,
        }
    }
    tokio::time::sleep(linger).await;
    tracing::warn!(
        ?linger,
        "every step is committed, and the coordinator was not there to be told"
    );
    stop.cancel();
    std::future::pending().await
}
