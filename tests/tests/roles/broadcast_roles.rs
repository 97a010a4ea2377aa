//! The roles with a transport that broadcasts: versions come by it, whoever breaks it is left out, and
//! whatever happens the run ends with the weights of a run without any.

use std::time::Duration;

use crate::broadcasting::{Run, STEPS, timing, undisturbed};
use octet_broadcast::Timing;
use octet_proto::broadcast::BroadcastPhase;

/// Versions that a worker received, of the fabric's own knowledge.
fn received(run: &Run, worker: &str) -> Vec<u64> {
    run.fabric.with(|net| {
        let mine = net.received.iter().filter(|(name, ..)| name == worker);
        mine.map(|(_, version, _)| *version).collect()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_after_the_first_comes_by_broadcast_and_the_weights_are_the_same() {
    let mut run = Run::new(Some(timing())).await;
    run.worker("a").await;
    run.worker("b").await;
    let everybody = ["a", "b", "learner"];
    let epoch = run.together(&everybody).await.epoch;
    for version in 1..STEPS {
        let idle = run.together(&everybody).await;
        assert_eq!((idle.epoch, idle.broadcasts, idle.evicted), (epoch, version - 1, 0));
        assert_eq!(run.step().await, version);
    }
    let idle = run.together(&everybody).await;
    assert_eq!((idle.epoch, idle.broadcasts), (epoch, STEPS - 1));
    let versions: Vec<u64> = (1..STEPS).collect();
    assert_eq!((received(&run, "a"), received(&run, "b")), (versions.clone(), versions));
    let ended = run.end().await;
    assert_eq!(ended.sent_by_learner, 0, "nobody fetched anything from it");
    for (name, totals) in &ended.workers {
        let fetched = totals.weight_bytes_from_learner + totals.weight_bytes_from_workers;
        assert_eq!((fetched, totals.damaged_transfers), (0, 0), "{name}");
        assert!(totals.weight_bytes_by_broadcast > 0, "{name}");
    }
    assert_eq!(ended.digest, undisturbed().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_is_left_out_at_the_deadline_and_the_next_epoch_is_without_it() {
    let send = Duration::from_secs(4);
    let mut run = Run::new(Some(Timing { send, ..timing() })).await;
    for name in ["a", "b", "c"] {
        run.worker(name).await;
    }
    let epoch = run.together(&["a", "b", "c", "learner"]).await.epoch;
    run.fabric.with(|net| net.stuck.insert("c".to_owned()));
    run.step().await;
    // While all of them wait, the status says for whom and until when.
    let wait = run.until("a wait with a name", |status| {
        let wait = status.waits.iter().find(|wait| wait.name == "broadcast");
        let alone = |wait: &&octet_proto::coordinator::Wait| wait.detail.contains("waits for");
        wait.filter(alone).cloned()
    });
    let wait = wait.await;
    assert!(wait.detail.contains("broadcasting version 1"), "{wait:?}");
    assert!(wait.deadline_in_ms <= send.as_millis() as u64, "{wait:?}");
    // Everybody has the version all the same, and the others are together again.
    let idle = run.together(&["a", "b", "learner"]).await;
    assert!(idle.epoch > epoch);
    let out = &idle.evictions[0];
    assert_eq!((out.member.as_str(), out.epoch, idle.evicted), ("c", epoch, 1), "{idle:?}");
    assert!(out.why.contains("had not begun") && out.rests_ms > 0, "{out:?}");
    assert_eq!(received(&run, "a"), [0u64; 0]);
    run.step().await;
    run.together(&["a", "b", "learner"]).await;
    assert_eq!((received(&run, "a"), received(&run, "b")), (vec![2], vec![2]));
    let ended = run.end().await;
    assert_eq!(ended.workers["c"].weight_bytes_by_broadcast, 0, "it fetched all");
    assert_eq!(ended.digest, undisturbed().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_joins_fetches_what_it_lacks_and_is_in_the_next_epoch() {
    let mut run = Run::new(Some(timing())).await;
    run.worker("a").await;
    run.together(&["a", "learner"]).await;
    for _ in 0..2 {
        run.step().await;
        run.together(&["a", "learner"]).await;
    }
    let before = run.together(&["a", "learner"]).await.epoch;
    run.worker("late").await;
    let idle = run.together(&["a", "late", "learner"]).await;
    assert_eq!((idle.epoch, idle.evicted), (before + 1, 0), "nobody was left out for it");
    assert_eq!(received(&run, "late"), [0u64; 0], "it fetched the newest version");
    run.step().await;
    run.together(&["a", "late", "learner"]).await;
    assert_eq!((received(&run, "late"), received(&run, "a")), (vec![3], vec![1, 2, 3]));
    let ended = run.end().await;
    let late = &ended.workers["late"];
    assert!(late.weight_bytes_from_learner + late.weight_bytes_from_workers > 0);
    assert_eq!(ended.digest, undisturbed().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_byte_is_noticed_and_the_version_is_fetched() {
    let mut run = Run::new(Some(timing())).await;
    run.worker("a").await;
    run.worker("b").await;
    let epoch = run.together(&["a", "b", "learner"]).await.epoch;
    run.fabric.with(|net| net.corrupts = Some(("b".to_owned(), 1)));
    run.step().await;
    let idle = run.together(&["a", "b", "learner"]).await;
    assert!(idle.epoch > epoch, "the communicator that gave wrong bytes is not used again");
    assert_eq!(received(&run, "b"), [0u64; 0]);
    run.step().await;
    run.together(&["a", "b", "learner"]).await;
    assert_eq!(received(&run, "b"), [2]);
    let ended = run.end().await;
    let b = &ended.workers["b"];
    assert_eq!(b.damaged_transfers, 1);
    assert!(b.weight_bytes_from_learner + b.weight_bytes_from_workers > 0);
    assert_eq!(ended.digest, undisturbed().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_dies_half_way_is_missed_and_the_others_go_on() {
    // The silence is noticed before anybody's deadline.
    let silence = Duration::from_secs(2);
    let mut run = Run::new(Some(Timing { silence, ..timing() })).await;
    for name in ["a", "b", "c"] {
        run.worker(name).await;
    }
    run.together(&["a", "b", "c", "learner"]).await;
    run.fabric.with(|net| net.takes = Duration::from_secs(4));
    run.step().await;
    run.until("a broadcast", |status| {
        let broadcast = status.broadcast.as_ref()?;
        (broadcast.phase() == BroadcastPhase::Sending).then_some(())
    })
    .await;
    run.kill("c");
    let gone = run.until("its absence", |status| {
        let broadcast = status.broadcast.as_ref()?;
        broadcast.evictions.first().cloned()
    });
    assert_eq!(gone.await.member, "c");
    run.fabric.with(|net| net.takes = Duration::ZERO);
    run.until("its end", |status| (status.workers.len() == 2).then_some(())).await;
    let idle = run.together(&["a", "b", "learner"]).await;
    assert_eq!(idle.evicted, 1, "nobody but the dead rests: {idle:?}");
    assert_eq!(received(&run, "a"), [0u64; 0], "the broken broadcast brought nothing");
    let ended = run.end().await;
    assert_eq!(ended.digest, undisturbed().await);
}
