//! What is fixed for a whole run, and the arithmetic that follows from it alone.
//!
//! Invariant: group, step, version and example are functions of the plan; nothing that happens in a
//! run (who samples, who dies, when) enters here.

use std::num::NonZeroU64;
use std::ops::Range;
use std::time::Duration;

use octet_proto::{ConfigDigest, GroupIndex, PolicyVersion, StepIndex};

/// The most groups that may be in flight at once, `(lag + 1) · batch`.
///
/// The coordinator holds state for these groups only, so this bounds its memory.
pub const MAX_WINDOW: u64 = 1 << 16;

/// The fixed facts of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPlan {
    /// Names the run; a journal of another run is refused.
    pub run_id: String,
    /// Digest of the resolved configuration; nodes with another one are refused.
    pub config_digest: ConfigDigest,
    /// Keys the shuffling of the data set.
    pub seed: u64,
    /// `K`: how many optimiser steps the run has.
    pub steps: NonZeroU64,
    /// `B`: how many groups a step consumes.
    pub batch: NonZeroU64,
    /// How many versions old the sampling policy is.
    pub lag: u64,
    /// How many rows the data set has.
    pub rows: NonZeroU64,
}

impl RunPlan {
    /// Checks what the types cannot: that group indexes fit and that the window is bounded.
    ///
    /// # Errors
    /// The run has more groups, or more of them in flight, than can be counted.
    pub fn validate(&self) -> Result<(), PlanError> {
        // The journal's integers are signed.
        let countable = |total: NonZeroU64| i64::try_from(total.get()).is_ok();
        if !self.steps.checked_mul(self.batch).is_some_and(countable) {
            return Err(PlanError::TooManyGroups {
                steps: self.steps.get(),
                batch: self.batch.get(),
            });
        }
        let window = self.lag.checked_add(1).and_then(|n| n.checked_mul(self.batch.get()));
        match window {
            Some(groups) if groups <= MAX_WINDOW => Ok(()),
            _ => Err(PlanError::WindowTooLarge { lag: self.lag, batch: self.batch.get() }),
        }
    }

    /// How many groups the run consumes, `K · B`.
    pub fn total_groups(&self) -> u64 {
        self.steps.get().saturating_mul(self.batch.get())
    }

    /// The step that consumes `group`.
    pub fn step_of(&self, group: GroupIndex) -> StepIndex {
        group.step(self.batch)
    }

    /// The groups that step `step` consumes.
    pub fn groups_of(&self, step: StepIndex) -> Range<GroupIndex> {
        step.groups(self.batch)
    }

    /// The policy version that step `step` is sampled with, exactly.
    pub fn version_of(&self, step: StepIndex) -> PolicyVersion {
        step.sampled_with(self.lag)
    }

    /// The steps that may be sampled once `committed` steps are committed: those not yet committed
    /// whose version is published.
    pub fn steps_allowed(&self, committed: u64) -> Range<u64> {
        let end = committed.saturating_add(self.lag).saturating_add(1).min(self.steps.get());
        committed.min(end)..end
    }

    /// The groups of the steps that may be sampled once `committed` steps are committed.
    pub fn groups_allowed(&self, committed: u64) -> Range<GroupIndex> {
        let steps = self.steps_allowed(committed);
        let first = |step| self.groups_of(StepIndex(step)).start;
        first(steps.start)..first(steps.end)
    }
}

/// The clocks of a run. All three are told to the nodes or seen in `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a lease lasts unless it is renewed.
    pub lease: Duration,
    /// How often workers and the learner report.
    pub heartbeat: Duration,
    /// A worker that was silent for so long is forgotten and has to register again.
    pub silence: Duration,
}

impl Default for Timing {
    /// A killed worker's groups are open again within two seconds; four heartbeats fit in a lease.
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(2),
            heartbeat: Duration::from_millis(500),
            silence: Duration::from_secs(10),
        }
    }
}

impl Timing {
    /// Checks that a lease outlives at least one lost heartbeat and a worker outlives its leases.
    ///
    /// # Errors
    /// They do not.
    pub fn validate(&self) -> Result<(), PlanError> {
        let orderly = !self.heartbeat.is_zero()
            && self.lease >= self.heartbeat.saturating_mul(2)
            && self.silence >= self.lease;
        if orderly { Ok(()) } else { Err(PlanError::Timing { timing: *self }) }
    }
}

/// A plan that cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// `K · B` does not fit a group index.
    #[error(
        "{steps} steps of {batch} groups are more groups than an index can count: lower `steps` or `batch`"
    )]
    TooManyGroups {
        /// `K`.
        steps: u64,
        /// `B`.
        batch: u64,
    },
    /// Too many groups would be in flight.
    #[error(
        "lag {lag} with batch {batch} allows more than {MAX_WINDOW} groups in flight, (lag + 1) · batch: lower `lag` or `batch`"
    )]
    WindowTooLarge {
        /// The lag.
        lag: u64,
        /// `B`.
        batch: u64,
    },
    /// Clocks that contradict each other.
    #[error(
        "expected 0 < 2 · heartbeat <= lease <= silence, found heartbeat {:?}, lease {:?}, silence {:?}: lengthen the lease or shorten the heartbeat",
        timing.heartbeat, timing.lease, timing.silence
    )]
    Timing {
        /// What was found.
        timing: Timing,
    },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn plan(steps: u64, batch: u64, lag: u64) -> RunPlan {
        RunPlan {
            run_id: "r".into(),
            config_digest: ConfigDigest::new("d"),
            seed: 1,
            steps: NonZeroU64::new(steps).unwrap(),
            batch: NonZeroU64::new(batch).unwrap(),
            lag,
            rows: NonZeroU64::new(7).unwrap(),
        }
    }

    #[test]
    fn the_window_follows_the_lag() {
        let on_policy = plan(5, 4, 0);
        let allowed = |plan: &RunPlan, committed| {
            let groups = plan.groups_allowed(committed);
            groups.start.get()..groups.end.get()
        };
        assert_eq!(allowed(&on_policy, 0), 0..4);
        assert_eq!(allowed(&on_policy, 2), 8..12);
        let overlapped = plan(5, 4, 1);
        assert_eq!(allowed(&overlapped, 0), 0..8);
        assert_eq!(allowed(&overlapped, 4), 16..20, "the last step has no successor");
        assert!(allowed(&overlapped, 5).is_empty(), "a complete run leases nothing");
        // Exactly the steps whose version is published, for every lag.
        for (lag, committed) in (0..4).flat_map(|lag| (0..=5).map(move |c| (lag, c))) {
            let plan = plan(5, 4, lag);
            let published = |step: &u64| plan.version_of(StepIndex(*step)).get() <= committed;
            let expected: Vec<u64> = (committed..5).filter(published).collect();
            assert_eq!(plan.steps_allowed(committed).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn impossible_plans_are_refused() {
        assert!(plan(u64::MAX, 2, 0).validate().is_err());
        assert!(plan(5, MAX_WINDOW, 1).validate().is_err());
        assert!(plan(5, 4, u64::MAX).validate().is_err());
        assert!(plan(5, MAX_WINDOW / 2, 1).validate().is_ok());
        let hasty = Timing { lease: Duration::from_millis(900), ..Timing::default() };
        assert!(hasty.validate().is_err());
        assert!(Timing::default().validate().is_ok());
    }
}
