//! The engine's loop.
//!
//! Invariant: between two steps every command that waits is taken, so a cancelled group costs at
//! most one step more.

use std::time::Instant;

use octet_runtime::CancellationToken;
use tokio::runtime::Handle as Runtime;

use super::Engine;
use super::jobs::{Jobs, PATIENCE, take_one};
use crate::error::WorkerError;
use crate::groups::Event;

pub(super) fn work(
    mut engine: Engine,
    runtime: &Runtime,
    stop: &CancellationToken,
) -> Result<(), WorkerError> {
    let mut jobs = Jobs::new();
    let mut prefilled = 0;
    while !stop.is_cancelled() {
        while let Some(command) = engine.inbox.try_receive() {
            prefilled += engine.apply(command, &mut jobs);
        }
        if engine.sampler.pending() == 0 {
            let next = async {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => None,
                    command = engine.inbox.receive() => command,
                }
            };
            let Some(command) = runtime.block_on(next) else { return Ok(()) };
            prefilled += engine.apply(command, &mut jobs);
            continue;
        }
        let started = Instant::now();
        let ended = engine.sampler.step().map_err(WorkerError::Compute)?;
        let sampled = engine.sampler.sampled_tokens();
        engine.handle.counters.engine(sampled, std::mem::take(&mut prefilled), started.elapsed());
        for completion in ended {
            let Some(job) = take_one(&mut jobs, completion.group) else { continue };
            let event = Event::Sampled { job, completion };
            runtime.block_on(engine.events.send(event, PATIENCE))?;
        }
    }
    Ok(())
}
