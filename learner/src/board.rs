//! What the learner's actors and the outside know of each other.
//!
//! Invariant: whoever sees a step as committed finds its version published, since the two are shown in
//! that order and never the other way round.

mod inventory;

pub use inventory::Inventory;

use crate::metrics::StepMetrics;
use crate::service::weights::Publication;
use octet_proto::StepIndex;
use octet_runtime::queues::{QueueView, Queues};
use octet_runtime::wait::{WaitView, Waits};
use std::num::NonZeroU64;
use std::sync::Arc;
use tokio::sync::{broadcast, watch};

/// Steps that a slow listener may be behind before it misses the oldest.
const EVENTS: usize = 256;

/// The sums of all steps that this process took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Steps taken by this process.
    pub steps: u64,
    /// Prompt and completion tokens that went through forward and backward, prompts once a group.
    pub learned_tokens: u64,
    /// Floating-point operations that these tokens need.
    pub flops: f64,
    /// Seconds of forward, backward and update.
    pub learn_seconds: f64,
    /// Seconds of waiting for groups.
    pub wait_seconds: f64,
    /// Seconds of commits and publications.
    pub commit_seconds: f64,
    /// The largest gap between sampler and learner.
    pub logprob_gap_max: f64,
}

/// A running learner as seen from the same process. Clones see the same.
#[derive(Clone, Debug)]
pub struct Handle {
    board: Arc<Board>,
}

/// The shared state itself.
#[derive(Debug)]
pub(crate) struct Board {
    pub steps: NonZeroU64,
    pub batch: NonZeroU64,
    pub inventory: watch::Sender<Inventory>,
    pub publication: Publication,
    pub totals: watch::Sender<Totals>,
    pub events: broadcast::Sender<Arc<StepMetrics>>,
    pub waits: Waits,
    pub queues: Queues,
}

impl Board {
    pub fn new(
        (steps, batch): (NonZeroU64, NonZeroU64),
        inventory: Inventory,
        publication: Publication,
    ) -> Self {
        Self {
            steps,
            batch,
            inventory: watch::Sender::new(inventory),
            publication,
            totals: watch::Sender::default(),
            events: broadcast::Sender::new(EVENTS),
            waits: Waits::new(),
            queues: Queues::new(),
        }
    }

    /// Steps that are committed.
    pub fn committed(&self) -> u64 {
        self.inventory.borrow().committed()
    }

    /// Whether all steps are.
    pub fn is_complete(&self) -> bool {
        self.committed() >= self.steps.get()
    }

    /// A step is committed, and its version is published.
    pub fn show_commit(&self, committed: u64) {
        let next = StepIndex(committed).groups(self.batch).start;
        self.inventory.send_modify(|inventory| inventory.commit(committed, next));
    }
}

impl Handle {
    pub(crate) fn new(board: Arc<Board>) -> Self {
        Self { board }
    }

    /// Steps that are committed.
    pub fn committed_steps(&self) -> u64 {
        self.board.committed()
    }

    /// Steps of the run.
    pub fn total_steps(&self) -> u64 {
        self.board.steps.get()
    }

    /// Groups in the spool that no committed step consumed.
    pub fn spooled_groups(&self) -> usize {
        self.board.inventory.borrow().spooled().len()
    }

    /// The sums of this process so far.
    pub fn totals(&self) -> Totals {
        *self.board.totals.borrow()
    }

    /// The digest of the newest published weights, hex.
    pub fn weights_digest(&self) -> String {
        self.board.publication.newest_digest()
    }

    /// The record of each step from now on, as it is committed. A listener that is far behind misses
    /// the oldest and is told how many.
    pub fn steps(&self) -> broadcast::Receiver<Arc<StepMetrics>> {
        self.board.events.subscribe()
    }

    /// Bytes of weights that were sent to workers.
    pub fn weight_bytes_sent(&self) -> u64 {
        self.board.publication.sent_bytes()
    }

    /// How full the learner's queues are.
    pub fn queues(&self) -> Vec<QueueView> {
        self.board.queues.snapshot()
    }

    /// What the learner waits for now.
    pub fn waits(&self) -> Vec<WaitView> {
        self.board.waits.snapshot()
    }
}
