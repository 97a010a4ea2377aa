//! A coordinator on a loopback port, and scripted nodes that speak to it over gRPC.
#![allow(clippy::unwrap_used, dead_code, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use octet_coordinator::{
    Config, Coordinator, CoordinatorError, Handle, JOURNAL_FILE, JoinToken, Reward, Rows, RunPlan,
    Timing,
};
use octet_proto::ConfigDigest;
use octet_proto::auth::Line;
use octet_proto::coordinator::{
    CoordinatorClient, HeartbeatRequest, Lease, LeaseRef, LeaseRequest, RegisterLearnerRequest,
    RegisterWorkerRequest, ReportProgressRequest, coordinator_client,
};
use octet_proto::transport::{ClientOptions, channel};
use octet_runtime::CancellationToken;
use octet_runtime::net::{Exposure, bind};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::Code;

pub const DIGEST: &str = "cafe";
pub const TOKEN: &str = "open sesame";
pub const ROWS: usize = 7;
pub const SEED: u64 = 3;
/// Longer than any test takes on a busy machine, shorter than anybody's patience.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn rows() -> Rows {
    Arc::new((0..ROWS).map(|row| format!("{{\"row\": {row}}}")).collect())
}

pub fn config(folder: &Path, steps: u64, batch: u64, lag: u64) -> Config {
    Config {
        plan: RunPlan {
            run_id: "run".into(),
            config_digest: ConfigDigest::new(DIGEST),
            seed: SEED,
            steps: NonZeroU64::new(steps).unwrap(),
            batch: NonZeroU64::new(batch).unwrap(),
            lag,
            rows: NonZeroU64::new(ROWS as u64).unwrap(),
        },
        timing: Timing {
            lease: Duration::from_millis(400),
            heartbeat: Duration::from_millis(100),
            silence: Duration::from_secs(2),
        },
        reward: Reward {
            name: "tool-call".into(),
            digest: "reward-a".into(),
            endpoints: vec!["http://127.0.0.1:9".into()],
        },
        join_token: JoinToken::new(TOKEN),
        journal: folder.join(JOURNAL_FILE),
        drain: Duration::from_secs(2),
    }
}

/// A coordinator that runs.
pub struct Running {
    pub address: SocketAddr,
    pub handle: Handle,
    pub shutdown: CancellationToken,
    pub served: JoinHandle<Result<(), CoordinatorError>>,
}

impl Running {
    pub async fn start(config: Config, address: Option<SocketAddr>) -> Self {
        let coordinator = Coordinator::open(config, rows()).unwrap();
        Self::serve(coordinator, address).await
    }

    pub async fn serve(coordinator: Coordinator, address: Option<SocketAddr>) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = bind(address.unwrap_or(any), Exposure::Loopback).await.unwrap();
        let address = listener.address();
        let (handle, shutdown) = (coordinator.handle(), CancellationToken::new());
        let served = tokio::spawn(coordinator.serve(listener.incoming(), shutdown.clone()));
        Self { address, handle, shutdown, served }
    }

    pub fn client(&self) -> CoordinatorClient {
        client(self.address)
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.served.await.unwrap().unwrap();
    }

    /// As after kill -9: nothing is drained, the journal is as it is.
    pub async fn kill(self) {
        self.served.abort();
        let _aborted = self.served.await;
    }
}

pub fn client(address: SocketAddr) -> CoordinatorClient {
    client_with(address, TOKEN)
}

/// A client with a token of its own.
pub fn client_with(address: SocketAddr, token: &str) -> CoordinatorClient {
    let channel = channel(&format!("http://{address}"), &ClientOptions::default()).unwrap();
    coordinator_client(Line::new(channel, &JoinToken::new(token)))
}

/// The learner's disk, shared with the workers in place of the learner's own service.
#[derive(Debug, Default)]
pub struct Disk {
    pub committed: u64,
    pub spool: BTreeSet<u64>,
    /// Every group that a step consumed, in order.
    pub consumed: Vec<u64>,
    /// Every lease that anybody was given: group to epochs and what came with them.
    pub given: BTreeMap<u64, Vec<Lease>>,
}

pub type Shared = Arc<Mutex<Disk>>;

pub async fn worker(address: SocketAddr, name: &'static str, capacity: u32, disk: Shared) {
    let mut worker = Worker::new(address, name, capacity, disk);
    while !worker.round().await {}
}

/// A worker that samples by sleeping.
pub struct Worker {
    client: CoordinatorClient,
    name: &'static str,
    capacity: u32,
    disk: Shared,
    pub id: Option<u64>,
    pub held: Vec<Lease>,
}

