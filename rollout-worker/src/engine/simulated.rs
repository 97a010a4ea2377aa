//! The engine's loop in a simulation: the same sampler, on the one thread that does everything, each
//! decoding step taking as long as the test says.
//!
//! Invariant: as on a thread, every command that waits is taken between two steps.

use std::time::Duration;

use octet_runtime::CancellationToken;
use tokio::time::sleep;

use super::Engine;
use super::jobs::{Jobs, PATIENCE, take_one};
use crate::error::WorkerError;
use crate::groups::Event;

pub(super) async fn work(
    mut engine: Engine,
    step: Duration,
    stop: &CancellationToken,
) -> Result<(), WorkerError> {
    let mut jobs = Jobs::new();
    let mut prefilled = 0;
    loop {
        if engine.sampler.pending() == 0 {
            let command = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                command = engine.inbox.receive() => command,
            };
            let Some(command) = command else { return Ok(()) };
            prefilled += engine.apply(command, &mut jobs);
            continue;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = sleep(step) => {}
        }
        while let Some(command) = engine.inbox.try_receive() {
            prefilled += engine.apply(command, &mut jobs);
        }
        let ended = engine.sampler.step().map_err(WorkerError::Compute)?;
        let sampled = engine.sampler.sampled_tokens();
        engine.handle.counters.engine(sampled, std::mem::take(&mut prefilled), step);
        for completion in ended {
            let Some(job) = take_one(&mut jobs, completion.group) else { continue };
            engine.events.send(Event::Sampled { job, completion }, PATIENCE).await?;
        }
    }
}
