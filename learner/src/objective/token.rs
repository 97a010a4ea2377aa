//! The objectives with one ratio per token: `grpo`, `dr-grpo`, `dapo`.
//!
//! Invariant: they share one clipped surrogate and differ only in what divides the sum (and, in
//! their callers' hands, in the advantages and the clip range).

use super::gathered::Gathered;
use super::terms::{BatchShape, CompletionLoss, Terms};
use super::{ObjectiveError, Settings};

/// Clipped token ratios, divided by all completion tokens of the step.
pub fn grpo(
    terms: &Terms<'_>,
    settings: &Settings,
    batch: &BatchShape,
) -> Result<CompletionLoss, ObjectiveError> {
    clipped(terms, settings, batch.per_token())
}

/// Clipped token ratios, divided by completions × the token limit: the length of a completion does
/// not change the weight of its tokens.
pub fn dr_grpo(
    terms: &Terms<'_>,
    settings: &Settings,
    batch: &BatchShape,
) -> Result<CompletionLoss, ObjectiveError> {
    clipped(terms, settings, batch.per_token_slot())
}

/// Token ratios clipped higher above than below, divided by all completion tokens of the step.
pub fn dapo(
    terms: &Terms<'_>,
    settings: &Settings,
    batch: &BatchShape,
) -> Result<CompletionLoss, ObjectiveError> {
    clipped(terms, settings, batch.per_token())
}

fn clipped(
    terms: &Terms<'_>,
    settings: &Settings,
    weight: f64,
) -> Result<CompletionLoss, ObjectiveError> {
    let mut gathered = Gathered::new(terms);
    for token in 0..terms.len() {
        let surrogate = settings.clip().surrogate(terms.log_ratio(token), terms.advantage());
        gathered.loss(surrogate.loss);
        gathered.slope(token, surrogate.slope);
        gathered.ratio(surrogate.ratio, surrogate.low, surrogate.high);
    }
    gathered.finish(settings, weight, weight)
}
