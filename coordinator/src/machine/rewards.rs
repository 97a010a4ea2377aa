//! Rewards, swapped while a run goes on: what a swap may be, and where each revision stands.
//!
//! Invariant: a swap that is refused has changed nothing, and one that is taken never touches a step
//! that may have been leased. Nothing here asks whether the reward answers: whoever swaps has.

use std::time::Duration;

use octet_proto::{RevisionNumber, StepIndex};

use super::ledger::groups;
use super::record::Record;
use super::refusal::Refusal;
use super::revisions::{Bound, Revision, Reward};
use super::{Machine, check_text};

/// The most replicas that a revision may have.
pub const MAX_REPLICAS: usize = 64;

/// Where a revision stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No step was leased with it yet.
    Scheduled,
    /// The next groups are leased with it.
    Active,
    /// A later one is in force, and some of its groups are not in the spool.
    Draining,
    /// All its groups are in the spool or consumed.
    Idle,
    /// Another one took its steps before any was leased.
    Superseded,
}

/// A revision with the steps that it rewards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The revision.
    pub revision: Revision,
    /// The first step that it rewards.
    pub from_step: StepIndex,
    /// The first step that it does not reward any more; never above the run's steps.
    pub until_step: StepIndex,
    /// Where it stands.
    pub state: State,
    /// Groups of its steps that are leased.
    pub leased_groups: u64,
}

impl Machine {
    /// Binds another reward to the first step that was never leased. `newest_known` is the newest revision
    /// that the caller has seen, so that two people do not swap at once.
    ///
    /// Whoever asks has made sure that the reward answers; the machine only says when it counts.
    pub fn swap_reward(
        &mut self,
        now: Duration,
        reward: Reward,
        newest_known: Option<RevisionNumber>,
        records: &mut Vec<Record>,
    ) -> Result<Bound, Refusal> {
        self.tick(now);
        self.check_reward(&reward)?;
        self.check_swap(newest_known)?;
        self.revisions.swap(reward, records)
    }

    /// Swaps back to the reward before the one in force, or to that of the revision `to`.
    pub fn rollback_reward(
        &mut self,
        now: Duration,
        to: Option<RevisionNumber>,
        newest_known: Option<RevisionNumber>,
        records: &mut Vec<Record>,
    ) -> Result<Bound, Refusal> {
        self.tick(now);
        self.check_swap(newest_known)?;
        let reward = self.revisions.earlier(to)?;
        self.revisions.swap(reward, records)
    }

    /// Binds the swaps that the configuration schedules, each to the step that it names. Called before the
    /// first lease; after a restart it finds what was bound, and takes over where it answers now.
    pub fn schedule_rewards(
        &mut self,
        schedule: &[(StepIndex, Reward)],
        records: &mut Vec<Record>,
    ) -> Result<(), Refusal> {
        let mut last = StepIndex(0);
        for (step, reward) in schedule {
            self.check_reward(reward)?;
            if *step <= last || step.get() >= self.plan.steps.get() {
                return Err(Refusal::BadField {
                    field: "reward.schedule.step",
                    expected: format!("rising steps from 1 to {}", self.plan.steps.get() - 1),
                    found: format!("{step} after {last}"),
                });
            }
            last = *step;
        }
        self.revisions.schedule(schedule, records)
    }

    /// The revisions with the steps that they reward and where they stand, by number.
    pub(crate) fn bindings(&self) -> Vec<Binding> {
        let bindings = self.revisions.ranges().map(|(revision, steps)| {
            let end = StepIndex(self.plan.steps.get());
            let (from_step, until_step) = (steps.start, steps.end.min(end).max(steps.start));
            let leased = self.ledger.out().map(|(group, _)| self.plan.step_of(group));
            let leased = leased.filter(|step| (from_step..until_step).contains(step)).count();
            Binding {
                revision: revision.clone(),
                from_step,
                until_step,
                state: self.state_of(from_step, until_step),
                leased_groups: leased as u64,
            }
        });
        bindings.collect()
    }

    fn state_of(&self, from: StepIndex, until: StepIndex) -> State {
        let settled = self.revisions.settled_below();
        if from >= until {
            return State::Superseded;
        }
        if from >= settled {
            return State::Scheduled;
        }
        let over = until <= settled;
        let committed = self.committed();
        let done = committed.is_some_and(|committed| {
            let first = from.get().max(committed);
            (first..until.get()).all(|step| {
                groups(self.plan.groups_of(StepIndex(step)))
                    .all(|group| self.ledger.is_spooled(group))
            })
        });
        match (over, done) {
            (true, true) => State::Idle,
            (true, false) if until.get() < self.plan.steps.get() => State::Draining,
            _ => State::Active,
        }
    }

    fn check_swap(&self, newest_known: Option<RevisionNumber>) -> Result<(), Refusal> {
        let newest = self.revisions.newest();
        if let Some(known) = newest_known.filter(|known| *known != newest) {
            return Err(Refusal::RewardMoved { known, newest });
        }
        let settled = self.revisions.settled_below();
        if settled.get() >= self.plan.steps.get() {
            return Err(Refusal::TooLate { steps: self.plan.steps.get() });
        }
        Ok(())
    }

    fn check_reward(&self, reward: &Reward) -> Result<(), Refusal> {
        for (field, text) in [("name", &reward.name), ("digest", &reward.digest)] {
            check_text(field, text)?;
            if text.is_empty() {
                let (expected, found) = ("a text".to_owned(), "an empty one".to_owned());
                return Err(Refusal::BadField { field, expected, found });
            }
        }
        let endpoints = &reward.endpoints;
        if !(1..=MAX_REPLICAS).contains(&endpoints.len()) {
            return Err(Refusal::BadField {
                field: "endpoints",
                expected: format!("1 to {MAX_REPLICAS} addresses"),
                found: endpoints.len().to_string(),
            });
        }
        endpoints.iter().try_for_each(|endpoint| check_text("endpoints", endpoint))
    }
}
