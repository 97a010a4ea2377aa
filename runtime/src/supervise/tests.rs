#![allow(clippy::unwrap_used)]
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::mailbox::{Address, MailboxError, mailbox};

const SECOND: Duration = Duration::from_secs(1);

fn failure(text: &str) -> Result<(), Failure> {
    Err(text.into())
}

async fn until_stopped(context: Context) -> Result<(), Failure> {
    context.stop.cancelled().await;
    Ok(())
}

async fn flood(address: Address<u32>) -> Result<(), MailboxError> {
    loop {
        address.send(1, SECOND).await?;
    }
}

#[test]
fn what_an_end_means_is_said_by_the_kind() {
    let restarted = Kind::Restarted { backoff: Backoff::quick(0), give_up_after: 3 };
    let failed = || Exit::Failed("x".into());
    let panicked = || Exit::Panicked("x".into());
    for (kind, exit, failures, decision) in [
        (Kind::Main, Exit::Quit, 1, Decision::Finish),
        (Kind::Main, failed(), 1, Decision::Fail),
        (Kind::Essential, Exit::Quit, 1, Decision::Fail),
        (Kind::Essential, panicked(), 1, Decision::Fail),
        (Kind::Essential, Exit::Cancelled, 1, Decision::GoOn),
        (Kind::Transient, Exit::Quit, 1, Decision::GoOn),
        (Kind::Transient, failed(), 1, Decision::Fail),
        (restarted, failed(), 1, Decision::Restart),
        (restarted, panicked(), 2, Decision::Restart),
        (restarted, Exit::Quit, 2, Decision::Restart),
        (restarted, failed(), 3, Decision::Fail),
    ] {
        assert_eq!(kind.after(&exit, failures), decision, "{kind:?} {exit}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_main_actor_quits_the_rest_is_stopped() {
    let stopped = CancellationToken::new();
    let told = stopped.clone();
    let supervisor = Supervisor::new("run")
        .actor("clock", Kind::Essential, 0, move |context| {
            let told = told.clone();
            async move {
                context.stop.cancelled().await;
                told.cancel();
                Ok::<_, Failure>(())
            }
        })
        .actor("work", Kind::Main, 0, |_| async { Ok::<_, Failure>(()) });
    supervisor.run(CancellationToken::new()).await.unwrap();
    assert!(stopped.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_from_outside_is_no_failure() {
    let shutdown = CancellationToken::new();
    let supervisor = Supervisor::new("run").actor("work", Kind::Main, 0, until_stopped);
    let run = tokio::spawn(supervisor.run(shutdown.clone()));
    tokio::time::sleep(SECOND).await;
    assert!(!run.is_finished());
    shutdown.cancel();
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_bad_end_is_told_with_its_actor() {
    for (start, text) in [
        (0, "actor `spool` failed: no space left on /runs"),
        (1, "actor `spool` panicked: index 9 of 3"),
        (2, "actor `spool` quit before the run was over"),
    ] {
        let supervisor = Supervisor::new("run")
            .actor("clock", Kind::Essential, 0, until_stopped)
            .actor("spool", Kind::Essential, 0, move |_| async move {
                match start {
                    0 => failure("no space left on /runs"),
                    1 => panic!("index {} of 3", 9),
                    _ => Ok(()),
                }
            });
        let error = supervisor.run(CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.to_string(), text);
        assert!(error.others.is_empty(), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_root_cause_is_never_hidden_by_its_consequences() {
    // The spool's mailbox closes an instant before its own end can be noticed, so that its three
    // senders often fail first.
    for _ in 0..200 {
        let (address, spool) = mailbox::<u32>("spool", 1);
        let spool = Arc::new(Mutex::new(Some(spool)));
        let mut supervisor = Supervisor::new("run").actor("spool", Kind::Essential, 0, move |_| {
            let mut mailbox = spool.lock().unwrap().take().unwrap();
            async move {
                mailbox.receive().await;
                failure("no space left")
            }
        });
        for sender in ["a", "b", "c"] {
            let address = address.clone();
            supervisor =
                supervisor.actor(sender, Kind::Essential, 0, move |_| flood(address.clone()));
        }
        let error = supervisor.run(CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.to_string(), "actor `spool` failed: no space left");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_actor_pauses_between_attempts_and_is_given_up() {
    let backoff = Backoff { first: SECOND, most: 8 * SECOND, seed: 1 };
    let starts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&starts);
    let supervisor = Supervisor::new("run")
        .actor("clock", Kind::Essential, 0, until_stopped)
        .actor("fetch", Kind::Restarted { backoff, give_up_after: 4 }, 0, move |context| {
            assert_eq!(context.restarts, counted.fetch_add(1, Ordering::SeqCst));
            async { failure("peer is down") }
        });
    let began = tokio::time::Instant::now();
    let error = supervisor.run(CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "actor `fetch` failed: peer is down");
    assert_eq!(starts.load(Ordering::SeqCst), 4);
    let pauses: Duration = (0..3).map(|attempt| backoff.delay(attempt)).sum();
    assert!(began.elapsed() >= pauses, "{:?} < {pauses:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn failures_long_apart_are_never_too_many() {
    let kind = Kind::Restarted { backoff: Backoff::quick(1), give_up_after: 2 };
    let supervisor = Supervisor::new("run").actor("fetch", kind, 0, |context| async move {
        tokio::time::sleep(61 * SECOND).await;
        if context.restarts < 20 { failure("peer is down") } else { until_stopped(context).await }
    });
    let shutdown = CancellationToken::new();
    let run = tokio::spawn(supervisor.run(shutdown.clone()));
    tokio::time::sleep(3_600 * SECOND).await;
    shutdown.cancel();
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn stages_stop_in_their_order() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut supervisor = Supervisor::new("run").stages([5 * SECOND; 3]);
    for (name, stage) in [("spool", 2), ("lease", 0), ("deliver", 1), ("sample", 0)] {
        let order = Arc::clone(&order);
        supervisor = supervisor.actor(name, Kind::Essential, stage, move |context| {
            let order = Arc::clone(&order);
            async move {
                context.stop.cancelled().await;
                tokio::time::sleep(SECOND).await;
                order.lock().unwrap().push(stage);
                Ok::<_, Failure>(())
            }
        });
    }
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    supervisor.run(shutdown).await.unwrap();
    assert_eq!(*order.lock().unwrap(), [0, 0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_stop_in_time_is_named_and_ended() {
    let (address, held) = mailbox::<u32>("held", 1);
    let held = Arc::new(Mutex::new(Some(held)));
    let supervisor = Supervisor::new("run")
        .stages([2 * SECOND, SECOND])
        .actor("lease", Kind::Essential, 0, until_stopped)
        .actor("stuck", Kind::Essential, 0, move |_| {
            let held = held.lock().unwrap().take();
            async move {
                let _held = held;
                std::future::pending::<Result<(), Failure>>().await
            }
        });
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let error = supervisor.run(shutdown).await.unwrap_err();
    assert_eq!(error.to_string(), "did not stop in time: stuck");
    assert!(error.cause.is_none());
    address.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_while_draining_is_a_failure() {
    let supervisor =
        Supervisor::new("run").actor("spool", Kind::Essential, 0, |context| async move {
            context.stop.cancelled().await;
            failure("cannot flush the last batch")
        });
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let error = supervisor.run(shutdown).await.unwrap_err();
    assert_eq!(error.to_string(), "actor `spool` failed: cannot flush the last batch");
}
