//! Whole runs over loopback gRPC: scripted workers and a scripted learner, a worker that vanishes
//! with leases in its hands, and a coordinator that is killed and comes back from its journal.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use octet_coordinator::CoordinatorError;
use support::*;
use tokio::time::{sleep, timeout};

/// Waits until `true`, as long as a busy machine may need.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain until {what}");
}

async fn hostile_run(lag: u64) {
    let (steps, batch) = (5, 4);
    let (_folder, path) = folder();
    let config = config(&path, steps, batch, lag);
    let first = Running::start(config.clone(), None).await;
    let address = first.address;
    let disk = Shared::default();

    // Takes leases and is never heard of again.
    let learner = tokio::spawn(learner(address, batch, steps, disk.clone()));
    let mut lost = Worker::new(address, "lost", 2, disk.clone());
    eventually("the lost worker has leases", async || {
        lost.take().await.unwrap();
        !lost.held.is_empty()
    })
    .await;
    let abandoned: Vec<(u64, u64)> = lost.held.iter().map(|l| (l.group, l.epoch)).collect();
    drop(lost);

    let workers = [("w1", 3), ("w2", 2)];
    let workers = workers.map(|(name, n)| tokio::spawn(worker(address, name, n, disk.clone())));
    eventually("two steps are committed", async || disk.lock().unwrap().committed >= 2).await;
    first.kill().await;
    sleep(Duration::from_millis(100)).await;
    let second = Running::start(config.clone(), Some(address)).await;
    timeout(PATIENCE, second.handle.complete()).await.unwrap().unwrap();
    for worker in workers {
        timeout(PATIENCE, worker).await.unwrap().unwrap();
    }
    timeout(PATIENCE, learner).await.unwrap().unwrap();
    let status = second.handle.status().await.unwrap();
    assert_eq!((status.committed_steps, status.leased_groups), (steps, 0));
    assert!(status.waits.is_empty() && second.handle.progress().complete);
    second.stop().await;

    // The learner has gone home, and a worker that was away finds out all the same.
    let third = Running::start(config, Some(address)).await;
    assert!(third.handle.progress().complete);
    timeout(PATIENCE, worker(address, "late", 1, disk.clone())).await.unwrap();
    third.stop().await;

    let disk = disk.lock().unwrap();
    assert_eq!(disk.consumed, (0..steps * batch).collect::<Vec<_>>(), "each group once, in order");
    for (group, epoch) in abandoned {
        let again = disk.given[&group].iter().any(|lease| lease.epoch > epoch);
        assert!(again, "group {group} of the lost worker was leased again");
    }
    for (group, leases) in &disk.given {
        let (_, row) = octet_dataset::example_for_group(*group, SEED, ROWS).unwrap();
        for lease in leases {
            assert_eq!(lease.step, group / batch);
            assert_eq!(lease.policy_version, lease.step.saturating_sub(lag));
            assert_eq!(lease.example_json, rows()[row]);
            let reward = lease.reward.as_ref().unwrap();
            assert_eq!((reward.number, reward.digest.as_str()), (1, "reward-a"));
        }
        // Recorded by several tasks, so in any order, but never twice the same.
        let mut epochs: Vec<u64> = leases.iter().map(|lease| lease.epoch).collect();
        epochs.sort_unstable();
        epochs.dedup();
        assert_eq!(epochs.len(), leases.len(), "no epoch of group {group} is repeated");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_on_policy_run_survives_a_lost_worker_and_a_killed_coordinator() {
    hostile_run(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overlapped_run_survives_a_lost_worker_and_a_killed_coordinator() {
    hostile_run(1).await;
}

#[tokio::test]
async fn a_worker_that_works_on_through_a_restart_keeps_its_leases() {
    let (_folder, path) = folder();
    let config = config(&path, 2, 3, 0);
    let first = Running::start(config.clone(), None).await;
    let address = first.address;
    let disk = Shared::default();
    first.client().register_learner(learner_registration(&disk)).await.unwrap();
    let mut worker = Worker::new(address, "w1", 3, disk.clone());
    worker.take().await.unwrap();
    assert_eq!(worker.held.len(), 3);
    let before = worker.held.clone();
    first.kill().await;

    let second = Running::start(config, Some(address)).await;
    eventually("the worker is back with its leases", async || match worker.take().await {
        Ok(_) => true,
        Err(status) if status.code() == tonic::Code::NotFound => {
            worker.id = None;
            false
        }
        Err(_broken) => false,
    })
    .await;
    second.client().register_learner(learner_registration(&disk)).await.unwrap();
    worker.take().await.unwrap();
    assert_eq!(worker.held, before, "the same leases");
    let status = second.handle.status().await.unwrap();
    assert_eq!((status.leased_groups, status.open_groups), (3, 0));
    second.stop().await;
}

#[tokio::test]
async fn a_journal_leads_one_run_and_one_data_set() {
    let (_folder, path) = folder();
    let mine = config(&path, 2, 3, 0);
    octet_coordinator::Coordinator::open(mine.clone(), rows()).unwrap();
    let mut other = mine.clone();
    other.reward.digest = "reward-b".into();
    let error = octet_coordinator::Coordinator::open(other, rows()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("reward-a") && text.contains("reward-b"), "{text}");
    let fewer = std::sync::Arc::new(vec![String::new()]);
    let error = octet_coordinator::Coordinator::open(mine, fewer).unwrap_err();
    assert!(matches!(error, CoordinatorError::Rows { expected: 7, found: 1 }), "{error}");
}
