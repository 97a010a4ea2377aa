//! What is known of a step when its update was made.
//!
//! Invariant: sums are added group by group in order, so they do not depend on the micro-batches.

use super::StepBatch;
use super::batch::Prepared;
use super::cost::ModelCost;
use super::gap::Gap;
use crate::adamw::Update;
use crate::error::LearnerError;
use crate::metrics::{RolloutSummary, StepMetrics, Timing};
use crate::objective::Tally;
use octet_dataset::Example;

/// What was seen while a step was learned.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub tally: Tally,
    pub gap: Gap,
    pub tokens: u64,
    pub flops: f64,
}

impl Seen {
    /// Groups went through forward and backward.
    pub fn learned(&mut self, groups: &[&Prepared], cost: &ModelCost) {
        for group in groups {
            let completions = group.completions().map(|c| c.tokens.len());
            self.tokens += group.size() as u64;
            self.flops += cost.learn(group.group().prompt_tokens.len(), completions);
        }
    }

    /// The step's record; `step` counts the commits with this one.
    pub fn record(
        &self,
        step: u64,
        batch: &StepBatch,
        update: Update,
        learning_rate: f64,
        timing: Timing,
    ) -> Result<StepMetrics, LearnerError> {
        let wanted: Vec<String> = batch.groups().map(|g| behaviour(&g.example_json)).collect();
        let groups = batch.groups().zip(wanted.iter().map(String::as_str));
        let first = batch.groups().next().map(|group| group.group).unwrap_or_default();
        let rollout = RolloutSummary::new(groups)
            .map_err(|source| LearnerError::Rewards { group: first, source })?;
        Ok(StepMetrics {
            step,
            rollout,
            loss: self.tally.statistics(),
            logprob_gap_max: self.gap.largest(),
            gradient_norm: update.gradient_norm,
            learning_rate,
            timing: timing.with_speed(self.tokens, self.flops),
        })
    }
}

/// What an example wants. A row that this build cannot read is no reason to lose a run.
fn behaviour(example: &str) -> String {
    match Example::from_json(example) {
        Ok(example) => example.behaviour().name().to_owned(),
        Err(_) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::behaviour;

    #[test]
    fn behaviours_are_those_of_the_data_set() {
        let row = |truth: &str| {
            format!(
                r#"{{"prompt": [{{"role": "user", "content": "x"}}], "reward_model": {{"ground_truth": {truth}}}}}"#
            )
        };
        assert_eq!(behaviour(&row(r#"{"behavior": "refuse"}"#)), "refuse");
        assert_eq!(behaviour("{}"), "unknown");
    }
}
