//! The hosts' software: each role as it is shipped, opened anew whenever its host starts.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use candle_core::{DType, Device};
use octet_coordinator::{Config, Coordinator, JOURNAL_FILE, JoinToken, Reward, RunPlan, Timing};
use octet_dataset::Example;
use octet_learner::learner::Patience;
use octet_learner::{Learner, LearnerConfig, RunShape};
use octet_policy::kernel::head::Shaping;
use octet_proto::transport::ClientOptions;
use octet_proto::{ConfigDigest, StepIndex};
use octet_reward_service::{
    RewardFunction, RewardRange, ScoreError, Scorer, ServiceSettings, Verdict, serve_scorer,
};
use octet_rollout_worker::{Limits, OnRewardFailure, SamplingSettings, Worker};
use octet_runtime::CancellationToken;
use turmoil::Sim;

pub use crate::cluster::{DIGEST, TOKEN};

use super::network::{Simulated, at, incoming};
use super::{COMPLETIONS, Cast, Disk, MAX_TOKENS, Shape, rows};

pub const COORDINATOR: &str = "coordinator";
pub const LEARNER: &str = "learner";
/// The replicas of the first reward, and the one of the second.
pub const REWARDS: [&str; 3] = ["reward-a", "reward-b", "reward-later"];

pub fn worker_name(index: usize) -> String {
    format!("worker-{index}")
}

/// Every host that can break.
pub fn hosts(cast: &Cast) -> Vec<String> {
    let fixed = [COORDINATOR, LEARNER].into_iter().chain(REWARDS).map(str::to_owned);
    fixed.chain((0..cast.workers.len()).map(worker_name)).collect()
}

/// A reward by the letters of a completion, so that the random model learns something.
struct Letters {
    name: &'static str,
    shift: u32,
}

const FIRST: Letters = Letters { name: "letters", shift: 0 };
const SECOND: Letters = Letters { name: "shifted letters", shift: 3 };

impl RewardFunction for Letters {
    fn name(&self) -> &str {
        self.name
    }

    fn digest(&self) -> String {
        format!("{:02x}", self.shift)
    }

    fn range(&self) -> RewardRange {
        RewardRange::UNIT
    }

    fn score(&self, _: &Example, completion: &str) -> Result<Verdict, ScoreError> {
        let sum: u32 = completion.bytes().map(u32::from).sum();
        Ok(Verdict::new(f64::from((sum + self.shift) % 9) / 8.0, "letters", completion))
    }
}

fn reward(function: &Letters, hosts: &[&str]) -> Reward {
    let endpoints = hosts.iter().map(|host| at(host)).collect();
    Reward { name: function.name().into(), digest: function.digest(), endpoints }
}

/// Puts every role on a host of its own.
pub fn stage(sim: &mut Sim<'_>, disk: &Disk, shape: Shape, cast: &Cast) {
    coordinator(sim, disk, shape);
    learner(sim, disk, shape, cast.learns);
    for (index, host) in REWARDS.into_iter().enumerate() {
        let each = cast.scores;
        sim.host(host, move || async move {
            let function = Arc::new(if index < 2 { FIRST } else { SECOND });
            let never = CancellationToken::new();
            let scorer = Scorer::new(function, ServiceSettings::default(), never.clone());
            serve_scorer(incoming().await?, scorer.simulated(each), never).await?;
            Ok(())
        });
    }
    for (index, (capacity, step)) in cast.workers.iter().enumerate() {
        worker(sim, disk, &worker_name(index), *capacity, *step);
    }
}

