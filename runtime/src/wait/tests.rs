#![allow(clippy::unwrap_used)]
use super::*;
use tokio::time::{advance, sleep};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_wait_is_listed_exactly_while_its_guard_lives() {
    let waits = Waits::new();
    let lease = waits.enter("lease", "from the coordinator", 10 * SECOND);
    advance(3 * SECOND).await;
    let weights = waits.enter("weights", "version 7", 5 * SECOND);
    advance(SECOND).await;

    let view = |name, detail: &str, waiting, left| WaitView {
        name,
        detail: detail.to_owned(),
        waiting: waiting * SECOND,
        left: left * SECOND,
    };
    assert_eq!(
        waits.snapshot(),
        [view("lease", "from the coordinator", 4, 6), view("weights", "version 7", 1, 4)]
    );
    drop(lease);
    weights.detail("version 7, attempt 2");
    advance(9 * SECOND).await;
    assert_eq!(waits.snapshot(), [view("weights", "version 7, attempt 2", 10, 0)]);
    drop(weights);
    assert_eq!(waits.snapshot(), []);
}

#[tokio::test(start_paused = true)]
async fn a_wait_past_its_deadline_is_an_error_that_names_it() {
    let waits = Waits::new();
    let guard = waits.enter("reward", "revision 2 at http://127.0.0.1:9", 2 * SECOND);
    assert_eq!(guard.run(async { 7 }).await, Ok(7));
    let error = guard.run(std::future::pending::<()>()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "waited 2.0s for reward (revision 2 at http://127.0.0.1:9) in vain"
    );
}

#[tokio::test(start_paused = true)]
async fn progress_moves_the_deadline_of_a_running_wait() {
    let waits = Waits::new();
    let guard = waits.enter("weights", "version 7", 2 * SECOND);
    let slow_but_moving = async {
        for _ in 0..5 {
            sleep(SECOND).await;
            guard.extend(2 * SECOND);
        }
        "done"
    };
    assert_eq!(guard.run(slow_but_moving).await, Ok("done"));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_task_leaves_no_wait_behind() {
    let waits = Waits::new();
    let inside = waits.clone();
    let task = tokio::spawn(async move {
        inside.enter("lease", "", SECOND).run(std::future::pending::<()>()).await
    });
    tokio::task::yield_now().await;
    assert_eq!(waits.snapshot().len(), 1);
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(waits.snapshot(), []);
}

#[tokio::test(start_paused = true)]
async fn on_the_wire_a_wait_is_in_milliseconds() {
    let waits = Waits::new();
    let _guard = waits.enter("lease", "step 3", 2 * SECOND);
    advance(Duration::from_millis(1_250)).await;
    assert_eq!(
        waits.to_proto(),
        [proto::Wait {
            name: "lease".into(),
            detail: "step 3".into(),
            since_ms_ago: 1_250,
            deadline_in_ms: 750,
        }]
    );
}
