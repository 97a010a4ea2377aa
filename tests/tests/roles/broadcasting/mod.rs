//! A run of real roles over loopback gRPC, whose weights go over a scripted transport.

pub mod fabric;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use octet_broadcast::Timing as BroadcastTiming;
use octet_coordinator::{Config, Coordinator, JOURNAL_FILE, JoinToken, Reward, RunPlan, Timing};
use octet_dataset::Example;
use octet_learner::Learner;
use octet_proto::ConfigDigest;
use octet_proto::broadcast::{BroadcastPhase, BroadcastStatus};
use octet_proto::coordinator::{CoordinatorClient, GetStatusRequest, GetStatusResponse};
use octet_reward_service::{
    RewardFunction, RewardRange, ScoreError, Scorer, ServiceSettings, Verdict, serve_scorer,
};
use octet_rollout_worker::{Totals, Worker};
use octet_runtime::CancellationToken;
use octet_runtime::net::Tcp;
use tokio::task::JoinHandle;

use crate::cluster::{DIGEST, TOKEN, client, listen};
use crate::simulated::{COMPLETIONS, Disk, Shape, roles, rows};
use fabric::Fabric;

pub const STEPS: u64 = 6;
const BATCH: u64 = 2;
const SHAPE: Shape = Shape { steps: STEPS, batch: BATCH, lag: 0, swap_at: None };
/// How long anything here may take until the test fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// Deadlines that nobody misses who does something; a test that waits for one sets its own.
pub fn timing() -> BroadcastTiming {
    let seconds = Duration::from_secs;
    BroadcastTiming {
        name: seconds(30),
        sit: seconds(30),
        send: seconds(30),
        settle: Duration::from_millis(200),
        silence: seconds(20),
        rest: seconds(300),
    }
}

/// A reward by the letters of a completion, given only as often as the test permits.
struct Letters {
    permits: Arc<AtomicI64>,
}

impl RewardFunction for Letters {
    fn name(&self) -> &str {
        "letters"
    }

    fn digest(&self) -> String {
        "00".to_owned()
    }

    fn range(&self) -> RewardRange {
        RewardRange::UNIT
    }

    fn score(&self, _: &Example, completion: &str) -> Result<Verdict, ScoreError> {
        while self.permits.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.permits.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
        }
        let sum: u32 = completion.bytes().map(u32::from).sum();
        Ok(Verdict::new(f64::from(sum % 9) / 8.0, "letters", completion))
    }
}

/// A run under way.
pub struct Run {
    disk: Disk,
    coordinator: String,
    status: CoordinatorClient,
    permits: Arc<AtomicI64>,
    pub fabric: Fabric,
    _release: Release,
    broadcasts: bool,
    stop: CancellationToken,
    learner: JoinHandle<Result<octet_learner::learner::Summary, octet_learner::LearnerError>>,
    learner_handle: octet_learner::Handle,
    workers: BTreeMap<String, (octet_rollout_worker::Handle, JoinHandle<()>)>,
}

/// At the end, also of a test that fails, whoever blocks a thread goes on: the runtime waits for them.
struct Release(Arc<AtomicI64>, Fabric);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.store(i64::MAX / 2, Ordering::SeqCst);
        self.1.with(|net| net.stuck.clear());
    }
}

/// What came of it.
pub struct Ended {
    pub digest: String,
    pub sent_by_learner: u64,
    pub workers: BTreeMap<String, Totals>,
}

impl Run {
    /// A coordinator and a learner; nothing is scored before it is permitted.
    pub async fn new(timing: Option<BroadcastTiming>) -> Self {
        let (disk, stop, fabric) = (Disk::new(), CancellationToken::new(), Fabric::default());
        std::fs::create_dir_all(disk.run()).unwrap();
        let permits = Arc::new(AtomicI64::new(0));
        let function = Arc::new(Letters { permits: Arc::clone(&permits) });
        let scorer = Scorer::new(function, ServiceSettings::default(), stop.clone());
        let reward = listen().await;
        let reward_at = reward.endpoint();
        tokio::spawn(serve_scorer(reward.incoming(), scorer, stop.clone()));

        let config = Config {
            plan: RunPlan {
                run_id: "run".into(),
                config_digest: ConfigDigest::new(DIGEST),
                seed: 1,
                steps: NonZeroU64::new(STEPS).unwrap(),
                batch: NonZeroU64::new(BATCH).unwrap(),
                lag: 0,
                rows: NonZeroU64::new(rows().len() as u64).unwrap(),
            },
            timing: Timing { heartbeat: Duration::from_millis(200), ..Timing::default() },
            reward: Reward {
                name: "letters".into(),
                digest: "00".into(),
                endpoints: vec![reward_at],
            },
            join_token: JoinToken::new(TOKEN),
            journal: disk.run().join(JOURNAL_FILE),
            drain: Duration::from_secs(1),
        };
        let opened = Coordinator::open(config, Arc::new(rows())).unwrap();
        let opened = opened.with_broadcast_timing(timing.unwrap_or_default());
        let listener = listen().await;
        let coordinator = listener.endpoint();
        tokio::spawn(opened.serve(listener.incoming(), stop.clone()));

        let mut config = roles::learner_config(&disk, SHAPE);
        config.coordinator.clone_from(&coordinator);
        let learner = tokio::task::spawn_blocking(move || Learner::open(config)).await.unwrap();
        let mut learner = learner.unwrap();
        if timing.is_some() {
            learner = learner.broadcasting(fabric.member("learner"));
        }
        let learner_handle = learner.handle();
        let listener = listen().await;
        let endpoint = listener.endpoint();
        let learner =
            tokio::spawn(learner.serve(listener.incoming(), endpoint, Arc::new(Tcp), stop.clone()));
        let (status, workers) = (client(&coordinator), BTreeMap::new());
        let broadcasts = timing.is_some();
        let release = Release(Arc::clone(&permits), fabric.clone());
        Self {
            _release: release,
            disk,
            coordinator,
            status,
            permits,
            fabric,
            broadcasts,
            stop,
            learner,
            learner_handle,
            workers,
        }
    }

