//! The gap between sampler and learner: the same token, the same weights, two log-probabilities.
//!
//! Invariant: the largest gap is found with its place; one that is not a number is larger than any
//! bound. On the CPU it is exactly zero, since the code that samples is the code that learns.

use super::batch::Prepared;
use octet_proto::GroupIndex;

/// The largest gap seen so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gap {
    largest: f64,
    place: Option<Place>,
}

/// Where a gap is.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    group: GroupIndex,
    sample: u32,
    token: usize,
    sampler: f32,
    learner: f32,
}

/// Sampler and learner disagree by more than the run allows.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "group {group}, sample {sample}, token {token}: the sampler recorded log-probability {sampler} and the learner computes {learner} with the same weights: expected a gap of at most {bound} (`learner.logprob_gap_max`), found {gap}; worker {worker} and the learner do not compute the same policy: compare their builds, devices and weights, or allow for rounding with a higher bound"
)]
pub struct LogprobGap {
    /// The group.
    pub group: GroupIndex,
    /// The completion.
    pub sample: u32,
    /// The token's position in the completion.
    pub token: usize,
    /// What the sampler recorded.
    pub sampler: f32,
    /// What the learner computes.
    pub learner: f32,
    /// The distance.
    pub gap: f64,
    /// The bound.
    pub bound: f64,
    /// Who sampled the group.
    pub worker: String,
}

impl Gap {
    /// The largest gap.
    pub fn largest(&self) -> f64 {
        self.largest
    }

    /// Compares what was recorded for some groups with what was computed for their tokens.
    ///
    /// # Errors
    /// A gap is above the bound.
    pub fn see(
        &mut self,
        groups: &[&Prepared],
        learner: &[f32],
        bound: f64,
    ) -> Result<(), LogprobGap> {
        let mut found = learner.iter();
        for prepared in groups {
            let group = prepared.group();
            for completion in prepared.completions() {
                for (token, (sampler, learner)) in
                    completion.logprobs.iter().zip(found.by_ref()).enumerate()
                {
                    let (sampler, learner) = (*sampler, *learner);
                    let distance = (f64::from(sampler) - f64::from(learner)).abs();
                    let distance = if distance.is_nan() { f64::INFINITY } else { distance };
                    if distance > self.largest {
                        self.largest = distance;
                        let (group, sample) = (group.group, completion.sample);
                        self.place = Some(Place { group, sample, token, sampler, learner });
                    }
                }
            }
        }
        match self.place {
            Some(Place { group, sample, token, sampler, learner }) if self.largest > bound => {
                let by = groups.iter().find(|prepared| prepared.group().group == group);
                let worker = by.map(|prepared| prepared.group().worker.clone()).unwrap_or_default();
                let gap = self.largest;
                Err(LogprobGap { group, sample, token, sampler, learner, gap, bound, worker })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::advantage::DEFAULT_EPSILON;
    use crate::group::ScoredGroup;
    use crate::group::tests::parts;
    use crate::objective::{Objective, PolicyLoss};
    use crate::step::StepBatch;

    fn batch() -> StepBatch {
        let settings = Objective::Grpo.settings(None, None, 0.0).unwrap();
        let loss = PolicyLoss::new(Objective::Grpo, settings, DEFAULT_EPSILON).unwrap();
        let groups = (3..5).map(|index| ScoredGroup::new(parts(index)).unwrap()).collect();
        StepBatch::new(0, groups, loss, 16).unwrap()
    }

    /// What was recorded, with one value moved: group 4, sample 2, token 1.
    fn computed(batch: &StepBatch, moved: f32) -> Vec<f32> {
        let recorded = batch.groups().flat_map(|group| &group.completions);
        let mut all: Vec<f32> = recorded.flat_map(|c| c.logprobs.clone()).collect();
        all[36 + 1 + 2 + 1] += moved;
        all
    }

    #[test]
    fn equal_is_zero_and_passes_a_bound_of_zero() {
        let (batch, mut gap) = (batch(), Gap::default());
        gap.see(&batch.learned(1000)[0], &computed(&batch, 0.0), 0.0).unwrap();
        assert_eq!(gap.largest(), 0.0);
    }

    #[test]
    fn a_gap_is_named_with_its_place_and_both_values() {
        let (batch, mut gap) = (batch(), Gap::default());
        gap.see(&batch.learned(1000)[0], &computed(&batch, 0.25), 0.25).unwrap();
        assert_eq!(gap.largest(), 0.25);
        let error = gap.see(&batch.learned(1000)[0], &computed(&batch, 0.25), 0.1).unwrap_err();
        assert_eq!((error.group, error.sample, error.token), (GroupIndex(4), 2, 1));
        assert_eq!((error.sampler, error.learner), (-0.35, -0.35 + 0.25));
        assert!(error.to_string().contains("worker-1"), "{error}");
    }

    #[test]
    fn what_is_no_number_passes_no_bound() {
        for value in [f32::NAN, f32::NEG_INFINITY] {
            let (batch, mut gap) = (batch(), Gap::default());
            let error = gap.see(&batch.learned(1000)[0], &computed(&batch, value), 1e30);
            assert_eq!(error.unwrap_err().gap, f64::INFINITY);
        }
    }
}
