//! What was seen while a step's loss was computed.
//!
//! Invariant: a [`Tally`] takes completions one at a time, never other tallies, so that its sums are
//! the same to the bit however the step was cut into micro-batches.

use serde::{Deserialize, Serialize};

/// What one completion contributes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompletionStatistics {
    /// The completion's share of the step's loss, KL penalty included.
    pub loss: f64,
    /// Tokens in the completion.
    pub tokens: u64,
    /// Ratios: one per token, or one per completion, as the objective has it.
    pub ratios: u64,
    /// Sum of the ratios.
    pub ratio_sum: f64,
    /// The largest ratio.
    pub ratio_max: f64,
    /// Ratios clipped from below.
    pub clipped_low: u64,
    /// Ratios clipped from above.
    pub clipped_high: u64,
    /// The largest distance of a token's log-probability from what the sampler recorded.
    pub log_ratio_max: f64,
    /// Sum of the tokens' k3 estimates, where there is a reference.
    pub kl: Option<f64>,
    /// Sum of the tokens' entropies, where they were given.
    pub entropy: Option<f64>,
    /// What became of a pair, at its chosen completion.
    pub preference: Option<Preference>,
}

/// A pair's implicit rewards: β times how much likelier than for the reference a completion became.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Preference {
    /// Of the chosen completion.
    pub chosen_reward: f64,
    /// Of the rejected one.
    pub rejected_reward: f64,
}

/// The running sums of a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    sums: CompletionStatistics,
    kl_tokens: u64,
    entropy_tokens: u64,
    pairs: u64,
    agreed: u64,
}

/// A step's statistics, ready for the metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossStatistics {
    /// The loss of the step.
    pub loss: f64,
    /// Mean of the ratios.
    pub ratio_mean: f64,
    /// The largest ratio.
    pub ratio_max: f64,
    /// Share of the ratios clipped from below.
    pub clip_fraction_low: f64,
    /// Share of the ratios clipped from above.
    pub clip_fraction_high: f64,
    /// The largest distance of a token's log-probability from what the sampler recorded. With a lag
    /// of 0 and one update per batch this is the gap between sampler and learner.
    pub log_ratio_max: f64,
    /// Mean k3 estimate per token, where there is a reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// Mean entropy per token, where it was computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entropy: Option<f64>,
    /// What became of the step's pairs, where there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preference: Option<PreferenceStatistics>,
}

/// What became of a step's pairs: means of what TRL's `DPOTrainer` logs, before the update.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreferenceStatistics {
    /// How many there were.
    pub pairs: u64,
    /// Mean implicit reward of the chosen completions.
    pub chosen_reward: f64,
    /// Mean implicit reward of the rejected ones.
    pub rejected_reward: f64,
    /// Share of the pairs whose chosen completion has the larger one. Before the first update the
    /// policy is the reference, all are equal, and the share is 0.
    pub accuracy: f64,
    /// Mean of their differences.
    pub margin: f64,
}

impl Preference {
    /// How much the chosen completion's reward is above the other's.
    pub fn margin(&self) -> f64 {
        self.chosen_reward - self.rejected_reward
    }
}

impl Tally {
    /// Takes the next completion, in the order of groups and samples.
    pub fn add(&mut self, completion: &CompletionStatistics) {
        let sums = &mut self.sums;
        sums.loss += completion.loss;
        sums.tokens += completion.tokens;
        sums.ratios += completion.ratios;
        sums.ratio_sum += completion.ratio_sum;
        sums.ratio_max = sums.ratio_max.max(completion.ratio_max);
        sums.clipped_low += completion.clipped_low;
        sums.clipped_high += completion.clipped_high;
        sums.log_ratio_max = sums.log_ratio_max.max(completion.log_ratio_max);
        if let Some(kl) = completion.kl {
            *sums.kl.get_or_insert(0.0) += kl;
            self.kl_tokens += completion.tokens;
        }
        if let Some(entropy) = completion.entropy {
            *sums.entropy.get_or_insert(0.0) += entropy;
            self.entropy_tokens += completion.tokens;
        }
        if let Some(found) = &completion.preference {
            let sum = sums.preference.get_or_insert_default();
            sum.chosen_reward += found.chosen_reward;
            sum.rejected_reward += found.rejected_reward;
            self.pairs += 1;
            self.agreed += u64::from(found.margin() > 0.0);
        }
    }

    /// The statistics of what was added. A step whose groups were all left out has a ratio of 1.
    pub fn statistics(&self) -> LossStatistics {
        let sums = &self.sums;
        let share = |part: f64, of: u64| if of == 0 { 0.0 } else { part / of as f64 };
        let empty = sums.ratios == 0;
        LossStatistics {
            loss: sums.loss,
            ratio_mean: if empty { 1.0 } else { share(sums.ratio_sum, sums.ratios) },
            ratio_max: if empty { 1.0 } else { sums.ratio_max },
            clip_fraction_low: share(sums.clipped_low as f64, sums.ratios),
            clip_fraction_high: share(sums.clipped_high as f64, sums.ratios),
            log_ratio_max: sums.log_ratio_max,
            kl: sums.kl.map(|sum| share(sum, self.kl_tokens)),
            entropy: sums.entropy.map(|sum| share(sum, self.entropy_tokens)),
            preference: sums.preference.map(|sum| PreferenceStatistics {
                pairs: self.pairs,
                chosen_reward: share(sum.chosen_reward, self.pairs),
                rejected_reward: share(sum.rejected_reward, self.pairs),
                accuracy: share(self.agreed as f64, self.pairs),
                margin: share(sum.margin(), self.pairs),
            }),
        }
    }
}
