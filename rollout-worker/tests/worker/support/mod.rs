//! A scripted coordinator, learner and reward service on loopback ports, and a tiny model.

pub mod coordinator;
pub mod learner;
pub mod model;
pub mod reward;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use candle_core::{DType, Device};
use octet_proto::ConfigDigest;
use octet_proto::auth::{Demand, JoinToken};
use octet_proto::coordinator::{Lease, RewardRevision, VersionSources, coordinator_server};
use octet_proto::learner::{ScoredGroup, learner_server};
use octet_proto::reward::reward_server;
use octet_proto::transport::{ClientOptions, KeepAlive, server};
use octet_proto::weights::weights_server;
use octet_rollout_worker::{Config, Handle, Limits, OnRewardFailure, Worker, WorkerError};
use octet_runtime::CancellationToken;
use octet_runtime::net::{Exposure, Tcp, bind, serve};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::DropGuard;
use tonic::service::interceptor::InterceptedService;
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
    coordinator_up: Option<Up>,
    learner_up: Option<Up>,
    /// Held, since they serve until it is dropped.
    _reward_up: Vec<Up>,
}

/// A server that runs; gone when it is dropped.
pub struct Up {
    address: SocketAddr,
    stop: DropGuard,
    served: JoinHandle<()>,
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
        let model = ModelDirectory::new();
        let learner = Learner::new(&model);
        let learner_up = start(learner_router(&learner), None).await;
        let (mut rewards, mut reward_up) = (Vec::new(), Vec::new());
        for _ in 0..replicas {
            let reward = Reward::default();
            let service = server(KeepAlive::default()).add_service(reward_server(reward.clone()));
            reward_up.push(start(service, None).await);
            rewards.push(reward);
        }
        let coordinator = Coordinator::new(learner_up.endpoint(), learner.clone());
        let coordinator_up = start(coordinator_router(&coordinator), None).await;
        let config = config(coordinator_up.endpoint(), &model);
        let revision = RewardRevision {
            number: 1,
            name: "scripted".to_owned(),
            digest: DIGEST.to_owned(),
            endpoints: reward_up.iter().map(Up::endpoint).collect(),
        };
        let (coordinator_up, learner_up) = (Some(coordinator_up), Some(learner_up));
        Self {
            model,
            coordinator,
            learner,
            rewards,
            revision,
            config,
            coordinator_up,
            learner_up,
            _reward_up: reward_up,
        }
    }

    /// Ends the learner and the coordinator; says where they were.
    pub async fn take_down(&mut self) -> (SocketAddr, SocketAddr) {
        let learner = self.learner_up.take().unwrap().down().await;
        (learner, self.coordinator_up.take().unwrap().down().await)
    }

    /// Both are there again, and the coordinator knows nobody.
    pub async fn bring_back(&mut self, (learner, coordinator): (SocketAddr, SocketAddr)) {
        self.coordinator.forget();
        self.learner_up = Some(start(learner_router(&self.learner), Some(learner)).await);
        let router = coordinator_router(&self.coordinator);
        self.coordinator_up = Some(start(router, Some(coordinator)).await);
    }

    /// Another node that gives weights, as scripted; it holds version 0.
    pub async fn source(&self) -> (Learner, Up) {
        let source = Learner::new(&self.model);
        let up = start(learner_router(&source), None).await;
        (source, up)
    }

    /// The coordinator names these sources for a version that the learner published.
    pub fn name_sources(&self, version: u64, endpoints: Vec<String>) {
        let digest = self.model.publish(version).0.digest;
        let named = VersionSources { version, digest, endpoints, broadcast_within_ms: 0 };
        self.coordinator.book.lock().unwrap().sources.push(named);
    }

    /// Where the learner is.
    pub fn learner_at(&self) -> String {
        self.learner_up.as_ref().unwrap().endpoint()
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
        self.run(Worker::new(self.config.clone(), Arc::new(Tcp)).unwrap())
    }

    /// A worker that serves what it holds, and where.
    pub async fn start_serving(&self) -> (Running, String) {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = bind(any, Exposure::Loopback).await.unwrap();
        let endpoint = listener.endpoint();
        let worker = Worker::new(self.config.clone(), Arc::new(Tcp)).unwrap();
        (self.run(worker.serving(listener.incoming(), endpoint.clone())), endpoint)
    }

    fn run(&self, worker: Worker) -> Running {
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

impl Up {
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub async fn down(self) -> SocketAddr {
        drop(self.stop);
        self.served.await.unwrap();
        self.address
    }
}

fn learner_router(learner: &Learner) -> Router {
    server(KeepAlive::default())
        .add_service(InterceptedService::new(learner_server(learner.clone()), demand("learner")))
        .add_service(InterceptedService::new(weights_server(learner.clone()), demand("learner")))
}

fn coordinator_router(coordinator: &Coordinator) -> Router {
    let service = coordinator_server(coordinator.clone());
    server(KeepAlive::default())
        .add_service(InterceptedService::new(service, demand("coordinator")))
}

fn demand(service: &'static str) -> Demand {
    Demand::new(JoinToken::new(coordinator::TOKEN), service)
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

async fn start(router: Router, address: Option<SocketAddr>) -> Up {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = bind(address.unwrap_or(any), Exposure::Loopback).await.unwrap();
    let (address, stop) = (listener.address(), CancellationToken::new());
    let serving = serve("scripted", router, listener.incoming(), stop.clone(), Duration::ZERO);
    let served = tokio::spawn(async move {
        serving.await.unwrap();
    });
    Up { address, stop: stop.drop_guard(), served }
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
        adapter: None,
        dtype: DType::F32,
        device: Device::Cpu,
        sampling: SAMPLING,
        on_reward_failure: OnRewardFailure::Zero,
        drain: Duration::from_secs(20),
        limits: Limits { poll: Duration::from_millis(200), ..Limits::default() },
        client: ClientOptions::default(),
    }
}
