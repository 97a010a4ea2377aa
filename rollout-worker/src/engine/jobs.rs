//! What the engine's loops share: whose completions are whose, and what a command changes.
//!
//! Invariant: a job is forgotten with its last completion, or when its group is cancelled or given again.

use std::collections::BTreeMap;
use std::time::Duration;

use octet_policy::sampler::GroupRequest;

use super::{Command, Engine};
use crate::groups::JobId;

/// How long a finished completion may wait for room. The mailbox holds all that can be under way.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A group's job and how many of its completions have not ended.
pub(super) type Jobs = BTreeMap<u64, (JobId, usize)>;

/// Whose completion just ended; a job is forgotten with its last.
pub(super) fn take_one(jobs: &mut Jobs, group: u64) -> Option<JobId> {
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
    pub(super) fn apply(&mut self, command: Command, jobs: &mut Jobs) -> u64 {
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
