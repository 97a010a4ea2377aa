//! What the service says to single callers: who is refused and how, and how a request that has to
//! wait is answered.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use octet_coordinator::journal::{Journal, JournalError};
use octet_coordinator::machine::{Record, Recovered};
use octet_coordinator::{Coordinator, CoordinatorError};
use octet_proto::coordinator::{
    GetStatusRequest, HeartbeatRequest, LeaseRequest, RegisterLearnerRequest,
    RegisterWorkerRequest, ReleaseRequest, ReportProgressRequest,
};
use octet_proto::error::{error_kind, is_transport_failure};
use support::*;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

async fn quiet(steps: u64, batch: u64) -> (tempfile::TempDir, Running) {
    let (folder, path) = folder();
    let running = Running::start(config(&path, steps, batch, 0), None).await;
    (folder, running)
}

fn kind(status: &Status) -> (Code, String) {
    (status.code(), error_kind(status).unwrap_or("none").to_owned())
}

#[tokio::test]
async fn who_does_not_belong_to_the_run_is_refused() {
    let (_folder, running) = quiet(1, 1).await;
    let mut client = running.client();
    let good = registration("w1", 1);
    let refusals = [
        (
            RegisterWorkerRequest { config_digest: "beef".into(), ..good.clone() },
            (Code::FailedPrecondition, "wrong-digest"),
            ["expected cafe", "found beef"],
        ),
        (
            RegisterWorkerRequest { capacity: 0, ..good.clone() },
            (Code::InvalidArgument, "bad-field"),
            ["`capacity`", "found 0"],
        ),
        (
            RegisterWorkerRequest { weights_endpoint: "here".into(), ..good.clone() },
            (Code::InvalidArgument, "bad-address"),
            ["`weights_endpoint`", "http://host:port"],
        ),
    ];
    for (request, (code, name), parts) in refusals {
        let status = client.register_worker(request).await.unwrap_err();
        assert_eq!(kind(&status), (code, name.to_owned()));
        assert!(parts.iter().all(|part| status.message().contains(part)), "{status}");
        assert!(!status.message().contains(TOKEN));
    }
    // Without the token no call is let in, whatever it is.
    for (token, code, name) in
        [("", Code::Unauthenticated, "no-token"), ("guess", Code::PermissionDenied, "wrong-token")]
    {
        let mut stranger = support::client_with(running.address, token);
        let disk = Shared::default();
        let learner = learner_registration(&disk);
        for status in [
            stranger.register_worker(good.clone()).await.unwrap_err(),
            stranger.lease(LeaseRequest::default()).await.unwrap_err(),
            stranger.heartbeat(HeartbeatRequest::default()).await.unwrap_err(),
            stranger.release(ReleaseRequest::default()).await.unwrap_err(),
            stranger.register_learner(learner).await.unwrap_err(),
            stranger.report_progress(ReportProgressRequest::default()).await.unwrap_err(),
            stranger.get_status(GetStatusRequest {}).await.unwrap_err(),
        ] {
            assert_eq!(kind(&status), (code, name.to_owned()));
            assert!(status.message().contains("the coordinator expected the run's join token"));
            assert!(!status.message().contains(TOKEN), "{status}");
        }
    }
    let disk = Shared::default();
    let learner = learner_registration(&disk);
    let wrong = RegisterLearnerRequest { config_digest: "beef".into(), ..learner.clone() };
    let status = client.register_learner(wrong).await.unwrap_err();
    assert_eq!(kind(&status), (Code::FailedPrecondition, "wrong-digest".into()));
    let wrong = RegisterLearnerRequest { committed_steps: 2, ..learner };
    let status = client.register_learner(wrong).await.unwrap_err();
    assert_eq!(kind(&status), (Code::InvalidArgument, "bad-field".into()));
    running.stop().await;
}

