//! Which reward revision rewards which step.
//!
//! Invariant: the revision of a step is settled before the first lease of the step is given out and
//! never changes after it, so no group can mix two. A swap takes effect at the first step that was
//! never leased, which is journaled: a restart cannot forget that a step was begun. Of revisions with
//! overlapping steps the one with the highest number counts, so a swap by hand overrules what the
//! configuration had scheduled for later.

use std::ops::Range;

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

/// What a swap came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The new revision's number.
    pub number: RevisionNumber,
    /// The first step that it rewards.
    pub from_step: StepIndex,
    /// Scheduled revisions that will not take effect any more.
    pub superseded: Vec<RevisionNumber>,
}

/// The revisions of a run and the steps that they are bound to.
#[derive(Debug, Clone)]
pub(crate) struct Revisions {
    /// By number; of those that are bound to a step or to an earlier one the last counts.
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
            this.bind(configured, StepIndex(0), records)?;
            return Ok(this);
        }
        // The same reward may have moved to other ports; another reward is another run.
        if this.moved(&configured, records) {
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

    /// Binds another reward to the first step that was never leased. What was to take effect at later
    /// steps will not: a swap by hand is the last word.
    pub(crate) fn swap(
        &mut self,
        reward: Reward,
        records: &mut Vec<Record>,
    ) -> Result<Bound, Refusal> {
        let from_step = self.leased_below;
        let later: Vec<RevisionNumber> = self
            .ranges()
            .filter(|(_, steps)| steps.start > from_step && !steps.is_empty())
            .map(|(revision, _)| revision.number)
            .collect();
        let number = self.bind(reward, from_step, records)?;
        Ok(Bound { number, from_step, superseded: later })
    }

    /// The reward to go back to: that of a revision, or else the one before the one in force.
    pub(crate) fn earlier(&self, to: Option<RevisionNumber>) -> Result<Reward, Refusal> {
        let nothing = |expected: &str, found: String| Refusal::BadField {
            field: "to_revision",
            expected: expected.to_owned(),
            found,
        };
        let known = self.bound.iter().map(|(revision, _)| revision);
        if let Some(to) = to {
            let found = known.clone().find(|revision| revision.number == to);
            let numbers = self.bound.len();
            return found.map(Revision::reward).ok_or_else(|| {
                nothing(&format!("a revision from 1 to {numbers}"), to.to_string())
            });
        }
        let in_force = self.of_step(self.leased_below);
        let before = self.bound.iter().rev().find(|(revision, from)| {
            // One that was never to take effect until now was never there to go back to.
            *from <= self.leased_below
                && in_force.is_some_and(|now| {
                    revision.number < now.number && revision.digest != now.digest
                })
        });
        before.map(|(revision, _)| revision.reward()).ok_or_else(|| {
            let found = "a run that has had one reward only".to_owned();
            nothing("an earlier revision of another reward", found)
        })
    }

    /// Binds the configured swaps, or finds those that a restart took up.
    pub(crate) fn schedule(
        &mut self,
        schedule: &[(StepIndex, Reward)],
        records: &mut Vec<Record>,
    ) -> Result<(), Refusal> {
        let begun = self.bound.len() > 1 || self.leased_below > StepIndex(0);
        let is = |(revision, from): &(Revision, StepIndex),
                  (step, reward): &(StepIndex, Reward)| {
            from == step && revision.digest == reward.digest
        };
        // A coordinator that was killed between two records has bound the first of them.
        let ahead = self.bound[1..].iter().zip(schedule).all(|(bound, planned)| is(bound, planned));
        if self.leased_below == StepIndex(0) && ahead && self.bound.len() <= schedule.len() + 1 {
            for (step, reward) in &schedule[self.bound.len() - 1..] {
                self.bind(reward.clone(), *step, records)?;
            }
        }
        for planned in schedule {
            let (step, reward) = planned;
            if begun && !self.bound.iter().any(|bound| is(bound, planned)) {
                return Err(Refusal::ScheduleChanged {
                    step: *step,
                    digest: reward.digest.clone(),
                });
            }
            self.moved(reward, records);
        }
        Ok(())
    }

    /// The revisions with the steps that each rewards; empty when later ones took all of them.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (&Revision, Range<StepIndex>)> {
        self.bound.iter().enumerate().map(|(at, (revision, from))| {
            let later = self.bound[at + 1..].iter().map(|(_, from)| *from).min();
            let until = later.unwrap_or(StepIndex(u64::MAX)).max(*from);
            (revision, *from..until)
        })
    }

    /// The number of the newest revision.
    pub(crate) fn newest(&self) -> RevisionNumber {
        self.bound.last().map_or(RevisionNumber(0), |(last, _)| last.number)
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
        reward: Reward,
        from_step: StepIndex,
        records: &mut Vec<Record>,
    ) -> Result<RevisionNumber, Refusal> {
        if self.bound.len() >= MAX_REVISIONS {
            return Err(Refusal::TooMany { what: "reward revisions", limit: MAX_REVISIONS });
        }
        let (number, Reward { name, digest, endpoints }) = (self.newest().next(), reward);
        let revision = Revision { number, name, digest, endpoints };
        records.push(Record::RevisionBound { revision: revision.clone(), from_step });
        self.bound.push((revision, from_step));
        Ok(number)
    }

    /// The same reward may answer elsewhere than before. Whether the run knows it.
    fn moved(&mut self, reward: &Reward, records: &mut Vec<Record>) -> bool {
        let mut known = false;
        for (revision, from_step) in &mut self.bound {
            if revision.digest != reward.digest {
                continue;
            }
            known = true;
            if revision.endpoints != reward.endpoints {
                revision.endpoints.clone_from(&reward.endpoints);
                let (revision, from_step) = (revision.clone(), *from_step);
                records.push(Record::RevisionBound { revision, from_step });
            }
        }
        known
    }
}

