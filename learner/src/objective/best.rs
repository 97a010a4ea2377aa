//! `sft`: the negative log-likelihood of a group's best completion, as in rejection-sampling fine-tuning.
//!
//! Invariant: every token of a completion is pushed equally hard, whatever its probability; no ratio
//! and no clipping have a part in it.

use super::gathered::Gathered;
use super::terms::{BatchShape, CompletionLoss, Terms};
use super::{ObjectiveError, Settings};

/// `−logprob`, averaged over all tokens of `batch`, which has the best completions of the step alone.
pub fn best_of_group(
    terms: &Terms<'_>,
    settings: &Settings,
    batch: &BatchShape,
) -> Result<CompletionLoss, ObjectiveError> {
    let mut gathered = Gathered::new(terms);
    for token in 0..terms.len() {
        gathered.loss(-terms.current(token));
        gathered.slope(token, -1.0);
    }
    gathered.finish(settings, batch.per_token(), batch.per_token())
}
