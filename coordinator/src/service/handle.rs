//! The coordinator as the process sees it that it runs in.
//!
//! Invariant: a handle asks and waits; it decides nothing and keeps nothing alive.

use std::time::Duration;

use octet_runtime::mailbox::Address;
use tokio::sync::watch;

use super::actor::Command;
use crate::error::CoordinatorError;
use crate::machine::{Bound, Reward, Snapshot};

/// How long an answer of the actor may take: longer than any disk's worst flush.
const PATIENCE: Duration = Duration::from_secs(20);

/// How far the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Steps committed; 0 while no learner has said so.
    pub committed_steps: u64,
    /// Steps of the run.
    pub total_steps: u64,
    /// Whether all are committed.
    pub complete: bool,
}

/// Asks the coordinator of the same process.
#[derive(Debug, Clone)]
pub struct Handle {
    address: Address<Command>,
    progress: watch::Receiver<Progress>,
}

impl Handle {
    pub(crate) fn new(address: Address<Command>, progress: watch::Receiver<Progress>) -> Self {
        Self { address, progress }
    }

    /// How far the run is now.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Waits until the run is further than it was at the last call, and says how far.
    ///
    /// # Errors
    /// The coordinator has ended.
    pub async fn next_progress(&mut self) -> Result<Progress, CoordinatorError> {
        self.progress.changed().await.map_err(|_ended| CoordinatorError::Stopping)?;
        Ok(*self.progress.borrow_and_update())
    }

    /// Waits until every step is committed.
    ///
    /// # Errors
    /// The coordinator ended before.
    pub async fn complete(&self) -> Result<(), CoordinatorError> {
        let mut progress = self.progress.clone();
        let waited = progress.wait_for(|progress| progress.complete).await;
        waited.map(drop).map_err(|_ended| CoordinatorError::Stopping)
    }

    /// All there is to know of the run.
    ///
    /// # Errors
    /// The coordinator has ended or does not keep up.
    pub async fn status(&self) -> Result<Snapshot, CoordinatorError> {
        Ok(self.address.ask(PATIENCE, |reply| Command::Status { reply }).await?)
    }

    /// Binds another reward to the first step that was never leased.
    /// The caller has made sure that it answers.
    ///
    /// # Errors
    /// The reward or the moment is refused, or the coordinator has ended or does not keep up.
    pub async fn swap_reward(&self, reward: Reward) -> Result<Bound, CoordinatorError> {
        let swap = |reply| Command::Swap { reward, newest_known: None, reply };
        Ok(self.address.ask(PATIENCE, swap).await??)
    }
}
