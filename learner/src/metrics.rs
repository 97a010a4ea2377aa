//! The record of a step, one JSON line each.
//!
//! Invariants: all that is outside of `timing` is a function of the run's configuration, so two
//! runs of one configuration have the same lines there; no number is NaN or infinite, since JSON
//! has neither.

mod log;

pub use log::{MetricsError, MetricsLog, Resumed, read};

use crate::advantage::{GroupRewards, RewardsError};
use crate::group::{Finish, ScoredGroup};
use crate::objective::LossStatistics;
use octet_proto::{PolicyVersion, RevisionNumber};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// All that is recorded of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Steps committed with this one: the first is 1. The policy version that the step made.
    pub step: u64,
    /// What the step's groups were like.
    #[serde(flatten)]
    pub rollout: RolloutSummary,
    /// The loss.
    #[serde(flatten)]
    pub loss: LossStatistics,
    /// The largest gap between the sampler's and the learner's log-probability of a token, both
    /// under the weights that sampled it.
    pub logprob_gap_max: f64,
    /// The global gradient norm, before clipping.
    pub gradient_norm: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// What took how long.
    pub timing: Timing,
}

/// What the groups of a step were like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutSummary {
    /// The policy versions that sampled the groups; one, unless a replay mixes them.
    pub policy_versions: BTreeSet<PolicyVersion>,
    /// The reward revisions that scored them.
    pub reward_revisions: BTreeSet<RevisionNumber>,
    /// Groups.
    pub groups: u64,
    /// Completions.
    pub completions: u64,
    /// Mean reward of the completions.
    pub reward_mean: f64,
    /// Sample standard deviation of the rewards, over all completions.
    pub reward_std: f64,
    /// Mean reward of the completions by what their example wants.
    pub reward_by_behavior: BTreeMap<String, f64>,
    /// Share of the groups whose rewards are all equal: nothing was learned from them.
    pub zero_variance_fraction: f64,
    /// How often each verdict was given.
    pub verdicts: BTreeMap<String, u64>,
    /// Mean completion length in tokens.
    pub completion_length_mean: f64,
    /// The longest completion.
    pub completion_length_max: u64,
    /// Share of the completions that ended at the token limit.
    pub truncated_fraction: f64,
    /// Minus the mean log-probability of the sampled tokens: an estimate of the sampling
    /// distribution's entropy per token. Nats.
    pub entropy_estimate: f64,
    /// Prompt tokens, each group's prompt once.
    pub prompt_tokens: u64,
    /// Completion tokens.
    pub completion_tokens: u64,
}

/// What took how long, and how fast it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Seconds that the learner waited for the step's groups.
    pub sample_wait_seconds: f64,
    /// Seconds of forward, backward and update.
    pub learn_seconds: f64,
    /// Seconds of the commit. Absent in a line that was restored from the commit itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_seconds: Option<f64>,
    /// Seconds of publishing the weights. Absent as above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish_seconds: Option<f64>,
    /// Prompt and completion tokens learned per second of learning.
    pub tokens_per_second: f64,
    /// Floating-point operations per second of learning.
    pub flops_per_second: f64,
}

impl RolloutSummary {
    /// Summarises a step's groups, each with what its example wants (`execute`, `clarify`, ...).
    pub fn new<'a>(
        groups: impl IntoIterator<Item = (&'a ScoredGroup, &'a str)>,
    ) -> Result<Self, RewardsError> {
        let mut sums = Sums::default();
        for (group, behavior) in groups {
            sums.add(group, behavior)?;
        }
        sums.finish()
    }
}

impl Timing {
    /// The speeds that follow from the step's tokens, its floating-point operations and
    /// `learn_seconds`.
    #[must_use]
    pub fn with_speed(mut self, tokens: u64, flops: f64) -> Self {
        if self.learn_seconds > 0.0 {
            self.tokens_per_second = tokens as f64 / self.learn_seconds;
            self.flops_per_second = flops / self.learn_seconds;
        }
        self
    }
}

#[derive(Default)]
struct Sums {
    policy_versions: BTreeSet<PolicyVersion>,
    reward_revisions: BTreeSet<RevisionNumber>,
    zero_variance: u64,
    groups: u64,
    rewards: Vec<f64>,
    by_behavior: BTreeMap<String, (f64, u64)>,
    verdicts: BTreeMap<String, u64>,
    longest: u64,
    truncated: u64,
    logprobs: f64,
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl Sums {
    fn add(&mut self, group: &ScoredGroup, behavior: &str) -> Result<(), RewardsError> {
        let rewards = group.rewards();
        self.groups += 1;
        self.policy_versions.insert(group.policy_version);
        self.reward_revisions.insert(group.reward_revision);
        self.prompt_tokens += group.prompt_tokens.len() as u64;
        let of_behavior = self.by_behavior.entry(behavior.to_owned()).or_default();
        of_behavior.0 += rewards.iter().sum::<f64>();
        of_behavior.1 += rewards.len() as u64;
        for completion in &group.completions {
            let length = completion.tokens.len() as u64;
            *self.verdicts.entry(completion.verdict.clone()).or_default() += 1;
            self.longest = self.longest.max(length);
            self.truncated += u64::from(completion.finish == Finish::Length);
            self.logprobs += completion.logprobs.iter().map(|value| f64::from(*value)).sum::<f64>();
            self.completion_tokens += length;
        }
        self.rewards.extend(&rewards);
        self.zero_variance += u64::from(GroupRewards::new(rewards)?.is_zero_variance());
        Ok(())
    }

    fn finish(self) -> Result<RolloutSummary, RewardsError> {
        let completions = self.rewards.len() as u64;
        let rewards = GroupRewards::new(self.rewards)?;
        // At least two completions and as many tokens are there, or an error was returned above.
        let per_completion = |part: u64| part as f64 / completions as f64;
        Ok(RolloutSummary {
            policy_versions: self.policy_versions,
            reward_revisions: self.reward_revisions,
            groups: self.groups,
            completions,
            reward_mean: rewards.mean(),
            reward_std: rewards.std(),
            reward_by_behavior: self
                .by_behavior
                .into_iter()
                .map(|(behavior, (sum, count))| (behavior, sum / count as f64))
                .collect(),
            zero_variance_fraction: self.zero_variance as f64 / self.groups as f64,
            verdicts: self.verdicts,
            completion_length_mean: per_completion(self.completion_tokens),
            completion_length_max: self.longest,
            truncated_fraction: per_completion(self.truncated),
            // Minus zero would be printed with its sign.
            entropy_estimate: 0.0 - self.logprobs / self.completion_tokens as f64,
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
