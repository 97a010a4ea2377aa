//! `cispo`: the importance weight is clipped and has no gradient, so every token keeps learning.
//!
//! Invariant: the gradient of a token is never zero because of clipping, only smaller.

use super::gathered::Gathered;
use super::terms::{BatchShape, CompletionLoss, Terms};
use super::{ObjectiveError, Settings};

/// `−clip(ratio)·A·logprob` with the clipped ratio held constant, divided by all completion tokens
/// of the step.
pub fn cispo(
    terms: &Terms<'_>,
    settings: &Settings,
    batch: &BatchShape,
) -> Result<CompletionLoss, ObjectiveError> {
    let clip = settings.clip();
    let mut gathered = Gathered::new(terms);
    for token in 0..terms.len() {
        let ratio = libm::exp(terms.log_ratio(token));
        let weight = clip.clamp(ratio);
        let slope = -weight * terms.advantage();
        gathered.loss(slope * terms.current(token));
        gathered.slope(token, slope);
        gathered.ratio(ratio, ratio < weight, ratio > weight);
    }
    gathered.finish(settings, batch.per_token(), batch.per_token())
}
