//! A worker that does everything but compute.
//!
//! Invariant: it answers for each lease that it was given: delivered and acknowledged, revoked, or given
//! back when it leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use octet_proto::coordinator::{
    CoordinatorClient, HeartbeatRequest, Lease, LeaseRef, LeaseRequest, RegisterWorkerRequest,
    ReleaseRequest,
};
use octet_proto::learner::{
    DeliveryOutcome, FinishReason, ScoredCompletion, ScoredGroup, learner_client,
};
use octet_proto::weights::{GetChunksRequest, GetManifestRequest, weights_client};
use octet_runtime::CancellationToken;
use serde_json::json;
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval};

use crate::cluster::{DIGEST, client, line};

pub const COMPLETIONS: u32 = 8;
/// Tokens of a prompt.
pub const PROMPT: usize = 400;
/// Tokens of a completion.
pub const TOKENS: usize = 64;
const CAPACITY: u32 = 4;
const POLL_MS: u32 = 2000;

/// What all workers did together.
#[derive(Debug, Default)]
pub struct Tally {
    pub delivered: AtomicU64,
    pub fetched: AtomicU64,
    pub version_bytes: AtomicU64,
    pub acknowledged: Mutex<BTreeSet<u64>>,
    /// Microseconds that were spent waiting for leases, for weights, and for receipts.
    waited: [AtomicU64; 3],
}

impl Tally {
    fn waited(&self, what: usize, since: Instant) {
        let micros = u64::try_from(since.elapsed().as_micros()).unwrap();
        self.waited[what].fetch_add(micros, Ordering::Relaxed);
    }

    /// What part of all workers' time went into waiting for what.
    pub fn shares(&self, seconds: f64) -> String {
        let mut text = String::new();
        for (name, waited) in ["leases", "weights", "receipts"].iter().zip(&self.waited) {
            let share = waited.load(Ordering::Relaxed) as f64 / 1e4 / seconds;
            write!(text, "{share:.0} % of their time waiting for {name}, ").unwrap();
        }
        text.trim_end_matches([',', ' ']).to_owned()
    }
}

#[derive(Default)]
struct Held {
    leases: BTreeMap<u64, u64>,
    versions: BTreeSet<u64>,
}

struct Worker {
    id: u64,
    calls: CoordinatorClient,
    held: Mutex<Held>,
    /// A lease has ended.
    room: Notify,
    tally: Arc<Tally>,
}

/// The one row of the data set, as long as tool schemas usually are.
pub fn example() -> String {
    let tool = json!({"type": "function", "function": {
        "name": "add", "description": "Adds two numbers. ".repeat(60),
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    }});
    json!({
        "prompt": [{"role": "user", "content": "add 1 and 2"}],
        "tools": [tool],
        "reward_model": {"ground_truth": {"tool_call": {"name": "add", "parameters": {"a": 1}}}},
    })
    .to_string()
}

/// Works until `stop`.
pub async fn work(
    name: String,
    coordinator: String,
    learner: String,
    tally: Arc<Tally>,
    stop: CancellationToken,
) {
    let mut calls = client(&coordinator);
    let registration = RegisterWorkerRequest {
        name: name.clone(),
        config_digest: DIGEST.into(),
        capacity: CAPACITY,
        weights_endpoint: String::new(),
    };
    let id = calls.register_worker(registration).await.unwrap().into_inner().worker_id;
    let (held, room) = (Mutex::default(), Notify::new());
    let worker = Arc::new(Worker { id, calls, held, room, tally });
    let beating = tokio::spawn(Arc::clone(&worker).beat());
    let (groups, sending) = mpsc::channel(8);
    let receiving = tokio::spawn(Arc::clone(&worker).receive(learner.clone(), sending));
    tokio::select! {
        () = stop.cancelled() => {}
        () = worker.sample(&name, &learner, groups) => {}
    }
    beating.abort();
    receiving.abort();
    let leaving = ReleaseRequest { worker_id: id, leases: Vec::new(), leaving: true };
    worker.calls.clone().release(leaving).await.unwrap();
}

