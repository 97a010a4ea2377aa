//! What must survive a restart of the coordinator, as facts to write down.
//!
//! Invariant: a record is durable before the answer that depends on it leaves the coordinator.
//! Groups are not among them: the learner's spool says which are done, and the workers' heartbeats
//! which are under way.

use octet_proto::StepIndex;

use super::revisions::Revision;

/// A fact that the machine asks to have written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Numbers below this one may have been given out.
    IdsReserved {
        /// The first number that certainly was not.
        below: u64,
    },
    /// Steps below this one may have been leased: their reward revision is settled.
    StepsLeased {
        /// The first step that certainly was not leased.
        below: StepIndex,
    },
    /// A reward revision, effective from a step on. One with a known number replaces its endpoints.
    RevisionBound {
        /// The revision.
        revision: Revision,
        /// The first step that it rewards.
        from_step: StepIndex,
    },
    /// The learner has committed every step, and may be gone by now.
    RunCompleted,
}

/// What a journal gives back after a restart; the default is that of a new run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Numbers below this one may have been given out.
    pub ids_below: u64,
    /// Steps below this one may have been leased.
    pub steps_leased_below: StepIndex,
    /// The revisions and the step that each takes effect from, by number.
    pub revisions: Vec<(Revision, StepIndex)>,
    /// Whether every step was committed.
    pub complete: bool,
}

impl Recovered {
    /// Takes a record in, as a journal does that is read back.
    pub fn absorb(&mut self, record: &Record) {
        match record {
            Record::IdsReserved { below } => self.ids_below = self.ids_below.max(*below),
            Record::StepsLeased { below } => {
                self.steps_leased_below = self.steps_leased_below.max(*below);
            }
            Record::RevisionBound { revision, from_step } => {
                self.revisions.retain(|(known, _)| known.number != revision.number);
                self.revisions.push((revision.clone(), *from_step));
                self.revisions.sort_by_key(|(known, _)| known.number);
            }
            Record::RunCompleted => self.complete = true,
        }
    }
}
