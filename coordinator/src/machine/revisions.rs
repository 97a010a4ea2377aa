//! Which reward revision rewards which step.
//!
//! Invariant: the revision of a step is settled before the first lease of the step is given out and
//! never changes after it, so no group can mix two. A swap takes effect at the first step that was
//! never leased, which is journaled: a restart cannot forget that a step was begun.

use octet_proto::{RevisionNumber, StepIndex};

use super::record::{Record, Recovered};
use super::refusal::Refusal;

/// The most revisions that a run may have: each is listed in `status` and in the journal.
pub const MAX_REVISIONS: usize = 1024;

/// One immutable version of the reward. Its endpoints may move, its digest may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Counts the revisions of a run from 1.
    pub number: RevisionNumber,
    /// What people call it.
    pub name: String,
    /// Changes whenever the same completion could get another reward.
    pub digest: String,
    /// Where it answers.
    pub endpoints: Vec<String>,
}

/// A reward that has no number yet: from the configuration, or the target of a swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reward {
    /// What people call it.
    pub name: String,
    /// Its digest, as `Describe` gives it.
    pub digest: String,
    /// Where it answers.
    pub endpoints: Vec<String>,
}

/// The revisions of a run and the steps that they are bound to.
#[derive(Debug, Clone)]
pub(crate) struct Revisions {
    /// By number; `from_step` never falls, and of equals the last one counts.
    bound: Vec<(Revision, StepIndex)>,
    /// Steps below this one may have been leased.
    leased_below: StepIndex,
}

impl Revisions {
    /// Takes up the journal's revisions, or begins with the configured reward.
    pub(crate) fn recover(
        recovered: &Recovered,
        configured: Reward,
        records: &mut Vec<Record>,
    ) -> Result<Self, Refusal> {
        let mut this =
            Self { bound: recovered.revisions.clone(), leased_below: recovered.steps_leased_below };
        if this.bound.is_empty() {
            this.bind(RevisionNumber(1), configured, StepIndex(0), records);
            return Ok(this);
        }
        // The same reward may have moved to other ports; another reward is another run.
        let mut known = false;
        for (revision, from_step) in &mut this.bound {
            if revision.digest != configured.digest {
                continue;
            }
            known = true;
            if revision.endpoints != configured.endpoints {
                revision.endpoints.clone_from(&configured.endpoints);
                records.push(Record::RevisionBound {
                    revision: revision.clone(),
                    from_step: *from_step,
                });
            }
        }
        if known {
            return Ok(this);
        }
        Err(Refusal::RewardChanged {
            expected: this.bound.iter().map(|(r, _)| r.digest.clone()).collect(),
            found: configured.digest,
        })
    }

    /// The revision that rewards `step`.
    pub(crate) fn of_step(&self, step: StepIndex) -> Option<&Revision> {
        self.bound.iter().rev().find(|(_, from)| *from <= step).map(|(revision, _)| revision)
    }

    /// Settles the revision of `step`: a lease of it goes out.
    pub(crate) fn settle(&mut self, step: StepIndex, records: &mut Vec<Record>) {
        if step >= self.leased_below {
            self.leased_below = step.next();
            records.push(Record::StepsLeased { below: self.leased_below });
        }
    }

    /// Binds another reward to the first step that was never leased, and says which that is.
    pub(crate) fn swap(
        &mut self,
        reward: Reward,
        records: &mut Vec<Record>,
    ) -> Result<(RevisionNumber, StepIndex), Refusal> {
        if self.bound.len() >= MAX_REVISIONS {
            return Err(Refusal::TooMany { what: "reward revisions", limit: MAX_REVISIONS });
        }
        let number = self.bound.last().map_or(RevisionNumber(1), |(last, _)| last.number.next());
        let from_step = self.leased_below;
        self.bind(number, reward, from_step, records);
        Ok((number, from_step))
    }

    /// All revisions with the step that each takes effect from.
    pub(crate) fn all(&self) -> &[(Revision, StepIndex)] {
        &self.bound
    }

    /// Steps below this one have their revision settled.
    pub(crate) fn settled_below(&self) -> StepIndex {
        self.leased_below
    }

    fn bind(
        &mut self,
        number: RevisionNumber,
        reward: Reward,
        from_step: StepIndex,
        records: &mut Vec<Record>,
    ) {
        let Reward { name, digest, endpoints } = reward;
        let revision = Revision { number, name, digest, endpoints };
        records.push(Record::RevisionBound { revision: revision.clone(), from_step });
        self.bound.push((revision, from_step));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn reward(digest: &str, port: u16) -> Reward {
        Reward {
            name: "tool-call".into(),
            digest: digest.into(),
            endpoints: vec![format!("http://127.0.0.1:{port}")],
        }
    }

    fn replay(records: &[Record]) -> Recovered {
        let mut recovered = Recovered::default();
        records.iter().for_each(|record| recovered.absorb(record));
        recovered
    }

    #[test]
    fn a_swap_waits_for_the_first_step_that_was_never_leased_even_across_a_restart() {
        let mut records = Vec::new();
        let mut first =
            Revisions::recover(&Recovered::default(), reward("a", 1), &mut records).unwrap();
        first.settle(StepIndex(0), &mut records);
        first.settle(StepIndex(1), &mut records);
        let mut second =
            Revisions::recover(&replay(&records), reward("a", 1), &mut records).unwrap();
        assert_eq!(
            second.swap(reward("b", 2), &mut records).unwrap(),
            (RevisionNumber(2), StepIndex(2))
        );
        assert_eq!(second.of_step(StepIndex(1)).unwrap().digest, "a");
        assert_eq!(second.of_step(StepIndex(2)).unwrap().digest, "b");
        // A rollback before the boundary is reached replaces the swap.
        assert_eq!(
            second.swap(reward("a", 1), &mut records).unwrap(),
            (RevisionNumber(3), StepIndex(2))
        );
        assert_eq!(second.of_step(StepIndex(2)).unwrap().number, RevisionNumber(3));
        let third = Revisions::recover(&replay(&records), reward("a", 1), &mut records).unwrap();
        assert_eq!(third.all(), second.all());
    }

    #[test]
    fn a_reward_may_move_but_not_change() {
        let mut records = Vec::new();
        Revisions::recover(&Recovered::default(), reward("a", 1), &mut records).unwrap();
        let moved = Revisions::recover(&replay(&records), reward("a", 9), &mut records).unwrap();
        assert_eq!(moved.of_step(StepIndex(0)).unwrap().endpoints, ["http://127.0.0.1:9"]);
        assert_eq!(replay(&records).revisions, moved.all(), "the move is written down");
        let error =
            Revisions::recover(&replay(&records), reward("z", 9), &mut records).unwrap_err();
        assert!(error.to_string().contains('z') && error.to_string().contains('a'), "{error}");
    }
}
