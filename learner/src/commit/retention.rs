//! Which commits are kept.
//!
//! Invariant: the newest ones that the lag still samples with are never removed: after a restart the
//! learner must be able to publish them again.

use std::num::{NonZeroU64, NonZeroUsize};

/// Keeps the newest commits, and every so many for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    last: usize,
    every: Option<NonZeroU64>,
}

impl Retention {
    /// Keeps the `last` newest commits, but at least those that a lag of `lag` versions samples
    /// with, and those whose number is a multiple of `every`.
    pub fn new(last: NonZeroUsize, every: Option<NonZeroU64>, lag: u64) -> Self {
        let needed = usize::try_from(lag).unwrap_or(usize::MAX).saturating_add(1);
        Self { last: last.get().max(needed), every }
    }

    /// The commits to remove, of the ascending `steps`.
    pub fn doomed(&self, steps: &[u64]) -> Vec<u64> {
        let old = steps.len().saturating_sub(self.last);
        let kept = |step: u64| self.every.is_some_and(|every| step.is_multiple_of(every.get()));
        steps[..old].iter().copied().filter(|step| !kept(*step)).collect()
    }
}