impl Worker {
    pub fn new(address: SocketAddr, name: &'static str, capacity: u32, disk: Shared) -> Self {
        Self { client: client(address), name, capacity, disk, id: None, held: Vec::new() }
    }

    /// One round of its life; true when the run is complete.
    pub async fn round(&mut self) -> bool {
        match self.take().await {
            Ok(complete) => {
                self.deliver();
                complete
            }
            Err(status) => {
                match status.code() {
                    Code::NotFound => self.id = None,
                    Code::Unavailable | Code::Cancelled | Code::Unknown => {}
                    code => panic!("{}: {code:?} {}", self.name, status.message()),
                }
                sleep(Duration::from_millis(20)).await;
                false
            }
        }
    }

    /// Registers, renews and leases.
    pub async fn take(&mut self) -> Result<bool, tonic::Status> {
        let id = match self.id {
            Some(id) => id,
            None => {
                let joined = self.client.register_worker(registration(self.name, self.capacity));
                let id = joined.await?.into_inner().worker_id;
                self.id = Some(id);
                id
            }
        };
        let leases = self.held.iter();
        let leases = leases.map(|l| LeaseRef { group: l.group, epoch: l.epoch }).collect();
        let beat = HeartbeatRequest { worker_id: id, leases, ..HeartbeatRequest::default() };
        let pulse = self.client.heartbeat(beat).await?.into_inner();
        self.held.retain(|lease| {
            !pulse.revoked.iter().any(|r| (r.group, r.epoch) == (lease.group, lease.epoch))
        });
        let want = self.capacity.saturating_sub(self.held.len() as u32);
        let request = LeaseRequest { worker_id: id, want, wait_ms: 80 };
        let answer = self.client.lease(request).await?.into_inner();
        assert_eq!(
            answer.waiting_for.is_empty(),
            answer.run_complete || !answer.leases.is_empty(),
            "either leases or a reason"
        );
        let mut disk = self.disk.lock().unwrap();
        for lease in &answer.leases {
            disk.given.entry(lease.group).or_default().push(lease.clone());
        }
        drop(disk);
        self.held.extend(answer.leases);
        Ok(answer.run_complete)
    }

    fn deliver(&mut self) {
        let mut disk = self.disk.lock().unwrap();
        for lease in self.held.drain(..) {
            if lease.step >= disk.committed {
                disk.spool.insert(lease.group);
            }
        }
    }
}

pub fn registration(name: &str, capacity: u32) -> RegisterWorkerRequest {
    RegisterWorkerRequest {
        name: name.into(),
        config_digest: DIGEST.into(),
        capacity,
        weights_endpoint: String::new(),
    }
}

pub fn learner_registration(disk: &Shared) -> RegisterLearnerRequest {
    let disk = disk.lock().unwrap();
    RegisterLearnerRequest {
        config_digest: DIGEST.into(),
        endpoint: "http://127.0.0.1:8".into(),
        committed_steps: disk.committed,
        spooled_groups: disk.spool.iter().copied().collect(),
        published: Vec::new(),
    }
}

/// A learner that commits a step as soon as its groups are spooled.
pub async fn learner(address: SocketAddr, batch: u64, steps: u64, disk: Shared) {
    let mut client = client(address);
    let mut id = None;
    loop {
        sleep(Duration::from_millis(15)).await;
        let answer = match id {
            None => client.register_learner(learner_registration(&disk)).await.map(|joined| {
                id = Some(joined.into_inner().learner_id);
                false
            }),
            Some(learner_id) => {
                let report = progress(learner_id, batch, steps, &disk);
                client.report_progress(report).await.map(|answer| answer.into_inner().run_complete)
            }
        };
        match answer {
            Ok(true) => return,
            Ok(false) => {}
            Err(status) if status.code() == Code::NotFound => id = None,
            Err(status) if status.code() == Code::Aborted => panic!("{}", status.message()),
            Err(_unreachable) => {}
        }
    }
}

fn progress(learner_id: u64, batch: u64, steps: u64, disk: &Shared) -> ReportProgressRequest {
    let mut disk = disk.lock().unwrap();
    let groups = disk.committed * batch..(disk.committed + 1) * batch;
    if disk.committed < steps && groups.clone().all(|group| disk.spool.contains(&group)) {
        disk.consumed.extend(groups.clone());
        disk.spool.retain(|group| *group >= groups.end);
        disk.committed += 1;
    }
    ReportProgressRequest {
        learner_id,
        spooled_groups: disk.spool.iter().copied().collect(),
        committed_steps: disk.committed,
        learned_tokens: disk.committed,
        ..ReportProgressRequest::default()
    }
}

/// A folder that outlives the coordinators in it.
pub fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}