impl Worker {
    async fn beat(self: Arc<Self>) {
        let mut ticks = interval(Duration::from_millis(500));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let request = {
                let held = self.held.lock().unwrap();
                let leases = held.leases.iter();
                HeartbeatRequest {
                    worker_id: self.id,
                    versions: held.versions.iter().copied().collect(),
                    leases: leases
                        .map(|(group, epoch)| LeaseRef { group: *group, epoch: *epoch })
                        .collect(),
                    ..HeartbeatRequest::default()
                }
            };
            let answer = self.calls.clone().heartbeat(request).await.unwrap().into_inner();
            let mut held = self.held.lock().unwrap();
            for revoked in answer.revoked {
                // One that is given again meanwhile has another epoch.
                if held.leases.get(&revoked.group) == Some(&revoked.epoch) {
                    held.leases.remove(&revoked.group);
                }
            }
            drop(held);
            self.room.notify_one();
        }
    }

    async fn receive(self: Arc<Self>, learner: String, groups: mpsc::Receiver<ScoredGroup>) {
        let stream = tokio_stream::wrappers::ReceiverStream::new(groups);
        let mut receipts =
            learner_client(line(&learner)).deliver(stream).await.unwrap().into_inner();
        while let Some(receipt) = receipts.message().await.unwrap() {
            match receipt.outcome.unwrap() {
                DeliveryOutcome::Accepted(accepted) => {
                    self.tally.acknowledged.lock().unwrap().insert(receipt.group);
                    self.tally
                        .delivered
                        .fetch_add(u64::from(!accepted.duplicate), Ordering::Relaxed);
                }
                DeliveryOutcome::Refused(refused) => panic!("{refused:?}"),
            }
            self.held.lock().unwrap().leases.remove(&receipt.group);
            self.room.notify_one();
        }
    }

    async fn sample(&self, name: &str, learner: &str, groups: mpsc::Sender<ScoredGroup>) {
        loop {
            let since = Instant::now();
            let want = CAPACITY - (self.held.lock().unwrap().leases.len() as u32).min(CAPACITY);
            if want == 0 {
                self.room.notified().await;
                self.tally.waited(2, since);
                continue;
            }
            let request = LeaseRequest { worker_id: self.id, want, wait_ms: POLL_MS };
            let answer = self.calls.clone().lease(request).await.unwrap().into_inner();
            self.tally.waited(0, since);
            for lease in answer.leases {
                self.held.lock().unwrap().leases.insert(lease.group, lease.epoch);
                self.need(lease.policy_version, learner).await;
                groups.send(group(&lease, name)).await.unwrap();
            }
        }
    }

    /// Fetches a version whole, unless it is there.
    async fn need(&self, version: u64, learner: &str) {
        if self.held.lock().unwrap().versions.contains(&version) {
            return;
        }
        let since = Instant::now();
        let mut weights = weights_client(line(learner));
        let wait = GetManifestRequest { version, wait_ms: 10_000 };
        let manifest = weights.get_manifest(wait).await.unwrap().into_inner();
        let chunks = weights.get_chunks(GetChunksRequest { version, offset: 0 }).await;
        let mut chunks = chunks.unwrap().into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.message().await.unwrap() {
            assert_eq!(chunk.offset, bytes.len() as u64);
            bytes.extend_from_slice(&chunk.data);
        }
        let mut rest = bytes.as_slice();
        for tensor in &manifest.tensors {
            let (own, after) = rest.split_at(tensor.bytes as usize);
            assert_eq!(blake3::hash(own).to_hex().as_str(), tensor.blake3, "{}", tensor.name);
            rest = after;
        }
        assert!(rest.is_empty());
        self.tally.fetched.fetch_add(1, Ordering::Relaxed);
        self.tally.version_bytes.store(bytes.len() as u64, Ordering::Relaxed);
        let mut held = self.held.lock().unwrap();
        held.versions.insert(version);
        held.versions.retain(|known| known + 1 >= version);
        drop(held);
        self.tally.waited(1, since);
    }
}

/// A group as the lease asks for it: always the same one, all of its completions worth the same.
fn group(lease: &Lease, worker: &str) -> ScoredGroup {
    let token = |at: usize| (lease.group as usize * 31 + at * 7) as u32 % 300;
    let completions = (0..COMPLETIONS).map(|sample| ScoredCompletion {
        sample,
        tokens: (0..TOKENS).map(|at| token(at + sample as usize)).collect(),
        logprobs: vec![-1.5; TOKENS],
        finish: FinishReason::Length.into(),
        reward: 0.5,
        verdict: "scripted".to_owned(),
        detail: String::new(),
    });
    ScoredGroup {
        group: lease.group,
        lease_epoch: lease.epoch,
        policy_version: lease.policy_version,
        reward_revision: 1,
        prompt_tokens: (0..PROMPT).map(token).collect(),
        completions: completions.collect(),
        worker: worker.to_owned(),
        example_json: lease.example_json.clone(),
    }
}
