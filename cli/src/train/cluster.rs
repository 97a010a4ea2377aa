//! Coordinator, reward service, learner and rollout workers in one process, on loopback ports of
//! their own: the same services, messages and state machines as a cluster.
//!
//! Invariant: roles meet only through their ports; nothing here hands one the other's memory.

use super::basis::{Membership, WorkerShape};
use super::directory::{Identity, RunDirectory};
use super::setup::{Setup, Swap};
use super::summary::Speed;
use crate::reach::{REACH_FILE, Reach};
use anyhow::{Context, Result};
use octet_coordinator::{Coordinator, JOURNAL_FILE, JoinToken, Reward, Timing};
use octet_learner::Learner;
use octet_learner::metrics::StepMetrics;
use octet_reward_service::{RewardFunction, ServiceSettings};
use octet_rollout_worker::Worker;
use octet_runtime::net::{Dialer, Exposure, Listener, Tcp, bind};
use octet_runtime::shutdown;
use octet_runtime::supervise::{Kind, Supervisor};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What a completed run gave.
pub struct Done {
    /// The final policy's directory.
    pub policy: PathBuf,
    /// Digest of its weights.
    pub weights_digest: String,
    /// The largest gap between sampler and learner.
    pub logprob_gap_max: f64,
    /// Work and time of sampling.
    pub sampling: Option<Work>,
    /// Work and time of learning.
    pub learning: Option<Work>,
}

/// Work done in some time.
#[derive(Clone, Copy)]
pub struct Work {
    tokens: f64,
    flops: f64,
    seconds: f64,
}

impl Work {
    /// None where nothing was done.
    pub fn new(tokens: u64, flops: f64, seconds: f64) -> Option<Self> {
        (tokens > 0 && seconds > 0.0).then_some(Self { tokens: tokens as f64, flops, seconds })
    }

    /// As speeds, beside the machine's.
    pub fn beside(self, machine_gflops: f64) -> Speed {
        Speed {
            tokens_per_second: self.tokens / self.seconds,
            gflops: self.flops / self.seconds / 1e9,
            machine_gflops,
        }
    }
}

/// How long each stage of the shutdown may take: workers, learner, rewards and coordinator.
const STAGES: [Duration; 3] =
    [Duration::from_secs(40), Duration::from_secs(70), Duration::from_secs(10)];

/// Runs to the last step, calling `show` with each as it is committed; `None` when it was stopped before.
pub fn train(
    setup: &Setup,
    identity: &Identity,
    directory: &RunDirectory,
    show: impl FnMut(&StepMetrics) + Send + 'static,
) -> Result<Option<Done>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    runtime.block_on(serve(setup, identity, directory, show))
}

