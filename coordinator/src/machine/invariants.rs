//! The machine's invariants by name, checked after every event in the tests and at every tick of a
//! running coordinator.
//!
//! Invariant: a run stops with a named violation rather than going on from a state that cannot be.

use std::collections::BTreeSet;

use octet_proto::{GroupIndex, StepIndex, WorkerId};

use super::Machine;
use super::ledger::{Holder, MAX_HOLDERS};

/// An invariant that does not hold: a bug of the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A group is out for a step that the lag does not allow.
    #[error("lag: group {group} of step {step} is leased, allowed are the steps {allowed:?}")]
    LagExceeded {
        /// The group.
        group: GroupIndex,
        /// Its step.
        step: StepIndex,
        /// The steps that may be sampled.
        allowed: std::ops::Range<u64>,
    },
    /// A group that is done is still out, or was done before the window.
    #[error("resolved: group {group} is in the spool or consumed, and counted once more")]
    ResolvedTwice {
        /// The group.
        group: GroupIndex,
    },
    /// A lease that nobody could end: its holder is gone, its deadline passed, or it was never given.
    #[error("lease: group {group} is held by worker {worker}, which {fault}")]
    DeadLease {
        /// The group.
        group: GroupIndex,
        /// The holder.
        worker: WorkerId,
        /// What is wrong.
        fault: &'static str,
    },
    /// A group with no holders or too many, or one holder twice.
    #[error(
        "holders: group {group} has {holders} holders, {distinct} of them different, at most {MAX_HOLDERS} are allowed"
    )]
    Holders {
        /// The group.
        group: GroupIndex,
        /// How many.
        holders: usize,
        /// How many different ones.
        distinct: usize,
    },
    /// A worker holds more than it may.
    #[error("load: worker {worker} holds {held} leases, allowed are {limit}")]
    Overloaded {
        /// The worker.
        worker: WorkerId,
        /// How many leases it holds.
        held: u64,
        /// How many it may hold.
        limit: u64,
    },
    /// A step that was leased has no settled reward revision, or revisions are out of order.
    #[error("revision: step {step} is leased but its reward revision is not settled")]
    Unsettled {
        /// The step.
        step: StepIndex,
    },
}

impl Machine {
    /// Checks every invariant; `Ok` unless the coordinator has a bug.
    pub fn check(&self) -> Result<(), Violation> {
        for (group, holders) in self.ledger.out() {
            self.check_group(group, holders)?;
        }
        if let Some(committed) = self.committed() {
            let consumed = self.plan.groups_of(StepIndex(committed)).start;
            if let Some(group) = self.ledger.spooled().first().filter(|group| **group < consumed) {
                return Err(Violation::ResolvedTwice { group: *group });
            }
        }
        for (id, held) in self.ledger.loads() {
            let limit = self.workers.get(&id).map_or(0, |worker| worker.limit());
            if held > limit {
                return Err(Violation::Overloaded { worker: id, held, limit });
            }
        }
        Ok(())
    }

    fn check_group(&self, group: GroupIndex, holders: &[Holder]) -> Result<(), Violation> {
        let step = self.plan.step_of(group);
        if let Some(committed) = self.committed() {
            let allowed = self.plan.steps_allowed(committed);
            if !allowed.contains(&step.get()) {
                return Err(Violation::LagExceeded { group, step, allowed });
            }
        }
        if self.ledger.is_spooled(group) {
            return Err(Violation::ResolvedTwice { group });
        }
        let distinct = holders.iter().map(|held| held.worker).collect::<BTreeSet<_>>().len();
        if holders.is_empty() || holders.len() > MAX_HOLDERS || distinct != holders.len() {
            return Err(Violation::Holders { group, holders: holders.len(), distinct });
        }
        for held in holders {
            let fault = if !self.workers.contains_key(&held.worker) {
                "is not registered"
            } else if held.deadline <= self.now {
                "let it run out"
            } else if !self.ids.issued(held.epoch.get()) {
                "holds an epoch that was never given out"
            } else {
                continue;
            };
            return Err(Violation::DeadLease { group, worker: held.worker, fault });
        }
        // A lease taken up after a restart may be of a step that was settled before it.
        if step >= self.revisions.settled_below() {
            return Err(Violation::Unsettled { step });
        }
        Ok(())
    }
}