fn coordinator(sim: &mut Sim<'_>, disk: &Disk, shape: Shape) {
    let config = Config {
        plan: RunPlan {
            run_id: "run".into(),
            config_digest: ConfigDigest::new(DIGEST),
            seed: 1,
            steps: NonZeroU64::new(shape.steps).unwrap(),
            batch: NonZeroU64::new(shape.batch).unwrap(),
            lag: shape.lag,
            rows: NonZeroU64::new(rows().len() as u64).unwrap(),
        },
        timing: Timing::default(),
        reward: reward(&FIRST, &REWARDS[..2]),
        join_token: JoinToken::new(TOKEN),
        journal: disk.run().join(JOURNAL_FILE),
        drain: Duration::from_secs(1),
    };
    let later = reward(&SECOND, &REWARDS[2..]);
    let schedule: Vec<(StepIndex, Reward)> =
        shape.swap_at.iter().map(|step| (StepIndex(*step), later.clone())).collect();
    sim.host(COORDINATOR, move || {
        let (config, schedule) = (config.clone(), schedule.clone());
        async move {
            let coordinator =
                Coordinator::open(config, Arc::new(rows()))?.with_schedule(&schedule)?;
            coordinator.serve(incoming().await?, CancellationToken::new()).await?;
            Ok(())
        }
    });
}

/// What the learner is configured with.
pub fn learner_config(disk: &Disk, shape: Shape) -> octet_learner::Config {
    octet_learner::Config {
        run: disk.run(),
        model: disk.model(),
        dtype: DType::F32,
        device: Device::Cpu,
        recipe: LearnerConfig {
            batch: NonZeroU64::new(shape.batch).unwrap(),
            lag: shape.lag,
            learning_rate: 1e-2,
            micro_batch_tokens: NonZeroUsize::new(200).unwrap(),
            // Every commit is looked at afterwards.
            keep_every: 1,
            ..LearnerConfig::default()
        },
        shape: RunShape {
            steps: NonZeroU64::new(shape.steps).unwrap(),
            completions: COMPLETIONS as usize,
            max_tokens: MAX_TOKENS,
            longest_prompt: 200,
            shaping: Shaping { temperature: 1.0, top_p: 1.0, top_k: 0 },
            adapter: None,
        },
        config_digest: ConfigDigest::new(DIGEST),
        coordinator: at(COORDINATOR),
        join_token: TOKEN.to_owned(),
        endpoint: None,
        threads: None,
        patience: Patience::default(),
    }
}

fn learner(sim: &mut Sim<'_>, disk: &Disk, shape: Shape, step: Duration) {
    let config = learner_config(disk, shape);
    sim.host(LEARNER, move || {
        let config = config.clone();
        async move {
            let learner = Learner::open(config)?.simulated(step);
            let (dialer, never) = (Arc::new(Simulated), CancellationToken::new());
            learner.serve(incoming().await?, at(LEARNER), dialer, never).await?;
            Ok(())
        }
    });
}

/// How a worker of the disk's run is set up that holds `capacity` groups at once.
pub fn worker_config(
    disk: &Disk,
    name: &str,
    coordinator: String,
    capacity: u32,
) -> octet_rollout_worker::Config {
    octet_rollout_worker::Config {
        name: name.to_owned(),
        coordinator,
        join_token: TOKEN.to_owned(),
        config_digest: ConfigDigest::new(DIGEST),
        weights_endpoint: String::new(),
        capacity: NonZeroU32::new(capacity).unwrap(),
        max_rows: NonZeroUsize::new((capacity * COMPLETIONS) as usize).unwrap(),
        model: disk.model(),
        adapter: None,
        dtype: DType::F32,
        device: Device::Cpu,
        sampling: SamplingSettings {
            seed: 7,
            completions: NonZeroU32::new(COMPLETIONS).unwrap(),
            max_tokens: NonZeroUsize::new(MAX_TOKENS).unwrap(),
            ..SamplingSettings::default()
        },
        on_reward_failure: OnRewardFailure::Fail,
        drain: Duration::from_secs(1),
        limits: Limits::default(),
        client: ClientOptions::default(),
    }
}

fn worker(sim: &mut Sim<'_>, disk: &Disk, name: &str, capacity: u32, step: Duration) {
    let config = worker_config(disk, name, at(COORDINATOR), capacity);
    let host = name.to_owned();
    sim.host(name, move || {
        let (config, host) = (config.clone(), host.clone());
        async move {
            let worker = Worker::new(config, Arc::new(Simulated))?;
            let worker = worker.serving(incoming().await?, at(&host)).simulated(step);
            worker.run(CancellationToken::new()).await?;
            Ok(())
        }
    });
}
