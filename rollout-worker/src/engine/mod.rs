//! The engine: model work on a thread of its own, away from the runtime's.
//!
//! Invariant: a completion leaves as soon as it ends; the thread computes while there is work and
//! sleeps on its mailbox while there is none. A job keeps the model that it came with.

mod jobs;
mod simulated;
#[cfg(test)]
mod tests;
mod thread;

use std::sync::Arc;
use std::time::Duration;

use octet_policy::model::Model;
use octet_policy::sampler::Sampler;
use octet_proto::GroupIndex;
use octet_runtime::CancellationToken;
use octet_runtime::mailbox::{Address, Mailbox};
use tokio::runtime::Handle as Runtime;
use tokio::sync::oneshot;

use crate::error::WorkerError;
use crate::groups::{Event, JobId};
use crate::stats::Handle;

/// What the engine shall do.
pub(crate) enum Command {
    /// Sample a group that is not being sampled.
    Sample(Task),
    /// Forget a group, wherever it is.
    Cancel(GroupIndex),
}

/// A group to sample.
pub(crate) struct Task {
    /// Comes back with every completion.
    pub job: JobId,
    /// The group.
    pub group: GroupIndex,
    /// Token ids; not empty, known to the model, and fewer than its context.
    pub prompt: Vec<u32>,
    /// The version to sample with.
    pub model: Arc<Model>,
}

/// The engine's parts, before it runs.
pub(crate) struct Engine {
    pub sampler: Sampler,
    /// Completions of a group.
    pub completions: usize,
    pub inbox: Mailbox<Command>,
    pub events: Address<Event>,
    pub handle: Handle,
    /// How long a decoding step takes in a simulation; outside of one, as long as it takes.
    pub simulated: Option<Duration>,
}

impl Engine {
    /// Runs the thread until `stop`, or until nobody can give it work any more.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), WorkerError> {
        if let Some(step) = self.simulated {
            return simulated::work(self, step, &stop).await;
        }
        let (tell, ended) = oneshot::channel();
        let runtime = Runtime::current();
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                // Whoever waits for it may be gone; then nobody is left to be told.
                let _nobody_waits = tell.send(thread::work(self, &runtime, &stop));
            })
            .map_err(WorkerError::Thread)?;
        // Without an answer the thread panicked, which its hook has printed.
        ended.await.unwrap_or(Err(WorkerError::EngineLost))
    }
}
