//! A scripted coordinator, learner and reward service on loopback ports, and a tiny model.
#![allow(clippy::unwrap_used, dead_code, missing_docs)]

pub mod coordinator;
pub mod learner;
pub mod model;
pub mod reward;

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use candle_core::{DType, Device};
use octet_proto::ConfigDigest;
use octet_proto::coordinator::{Lease, RewardRevision, coordinator_server};
use octet_proto::learner::{ScoredGroup, learner_server};
use octet_proto::reward::reward_server;
use octet_proto::transport::{ClientOptions, KeepAlive, server};
use octet_proto::weights::weights_server;
use octet_rollout_worker::{
    Config, Handle, Limits, OnRewardFailure, SamplingSettings, Worker, WorkerError,
};
use octet_runtime::CancellationToken;
use octet_runtime::net::{Exposure, Tcp, bind, serve};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::transport::server::Router;

use coordinator::Coordinator;
use learner::Learner;
use model::{COMPLETIONS, ModelDirectory, SAMPLING};
use reward::{DIGEST, Reward};

/// Longer than any test takes on a busy machine, shorter than anybody's patience.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Everything around one worker.
pub struct World {
    pub model: ModelDirectory,
    pub coordinator: Coordinator,
    pub learner: Learner,
    pub rewards: Vec<Reward>,
    pub revision: RewardRevision,
    pub config: Config,
    servers: CancellationToken,
}

/// A worker that runs.
pub struct Running {
    pub handle: Handle,
    pub shutdown: CancellationToken,
    pub ended: JoinHandle<Result<(), WorkerError>>,
}

impl World {
    /// With so many reward replicas.
    pub async fn new(replicas: usize) -> Self {
        let servers = CancellationToken::new();
        let model = ModelDirectory::new();
        let learner = Learner::new(&model);
        let services = server(KeepAlive::default())
            .add_service(learner_server(learner.clone()))
            .add_service(weights_server(learner.clone()));
        let learner_at = start(services, &servers).await;
        let mut rewards = Vec::new();
        let mut endpoints = Vec::new();
        for _ in 0..replicas {
            let reward = Reward::default();
            let service = server(KeepAlive::default()).add_service(reward_server(reward.clone()));
            endpoints.push(start(service, &servers).await);
            rewards.push(reward);
        }
        let coordinator = Coordinator::new(learner_at, learner.clone());
        let service =
            server(KeepAlive::default()).add_service(coordinator_server(coordinator.clone()));
        let coordinator_at = start(service, &servers).await;
        let config = config(coordinator_at, &model);
        let revision = RewardRevision {
            number: 1,
            name: "scripted".to_owned(),
            digest: DIGEST.to_owned(),
            endpoints,
        };
        Self { model, coordinator, learner, rewards, revision, config, servers }
    }

    /// Offers a group to whoever asks.
    pub fn offer(&self, group: u64, version: u64) {
        self.coordinator.offer(Lease {
            group,
            epoch: 100 + group,
            step: version,
            policy_version: version,
            reward: Some(self.revision.clone()),
            example_json: model::example(group),
            deadline_ms: 2000,
        });
    }

    pub fn start(&self) -> Running {
        let worker = Worker::new(self.config.clone(), Arc::new(Tcp)).unwrap();
        let (handle, shutdown) = (worker.handle(), CancellationToken::new());
        let ended = tokio::spawn(worker.run(shutdown.clone()));
        Running { handle, shutdown, ended }
    }

    /// The group as it was received last.
    pub fn delivered(&self, group: u64) -> Option<ScoredGroup> {
        let received = self.learner.received();
        received.into_iter().rev().find(|received| received.group == group)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.servers.cancel();
    }
}

impl Running {
    pub async fn end(self) -> Result<(), WorkerError> {
        timeout(PATIENCE, self.ended).await.expect("the worker ends").unwrap()
    }

    /// Asks it to stop, and waits for its end.
    pub async fn stop(self) -> Result<(), WorkerError> {
        self.shutdown.cancel();
        self.end().await
    }

    pub fn waits_for(&self, name: &str) -> bool {
        self.handle.waits().iter().any(|wait| wait.name == name)
    }
}

/// Until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let waiting = async {
        while !so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

async fn start(router: Router, stop: &CancellationToken) -> String {
    let listener = bind(([127, 0, 0, 1], 0).into(), Exposure::Loopback).await.unwrap();
    let (endpoint, stop) = (listener.endpoint(), stop.clone());
    tokio::spawn(serve("scripted", router, listener.incoming(), stop, Duration::ZERO));
    endpoint
}

fn config(coordinator: String, model: &ModelDirectory) -> Config {
    Config {
        name: "worker-a".to_owned(),
        coordinator,
        join_token: coordinator::TOKEN.to_owned(),
        config_digest: ConfigDigest::new("cafe"),
        weights_endpoint: String::new(),
        capacity: NonZeroU32::new(2).unwrap(),
        max_rows: NonZeroUsize::new(2 * COMPLETIONS as usize).unwrap(),
        model: model.path().to_owned(),
        dtype: DType::F32,
        device: Device::Cpu,
        sampling: SamplingSettings { ..SAMPLING },
        on_reward_failure: OnRewardFailure::Zero,
        drain: Duration::from_secs(20),
        limits: Limits { poll: Duration::from_millis(200), ..Limits::default() },
        client: ClientOptions::default(),
    }
}
