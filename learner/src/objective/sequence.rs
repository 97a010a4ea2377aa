//! The objectives with one ratio per completion: `rloo` and `gspo`.
//!
//! Invariant: all tokens of a completion are clipped together or not at all.

use super::gathered::Gathered;
use super::terms::{BatchShape, CompletionLoss, Terms};
use super::{ObjectiveError, Settings};

/// The ratio of the whole completions' probabilities, clipped, averaged over completions.
pub fn rloo(
    terms: &Terms<'_>,
    settings: &Settings,
    batch: &BatchShape,
) -> Result<CompletionLoss, ObjectiveError> {
    clipped(terms, settings, batch, 1.0)
}

/// The geometric mean of the token ratios, clipped, averaged over completions.
pub fn gspo(
    terms: &Terms<'_>,
    settings: &Settings,
    batch: &BatchShape,
) -> Result<CompletionLoss, ObjectiveError> {
    clipped(terms, settings, batch, 1.0 / terms.len() as f64)
}

/// `share` is what a token's log-ratio contributes to the completion's.
fn clipped(
    terms: &Terms<'_>,
    settings: &Settings,
    batch: &BatchShape,
    share: f64,
) -> Result<CompletionLoss, ObjectiveError> {
    let sum: f64 = (0..terms.len()).map(|token| terms.log_ratio(token)).sum();
    let surrogate = settings.clip().surrogate(sum * share, terms.advantage());
    let mut gathered = Gathered::new(terms);
    gathered.loss(surrogate.loss);
    gathered.ratio(surrogate.ratio, surrogate.low, surrogate.high);
    for token in 0..terms.len() {
        gathered.slope(token, surrogate.slope * share);
    }
    let weight = batch.per_completion();
    gathered.finish(settings, weight, weight * share)
}