    pub async fn worker(&mut self, name: &str) {
        let config = roles::worker_config(&self.disk, name, self.coordinator.clone(), 1);
        let listener = listen().await;
        let endpoint = listener.endpoint();
        let mut worker = Worker::new(config, Arc::new(Tcp)).unwrap();
        worker = worker.serving(listener.incoming(), endpoint);
        if self.broadcasts {
            worker = worker.broadcasting(self.fabric.member(name));
        }
        let (handle, stop) = (worker.handle(), self.stop.clone());
        let running = tokio::spawn(async move { worker.run(stop).await.unwrap() });
        self.workers.insert(name.to_owned(), (handle, running));
    }

    /// Kills a worker: it says nothing to anybody.
    pub fn kill(&mut self, name: &str) {
        let (_, running) = self.workers.remove(name).unwrap();
        running.abort();
    }

    pub async fn status(&mut self) -> GetStatusResponse {
        self.status.get_status(GetStatusRequest {}).await.unwrap().into_inner()
    }

    /// Looks at the status until it is as wished.
    pub async fn until<T>(
        &mut self,
        what: &str,
        mut wished: impl FnMut(&GetStatusResponse) -> Option<T>,
    ) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.status().await;
            if let Some(found) = wished(&status) {
                return found;
            }
            assert!(Instant::now() < end, "{what} did not happen: {status:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until every worker holds the newest version, and these members are in a communicator with
    /// nothing to do.
    pub async fn together(&mut self, members: &[&str]) -> BroadcastStatus {
        let count = self.workers.len();
        let members: Vec<String> = members.iter().map(|name| (*name).to_owned()).collect();
        self.until(&format!("an idle epoch of {members:?}"), |status| {
            let holds = |worker: &octet_proto::coordinator::WorkerStatus| {
                worker.versions.last() == Some(&status.committed_steps)
            };
            let all = status.workers.len() == count && status.workers.iter().all(holds);
            let broadcast = status.broadcast.clone().filter(|_| all)?;
            let mut roster = broadcast.roster.clone();
            roster.sort();
            (broadcast.phase() == BroadcastPhase::Together && roster == members)
                .then_some(broadcast)
        })
        .await
    }

    /// Lets the step be scored that is sampled now; the version that it makes.
    pub async fn step(&mut self) -> u64 {
        let version = self.status().await.committed_steps;
        self.permits.fetch_add((BATCH * u64::from(COMPLETIONS)) as i64, Ordering::SeqCst);
        let (permits, end) = (Arc::clone(&self.permits), Instant::now() + Duration::from_secs(2));
        self.until("the next commit", |status| {
            // A group that two workers sampled takes more permits than one.
            if Instant::now() > end {
                permits.fetch_max(1, Ordering::SeqCst);
            }
            (status.committed_steps > version).then_some(())
        })
        .await;
        version + 1
    }

    /// Lets all that is left be scored, and waits for the end of the run.
    pub async fn end(self) -> Ended {
        self.permits.store(i64::MAX / 2, Ordering::SeqCst);
        let summary = tokio::time::timeout(PATIENCE, self.learner).await;
        let summary = summary.expect("the run ends").unwrap().unwrap();
        assert!(summary.complete);
        let mut workers = BTreeMap::new();
        for (name, (handle, running)) in self.workers {
            tokio::time::timeout(PATIENCE, running).await.expect("the worker ends").unwrap();
            workers.insert(name, handle.totals());
        }
        self.stop.cancel();
        let sent_by_learner = self.learner_handle.weight_bytes_sent();
        Ended { digest: summary.weights_digest, sent_by_learner, workers }
    }
}

/// The digest of the run's final weights where nobody broadcasts.
pub async fn undisturbed() -> String {
    let mut run = Run::new(None).await;
    run.worker("alone").await;
    let ended = run.end().await;
    assert_eq!(ended.workers["alone"].weight_bytes_by_broadcast, 0);
    assert!(ended.sent_by_learner > 0, "it sent every version");
    ended.digest
}