#[tokio::test]
async fn who_is_not_known_is_told_to_register_again() {
    let (_folder, running) = quiet(1, 1).await;
    let mut client = running.client();
    let unknown = (Code::NotFound, "unknown-worker".to_owned());
    let worker_id = 77;
    let lease = LeaseRequest { worker_id, want: 1, wait_ms: 0 };
    assert_eq!(kind(&client.lease(lease).await.unwrap_err()), unknown);
    let beat = HeartbeatRequest { worker_id, ..HeartbeatRequest::default() };
    assert_eq!(kind(&client.heartbeat(beat).await.unwrap_err()), unknown);
    let release = ReleaseRequest { worker_id, leases: Vec::new(), leaving: false };
    assert_eq!(kind(&client.release(release.clone()).await.unwrap_err()), unknown);
    client.release(ReleaseRequest { leaving: true, ..release }).await.unwrap();
    let report = ReportProgressRequest { learner_id: 77, ..ReportProgressRequest::default() };
    let status = client.report_progress(report.clone()).await.unwrap_err();
    assert_eq!(kind(&status), (Code::NotFound, "unknown-learner".into()));
    let disk = Shared::default();
    client.register_learner(learner_registration(&disk)).await.unwrap();
    let status = client.report_progress(report).await.unwrap_err();
    assert_eq!(kind(&status), (Code::Aborted, "superseded-learner".into()));
    running.stop().await;
}

#[tokio::test]
async fn a_lease_request_waits_until_there_is_something_and_says_what_for() {
    let (_folder, running) = quiet(1, 2).await;
    let mut client = running.client();
    let joined = client.register_worker(registration("w1", 2)).await.unwrap().into_inner();
    let request = LeaseRequest { worker_id: joined.worker_id, want: 2, wait_ms: 150 };
    let started = Instant::now();
    let answer = client.lease(request).await.unwrap().into_inner();
    assert!(started.elapsed() >= Duration::from_millis(150));
    assert!(answer.leases.is_empty() && answer.waiting_for.contains("no learner has registered"));

    let mut asker = client.clone();
    let parked = tokio::spawn(async move {
        asker.lease(LeaseRequest { wait_ms: 20_000, ..request }).await.unwrap().into_inner()
    });
    // While it is parked the wait is in the status, with what it is for and until when.
    let waits = timeout(PATIENCE, async {
        loop {
            let status = client.get_status(GetStatusRequest {}).await.unwrap().into_inner();
            assert_eq!(status.waits[0].name, "learner");
            match status.workers.into_iter().find(|worker| !worker.waits.is_empty()) {
                Some(worker) => break worker.waits,
                None => sleep(Duration::from_millis(10)).await,
            }
        }
    });
    let waits = waits.await.unwrap();
    assert_eq!(waits[0].name, "lease");
    assert!(waits[0].detail.contains("learner") && waits[0].deadline_in_ms <= 20_000, "{waits:?}");

    let disk = Shared::default();
    client.register_learner(learner_registration(&disk)).await.unwrap();
    let answer = timeout(PATIENCE, parked).await.unwrap().unwrap();
    assert_eq!(answer.leases.iter().map(|lease| lease.group).collect::<Vec<_>>(), [0, 1]);

    let status = client.get_status(GetStatusRequest {}).await.unwrap().into_inner();
    let wait = &status.waits[0];
    assert!(wait.detail.starts_with("step 0 waits for groups 0, 1 (worker w1, lease ends in"));
    assert_eq!(status.rewards[0].digest, "reward-a");
    running.stop().await;
}

