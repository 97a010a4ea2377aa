//! The actor that takes one step after the other.
//!
//! Invariant: a step begins when all of its groups are in the spool, not earlier, and runs on a thread
//! of its own. A wait that takes too long says which groups are missing, and goes on.

use super::Patience;
use crate::board::Board;
use crate::error::LearnerError;
use crate::step::trainer::{Outcome, Trainer};
use crate::thread::Place;
use octet_proto::StepIndex;
use octet_runtime::CancellationToken;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Instrument;

/// What the actor works with.
pub(super) struct Steps {
    pub trainer: Trainer,
    pub board: Arc<Board>,
    pub pool: Option<Arc<rayon::ThreadPool>>,
    pub patience: Patience,
    pub place: Place,
    /// How long a step takes in a simulation.
    pub simulated: Duration,
}

impl Steps {
    /// Takes steps until the last one is committed, or `stop`.
    pub async fn run(self, stop: CancellationToken) -> Result<(), LearnerError> {
        let Self { mut trainer, board, pool, patience, place, simulated } = self;
        while !board.is_complete() {
            let step = StepIndex(board.committed());
            let Some(waited) = groups(&board, step, patience.groups, &stop).await else {
                return Ok(());
            };
            let _wait =
                board.waits.enter("update", format!("step {step} is being learned"), patience.step);
            let (pool, stop) = (pool.clone(), stop.clone());
            let span = tracing::info_span!("step", step = step.get());
            let learning = place.run("octet-learner", simulated, move || {
                let outcome = match pool {
                    Some(pool) => pool.install(|| trainer.step(step, waited, &stop)),
                    None => trainer.step(step, waited, &stop),
                };
                (trainer, outcome)
            });
            let (returned, outcome) = learning.instrument(span).await?;
            trainer = returned;
            if outcome? == Outcome::Interrupted {
                tracing::info!(%step, "gave up a step, its groups are in the spool");
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Waits for a step's groups; how long that took, or nothing when the learner shall stop.
async fn groups(
    board: &Board,
    step: StepIndex,
    patience: Duration,
    stop: &CancellationToken,
) -> Option<Duration> {
    let started = Instant::now();
    let range = step.groups(board.batch);
    let mut changes = board.inventory.subscribe();
    let wait = board.waits.enter("groups", format!("step {step}"), patience);
    loop {
        let missing = changes.borrow_and_update().missing(&range);
        let Some((count, first)) = missing else { return Some(started.elapsed()) };
        wait.detail(format!("step {step}: {count} of {}, the first is {first}", board.batch));
        let changed = async { wait.run(changes.changed()).await };
        tokio::select! {
            () = stop.cancelled() => return None,
            changed = changed => match changed {
                // Something came: the deadline is for silence.
                Ok(Ok(())) => wait.extend(patience),
                // The board is gone, so the learner is.
                Ok(Err(_closed)) => return None,
                Err(late) => {
                    tracing::warn!("{late}; the learner goes on waiting, see `octet status` for the workers");
                    wait.extend(patience);
                }
            },
        }
    }
}
