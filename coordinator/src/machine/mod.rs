//! The run's state machine: who samples what, and how far the run is.
//!
//! Invariant: no I/O, no clock and no randomness. Every entry takes the time since the coordinator
//! started and the facts of one event, and answers at once; what has to be durable before the answer
//! leaves is pushed onto `records`. The same events at the same times give the same answers.
//!
//! The machine believes the learner alone: a group is done when the learner says that its spool has
//! it, and a step when the learner says that it is committed. Of workers it believes nothing that
//! matters: a lease has a deadline, and a group that nobody holds is open again.

mod broadcast;
mod helping;
mod ids;
mod invariants;
mod learner;
mod leasing;
mod ledger;
mod record;
mod refusal;
mod revisions;
mod rewards;
mod share;
mod status;
mod weights;
mod worker;
mod workers;

use std::collections::BTreeMap;
use std::time::Duration;

pub use broadcast::{BroadcastView, EvictionView, Said, Told};
pub use ids::LearnerId;
pub use invariants::Violation;
pub use learner::{LearnerJoin, LearnerReport};
pub use leasing::{Grant, Grants, LeaseKey, Offer};
pub use ledger::MAX_HOLDERS;
pub use record::{Record, Recovered};
pub use refusal::Refusal;
pub use revisions::{Bound, MAX_REVISIONS, Revision, Reward};
pub use rewards::{Binding, MAX_REPLICAS, State};
pub use status::{LearnerView, Queue, Snapshot, Wait, WorkerView};
pub use weights::{Published, Sources, Spread, Spreading};
pub use workers::{Beat, Pulse, WorkerJoin};

use octet_proto::{ConfigDigest, WorkerId};

use crate::plan::{RunPlan, Timing};
use broadcast::Broadcasts;
use ids::Ids;
use learner::Learner;
use ledger::Ledger;
use revisions::Revisions;
use weights::Versions;
use worker::Worker;

/// The most workers that may be registered at once.
pub const MAX_WORKERS: usize = 4096;

/// The state of a run.
#[derive(Debug, Clone)]
pub struct Machine {
    plan: RunPlan,
    timing: Timing,
    now: Duration,
    ids: Ids,
    revisions: Revisions,
    ledger: Ledger,
    workers: BTreeMap<WorkerId, Worker>,
    learner: Option<Learner>,
    /// The policy versions that the learner gives out.
    versions: Versions,
    spreading: Spreading,
    broadcasts: Broadcasts,
    /// When the run last began to wait for what it waits for now.
    waiting_since: Duration,
}

impl Machine {
    /// Begins a run, or takes it up from what its journal holds.
    pub fn new(
        plan: RunPlan,
        timing: Timing,
        recovered: &Recovered,
        reward: Reward,
        records: &mut Vec<Record>,
    ) -> Result<Self, Refusal> {
        let mut ledger = Ledger::new();
        if recovered.complete {
            // The learner has gone home; workers may still come and ask.
            ledger.follow(&plan, plan.steps.get(), &[]);
        }
        Ok(Self {
            plan,
            timing,
            now: Duration::ZERO,
            ids: Ids::above(recovered.ids_below),
            revisions: Revisions::recover(recovered, reward, records)?,
            ledger,
            workers: BTreeMap::new(),
            learner: None,
            versions: Versions::new(),
            spreading: Spreading::default(),
            broadcasts: Broadcasts::usual(timing),
            waiting_since: Duration::ZERO,
        })
    }

    /// Lets time pass: leases run out, silent workers are forgotten. Time that goes backwards stands
    /// still.
    pub fn tick(&mut self, now: Duration) {
        self.now = self.now.max(now);
        let (now, silence) = (self.now, self.timing.silence);
        self.workers.retain(|id, worker| {
            let alive = now.saturating_sub(worker.seen) < silence;
            if !alive {
                tracing::warn!(worker = %worker.name, id = id.0, ?silence, "forget silent worker");
            }
            alive
        });
        if !self.is_complete() {
            self.broadcasts.tick(now);
        }
        let workers = &self.workers;
        let ended = self
            .ledger
            .end_where(|held| held.deadline <= now || !workers.contains_key(&held.worker));
        if !ended.is_empty() {
            tracing::info!(leases = ended.len(), "open groups whose leases ran out");
        }
        for id in ended {
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.lapsed();
            }
        }
    }

    /// The plan that the machine runs.
    pub fn plan(&self) -> &RunPlan {
        &self.plan
    }

    /// The clocks of the run.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Steps that the learner has committed; unknown until it registers.
    pub fn committed(&self) -> Option<u64> {
        self.ledger.committed()
    }

    /// Whether every step of the run is committed.
    pub fn is_complete(&self) -> bool {
        self.committed() == Some(self.plan.steps.get())
    }

    /// Where scored groups are delivered; empty while no learner is registered.
    pub fn learner_endpoint(&self) -> &str {
        self.learner.as_ref().map_or("", |learner| &learner.endpoint)
    }

    /// Refuses a node of another configuration.
    fn check_digest(&self, node: &str, found: &ConfigDigest) -> Result<(), Refusal> {
        if *found == self.plan.config_digest {
            return Ok(());
        }
        Err(Refusal::WrongDigest {
            node: node.into(),
            run_id: self.plan.run_id.clone(),
            expected: self.plan.config_digest.clone(),
            found: found.clone(),
        })
    }
}

/// The longest text, in characters, that is taken from a node.
const MAX_TEXT: usize = 512;

/// Refuses a text that is longer than any honest one.
fn check_text(field: &'static str, text: &str) -> Result<(), Refusal> {
    if text.len() <= MAX_TEXT {
        return Ok(());
    }
    Err(Refusal::BadField {
        field,
        expected: format!("at most {MAX_TEXT} bytes"),
        found: format!("{} bytes", text.len()),
    })
}

#[cfg(test)]
mod tests;