#[tokio::test]
async fn a_parked_request_is_answered_at_a_shutdown_and_at_the_end_of_a_run() {
    let (_folder, running) = quiet(1, 1).await;
    let mut client = running.client();
    let joined = client.register_worker(registration("w1", 1)).await.unwrap().into_inner();
    let request = LeaseRequest { worker_id: joined.worker_id, want: 1, wait_ms: 20_000 };
    let mut asker = client.clone();
    let parked = tokio::spawn(async move { asker.lease(request).await });
    sleep(Duration::from_millis(100)).await;
    let started = Instant::now();
    running.stop().await;
    let answer = timeout(PATIENCE, parked).await.unwrap().unwrap().unwrap().into_inner();
    assert!(answer.leases.is_empty() && !answer.waiting_for.is_empty());
    assert!(started.elapsed() < Duration::from_secs(10), "not after its own 20 s");

    let (_folder, running) = quiet(1, 1).await;
    let mut client = running.client();
    let joined = client.register_worker(registration("w1", 1)).await.unwrap().into_inner();
    let mut asker = client.clone();
    let request = LeaseRequest { worker_id: joined.worker_id, want: 1, wait_ms: 20_000 };
    let parked = tokio::spawn(async move { asker.lease(request).await });
    sleep(Duration::from_millis(100)).await;
    let disk = Shared::default();
    disk.lock().unwrap().committed = 1;
    client.register_learner(learner_registration(&disk)).await.unwrap();
    let answer = timeout(PATIENCE, parked).await.unwrap().unwrap().unwrap().into_inner();
    assert!(answer.run_complete);
    timeout(PATIENCE, running.handle.complete()).await.unwrap().unwrap();
    running.stop().await;
}

/// A disk that is full from the second write on.
struct FullDisk {
    writes: usize,
}

impl Journal for FullDisk {
    fn append(&mut self, _records: &[Record]) -> Result<(), JournalError> {
        self.writes += 1;
        if self.writes == 1 {
            return Ok(());
        }
        Err(JournalError::TakenOver { path: "full".into() })
    }
}

#[tokio::test]
async fn what_is_not_durable_is_not_acknowledged() {
    let (_folder, path) = folder();
    let journal = Box::new(FullDisk { writes: 0 });
    let config = config(&path, 1, 1, 0);
    let coordinator =
        Coordinator::with_journal(config, rows(), journal, &Recovered::default()).unwrap();
    let running = Running::serve(coordinator, None).await;
    let handle = running.handle.clone();
    let refused = running.client().register_worker(registration("w1", 1)).await.unwrap_err();
    assert!(is_transport_failure(&refused), "no id, and the worker may try again: {refused}");
    let ended = timeout(PATIENCE, running.served).await.unwrap().unwrap();
    assert!(matches!(ended, Err(CoordinatorError::Journal(_))), "{ended:?}");
    assert!(matches!(handle.complete().await, Err(CoordinatorError::Stopping)));
    assert!(matches!(handle.status().await, Err(CoordinatorError::Stopping)));
}

#[tokio::test]
async fn the_reward_is_swapped_at_the_first_step_that_was_never_leased() {
    let (_folder, running) = quiet(2, 1).await;
    let mut client = running.client();
    let disk = Shared::default();
    let learner = client.register_learner(learner_registration(&disk)).await.unwrap().into_inner();
    let joined = client.register_worker(registration("w1", 1)).await.unwrap().into_inner();
    let request = LeaseRequest { worker_id: joined.worker_id, want: 1, wait_ms: 0 };
    let first = client.lease(request).await.unwrap().into_inner().leases.remove(0);
    let strict = octet_coordinator::Reward {
        name: "strict".into(),
        digest: "reward-b".into(),
        endpoints: vec!["http://127.0.0.1:10".into()],
    };
    let bound = running.handle.swap_reward(strict).await.unwrap();
    assert_eq!((bound.number.get(), bound.from_step.get()), (2, 1));
    let report = ReportProgressRequest {
        learner_id: learner.learner_id,
        committed_steps: 1,
        ..ReportProgressRequest::default()
    };
    client.report_progress(report).await.unwrap();
    let second = client.lease(request).await.unwrap().into_inner().leases.remove(0);
    let names = [first, second].map(|lease| lease.reward.unwrap().name);
    assert_eq!(names, ["tool-call", "strict"]);
    running.stop().await;
}
