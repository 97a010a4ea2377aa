//! The engine's loop.
//!
//! Invariant: between two steps every command that waits is taken, so a cancelled group costs at
//! most one step more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use octet_policy::sampler::GroupRequest;
use octet_runtime::CancellationToken;
use tokio::runtime::Handle as Runtime;

use super::{Command, Engine};
use crate::error::WorkerError;
use crate::groups::{Event, JobId};

/// How long a finished completion may wait for room. The mailbox holds all that can be under way.
const PATIENCE: Duration = Duration::from_secs(30);

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

/// A group's job and how many of its completions have not ended.
type Jobs = BTreeMap<u64, (JobId, usize)>;

/// Whose completion just ended; a job is forgotten with its last.
fn take_one(jobs: &mut Jobs, group: u64) -> Option<JobId> {
    let (job, left) = jobs.get_mut(&group)?;
    let job = *job;
    *left -= 1;
    if *left == 0 {
        jobs.remove(&group);
    }
    Some(job)
}

impl Engine {
    /// Returns the prompt tokens that a command adds.
    fn apply(&mut self, command: Command, jobs: &mut Jobs) -> u64 {
        match command {
            Command::Sample(task) => {
                let group = task.group.get();
                jobs.insert(group, (task.job, self.completions));
                let tokens = task.prompt.len() as u64;
                let (prompt, model) = (task.prompt, task.model);
                self.sampler.submit(GroupRequest { group, prompt, model });
                tokens
            }
            Command::Cancel(group) => {
                jobs.remove(&group.get());
                self.sampler.cancel(group.get());
                0
            }
        }
    }
}
