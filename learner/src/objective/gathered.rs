//! How a completion's loss comes together: the objective's own terms, the KL penalty, one rounding.
//!
//! Invariant: sums are f64 and run in the order of the tokens; a gradient that f32 cannot hold is an
//! error.

use super::tally::CompletionStatistics;
use super::terms::{CompletionLoss, Terms};
use super::{ObjectiveError, Settings};

/// The k3 estimate of `KL(policy ‖ reference)` at a token, and its derivative by the policy's
/// log-probability: `e^d − d − 1` with `d = reference − current`. Never negative.
pub fn k3(current: f64, reference: f64) -> (f64, f64) {
    let difference = reference - current;
    let grown = libm::expm1(difference);
    (grown - difference, -grown)
}

/// Gathers a completion's loss: the objective's own terms, then KL, then one rounding to f32.
pub(super) struct Gathered<'a, 'b> {
    terms: &'b Terms<'a>,
    slopes: Vec<f64>,
    statistics: CompletionStatistics,
}

impl<'a, 'b> Gathered<'a, 'b> {
    pub fn new(terms: &'b Terms<'a>) -> Self {
        let mut statistics =
            CompletionStatistics { tokens: terms.len() as u64, ..Default::default() };
        for token in 0..terms.len() {
            statistics.log_ratio_max = statistics.log_ratio_max.max(terms.log_ratio(token).abs());
        }
        if let Some(entropy) = terms.entropy() {
            statistics.entropy = Some(entropy.iter().map(|value| f64::from(*value)).sum());
        }
        Self { terms, slopes: vec![0.0; terms.len()], statistics }
    }

    /// Adds to the loss, undivided.
    pub fn loss(&mut self, loss: f64) {
        self.statistics.loss += loss;
    }

    /// Adds to the derivative of the loss by a token's log-probability, undivided.
    pub fn slope(&mut self, token: usize, slope: f64) {
        self.slopes[token] += slope;
    }

    /// Counts a ratio: one per token, or one per completion.
    pub fn ratio(&mut self, ratio: f64, low: bool, high: bool) {
        // A ratio that overflowed must not become a `null` in the metrics.
        let ratio = ratio.min(f64::from(f32::MAX));
        let statistics = &mut self.statistics;
        statistics.ratios += 1;
        statistics.ratio_sum += ratio;
        statistics.ratio_max = statistics.ratio_max.max(ratio);
        statistics.clipped_low += u64::from(low);
        statistics.clipped_high += u64::from(high);
    }

    /// Adds the KL penalty, and multiplies by `weight` all that was added. `kl_weight` is what a
    /// token's KL is multiplied by.
    pub fn finish(
        mut self,
        settings: &Settings,
        weight: f64,
        kl_weight: f64,
    ) -> Result<CompletionLoss, ObjectiveError> {
        self.statistics.loss *= weight;
        self.slopes.iter_mut().for_each(|slope| *slope *= weight);
        self.add_kl(settings.kl_beta(), kl_weight)?;
        let gradient: Vec<f32> = self.slopes.iter().map(|slope| *slope as f32).collect();
        if let Some(token) = gradient.iter().position(|slope| !slope.is_finite()) {
            return Err(ObjectiveError::Exploded {
                token,
                gradient: self.slopes[token],
                log_ratio: self.terms.log_ratio(token),
                advantage: self.terms.advantage(),
            });
        }
        Ok(CompletionLoss { gradient, statistics: self.statistics })
    }

    fn add_kl(&mut self, beta: f64, weight: f64) -> Result<(), ObjectiveError> {
        let Some(reference) = self.terms.reference() else {
            return if beta > 0.0 { Err(ObjectiveError::NoReference { beta }) } else { Ok(()) };
        };
        let mut sum = 0.0;
        for (token, reference) in reference.iter().enumerate() {
            let (kl, slope) = k3(self.terms.current(token), f64::from(*reference));
            sum += kl;
            if beta > 0.0 {
                self.slopes[token] += beta * weight * slope;
            }
        }
        if beta > 0.0 {
            self.statistics.loss += beta * weight * sum;
        }
        self.statistics.kl = Some(sum.min(f64::from(f32::MAX)));
        Ok(())
    }
}
