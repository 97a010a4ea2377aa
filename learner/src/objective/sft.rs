//! The objective of supervised fine-tuning: the mean negative log-likelihood of the target tokens.
//!
//! Invariant: prompt tokens have no part in it; the caller passes target tokens only.

use super::ObjectiveError;
use std::num::NonZeroU64;

/// A sequence's share of the batch's loss.
#[derive(Clone, Debug, PartialEq)]
pub struct SftLoss {
    /// `d loss / d logprob` for each target token: `−1/n` everywhere.
    pub gradient: Vec<f32>,
    /// The share of the mean over the whole batch.
    pub loss: f64,
}

/// The loss of one sequence's target tokens, in a batch of `batch_tokens` target tokens.
pub fn sft(logprobs: &[f32], batch_tokens: NonZeroU64) -> Result<SftLoss, ObjectiveError> {
    if logprobs.is_empty() {
        return Err(ObjectiveError::Empty);
    }
    if let Some(token) = logprobs.iter().position(|value| !value.is_finite()) {
        let found = f64::from(logprobs[token]);
        return Err(ObjectiveError::NotFinite { what: "log-probabilities", token, found });
    }
    let weight = 1.0 / batch_tokens.get() as f64;
    let sum: f64 = logprobs.iter().map(|value| f64::from(*value)).sum();
    Ok(SftLoss { gradient: vec![-weight as f32; logprobs.len()], loss: -sum * weight })
}