impl Revision {
    fn reward(&self) -> Reward {
        let Self { name, digest, endpoints, .. } = self.clone();
        Reward { name, digest, endpoints }
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
        let bound = |number, from_step| Bound {
            number: RevisionNumber(number),
            from_step: StepIndex(from_step),
            superseded: Vec::new(),
        };
        assert_eq!(second.swap(reward("b", 2), &mut records).unwrap(), bound(2, 2));
        assert_eq!(second.of_step(StepIndex(1)).unwrap().digest, "a");
        assert_eq!(second.of_step(StepIndex(2)).unwrap().digest, "b");
        // A rollback before the boundary is reached replaces the swap.
        let back = second.earlier(None).unwrap();
        assert_eq!(back, reward("a", 1));
        assert_eq!(second.swap(back, &mut records).unwrap(), bound(3, 2));
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

    #[test]
    fn a_schedule_is_bound_once_and_a_swap_by_hand_overrules_it() {
        let mut records = Vec::new();
        let planned = [(StepIndex(4), reward("b", 2)), (StepIndex(8), reward("c", 3))];
        let mut first =
            Revisions::recover(&Recovered::default(), reward("a", 1), &mut records).unwrap();
        first.schedule(&planned, &mut records).unwrap();
        let of = |revisions: &Revisions, step| {
            revisions.of_step(StepIndex(step)).unwrap().digest.clone()
        };
        let all = |revisions: &Revisions| [3, 4, 7, 8].map(|step| of(revisions, step)).concat();
        assert_eq!(all(&first), "abbc");
        // Killed after the first record of the schedule.
        let mut cut =
            Revisions::recover(&replay(&records[..2]), reward("a", 1), &mut Vec::new()).unwrap();
        cut.schedule(&planned, &mut Vec::new()).unwrap();
        assert_eq!(cut.all(), first.all());
        first.settle(StepIndex(0), &mut records);
        let bound = first.swap(reward("d", 4), &mut records).unwrap();
        assert_eq!(
            (bound.from_step, bound.superseded),
            (StepIndex(1), [2, 3].map(RevisionNumber).into())
        );
        assert_eq!(all(&first), "dddd");
        assert_eq!(first.earlier(None).unwrap().digest, "a", "not one that never was in force");
        // A restart finds the schedule again, elsewhere, and binds nothing anew.
        let elsewhere = [(StepIndex(4), reward("b", 9)), (StepIndex(8), reward("c", 3))];
        let mut again =
            Revisions::recover(&replay(&records), reward("a", 1), &mut records).unwrap();
        again.schedule(&elsewhere, &mut records).unwrap();
        assert_eq!(again.bound.len(), 4);
        assert_eq!(again.bound[1].0.endpoints, ["http://127.0.0.1:9"]);
        let other = [(StepIndex(5), reward("b", 2))];
        let refused = again.schedule(&other, &mut records).unwrap_err();
        assert_eq!(refused.kind(), "schedule-changed");
    }

    #[test]
    fn a_rollback_goes_to_the_reward_before_or_to_any_that_there_was() {
        let mut records = Vec::new();
        let mut run =
            Revisions::recover(&Recovered::default(), reward("a", 1), &mut records).unwrap();
        assert!(run.earlier(None).unwrap_err().to_string().contains("one reward only"));
        run.swap(reward("b", 2), &mut records).unwrap();
        assert_eq!(run.earlier(None).unwrap().digest, "a", "also before anything was leased");
        run.settle(StepIndex(0), &mut records);
        run.swap(reward("c", 3), &mut records).unwrap();
        assert_eq!(run.earlier(None).unwrap().digest, "b");
        assert_eq!(run.earlier(Some(RevisionNumber(1))).unwrap().digest, "a");
        assert!(run.earlier(Some(RevisionNumber(4))).is_err());
        run.swap(reward("b", 2), &mut records).unwrap();
        assert_eq!(run.earlier(None).unwrap().digest, "c", "a rollback can be rolled back");
    }
}