async fn serve(
    setup: &Setup,
    identity: &Identity,
    directory: &RunDirectory,
    mut show: impl FnMut(&StepMetrics) + Send + 'static,
) -> Result<Option<Done>> {
    let stop = shutdown::on_signal().context("listening for Ctrl-C")?;
    let token = token()?;
    let dialer: Dialer = Arc::new(Tcp);
    let (rewards, at_coordinator, at_learner) = (listen().await?, listen().await?, listen().await?);
    let mut schedule = Vec::new();
    let mut later = Vec::new();
    for (step, swap) in &setup.swaps {
        let reward = match swap {
            Swap::Service(reward) => reward.clone(),
            Swap::Function(function) => {
                let at = listen().await?;
                let reward = reward(&**function, &at);
                later.push((function.clone(), at));
                reward
            }
        };
        schedule.push((*step, reward));
    }
    let coordinator = Coordinator::open(
        octet_coordinator::Config {
            plan: setup.basis.plan(identity)?,
            timing: Timing::default(),
            reward: reward(&*setup.function, &rewards),
            join_token: JoinToken::new(token.as_str()),
            journal: directory.join(JOURNAL_FILE),
            drain: Duration::from_secs(2),
        },
        setup.basis.rows(),
    )?
    .with_schedule(&schedule)?;
    let endpoint = at_coordinator.endpoint();
    // For `octet reward swap --run`: whoever may read the directory may swap the reward.
    let reach = Reach { coordinator: endpoint.clone(), join_token: token.clone() };
    directory.write_private(REACH_FILE, &serde_json::to_vec_pretty(&reach)?)?;
    let member = Membership { coordinator: endpoint.clone(), join_token: token.clone() };
    let config =
        setup.basis.learner(directory.path(), &member, setup.longest_prompt, &setup.device);
    let learner = tokio::task::spawn_blocking(move || Learner::open(config)).await??;
    let recipe = &setup.basis.recipe;
    let workers = (0..recipe.workers.count)
        .map(|i| {
            let shape = WorkerShape {
                name: format!("worker-{i}"),
                rows: recipe.workers.rows,
                capacity: None,
                weights_endpoint: String::new(),
                drain: Duration::from_secs(10),
            };
            let config = setup.basis.worker(&member, shape, &setup.device);
            Ok(Worker::new(config, dialer.clone())?)
        })
        .collect::<Result<Vec<_>>>()?;

    let (learning, sampling) =
        (learner.handle(), workers.iter().map(Worker::handle).collect::<Vec<_>>());
    let mut committed = learning.steps();
    let shown = tokio::spawn(async move {
        use tokio::sync::broadcast::error::RecvError;
        loop {
            match committed.recv().await {
                Ok(metrics) => show(&metrics),
                // A screen that cannot keep up misses lines, nothing else.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break,
            }
        }
    });

    let summary = Arc::new(std::sync::Mutex::new(None));
    let mut supervisor = Supervisor::new("train").stages(STAGES);
    let mut coordinator = Some((coordinator, at_coordinator));
    supervisor = supervisor.actor("coordinator", Kind::Essential, 2, move |context| {
        let taken = coordinator.take();
        async move {
            match taken {
                Some((c, at)) => {
                    c.serve(at.incoming(), context.stop).await.map_err(anyhow::Error::from)
                }
                None => Err(started_twice("coordinator")),
            }
        }
    });
    later.insert(0, (setup.function.clone(), rewards));
    for (i, (function, at)) in later.into_iter().enumerate() {
        let (name, mut at) = (format!("reward service {i}"), Some(at));
        supervisor = supervisor.actor(name, Kind::Essential, 2, move |context| {
            let (taken, function) = (at.take(), function.clone());
            async move {
                let at = taken.ok_or_else(|| started_twice("reward service"))?;
                let settings = ServiceSettings::default();
                octet_reward_service::serve(at, function, settings, context.stop).await?;
                anyhow::Ok(())
            }
        });
    }
    let mut learner = Some((learner, at_learner));
    let (written, speak) = (summary.clone(), dialer.clone());
    supervisor = supervisor.actor("learner", Kind::Main, 1, move |context| {
        let (taken, written, speak) = (learner.take(), written.clone(), speak.clone());
        async move {
            let (learner, at) = taken.ok_or_else(|| started_twice("learner"))?;
            let endpoint = at.endpoint();
            let done = learner.serve(at.incoming(), endpoint, speak, context.stop).await?;
            if let Ok(mut slot) = written.lock() {
                *slot = Some(done);
            }
            anyhow::Ok(())
        }
    });
    for (i, worker) in workers.into_iter().enumerate() {
        let mut worker = Some(worker);
        supervisor = supervisor.actor(format!("worker {i}"), Kind::Transient, 0, move |context| {
            let taken = worker.take();
            async move {
                let worker = taken.ok_or_else(|| started_twice("worker"))?;
                Ok::<(), anyhow::Error>(worker.run(context.stop).await?)
            }
        });
    }
    let ended = supervisor.run(stop).await;
    // The screen's task ends with the learner's event stream; its handle is no longer needed.
    shown.abort();
    directory.remove(REACH_FILE);
    ended?;

    let done = summary.lock().ok().and_then(|mut slot| slot.take());
    Ok(done.filter(|d| d.complete).map(|d| {
        let mut work = (0u64, 0f64);
        let mut flops = 0f64;
        for handle in &sampling {
            let totals = handle.totals();
            work.0 += totals.sampled_tokens + totals.prefilled_tokens;
            work.1 += totals.busy.as_secs_f64();
            flops += totals.flop();
        }
        let t = d.totals;
        Done {
            policy: d.weights,
            weights_digest: d.weights_digest,
            logprob_gap_max: t.logprob_gap_max,
            sampling: Work::new(work.0, flops, work.1),
            learning: Work::new(t.learned_tokens, t.flops, t.learn_seconds),
        }
    }))
}

fn reward(function: &dyn RewardFunction, at: &Listener) -> Reward {
    let (name, digest) = (function.name().to_owned(), function.digest());
    Reward { name, digest, endpoints: vec![at.endpoint()] }
}

fn started_twice(role: &str) -> anyhow::Error {
    anyhow::anyhow!("the {role} was to be started twice in one process")
}

async fn listen() -> Result<Listener> {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    Ok(bind(any, Exposure::Loopback).await?)
}

/// A join token that nobody can guess: 128 bits from the system's generator.
pub fn token() -> Result<String> {
    let mut drawn = [0; 16];
    getrandom::fill(&mut drawn).context("drawing a join token from the system's random numbers")?;
    Ok(format!("{:032x}", u128::from_ne_bytes(drawn)))
}
