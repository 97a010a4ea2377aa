//! The typed inputs and outputs that all objectives share.
//!
//! Invariant: a [`Terms`] has at least one token, slices of one length, and only finite numbers; a
//! [`CompletionLoss`] has only finite numbers.

use super::ObjectiveError;
use super::tally::CompletionStatistics;
use std::num::NonZeroU64;

/// One completion as an objective sees it.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    advantage: f64,
    sampled: &'a [f32],
    current: &'a [f32],
    reference: Option<&'a [f32]>,
    entropy: Option<&'a [f32]>,
}

/// The shape of a whole step's batch: what losses are divided by. The same for all its micro-batches.
/// For an objective that picks it is that of what was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    completions: NonZeroU64,
    tokens: NonZeroU64,
    max_tokens: NonZeroU64,
}

/// A completion's share of the step's loss.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionLoss {
    /// `d loss / d logprob` for each token of the completion.
    pub gradient: Vec<f32>,
    /// The share of the loss, and what was seen while computing it.
    pub statistics: CompletionStatistics,
}

impl<'a> Terms<'a> {
    /// A completion's advantage, the log-probabilities that the sampler recorded, and those of the
    /// policy that learns.
    pub fn new(
        advantage: f64,
        sampled: &'a [f32],
        current: &'a [f32],
    ) -> Result<Self, ObjectiveError> {
        if sampled.is_empty() {
            return Err(ObjectiveError::Empty);
        }
        if !advantage.is_finite() {
            return Err(ObjectiveError::NotFinite {
                what: "advantage",
                token: 0,
                found: advantage,
            });
        }
        let terms = Self { advantage, sampled, current, reference: None, entropy: None };
        terms.check("sampled log-probabilities", sampled)?;
        terms.check("current log-probabilities", current)?;
        Ok(terms)
    }

    /// Adds the reference policy's log-probabilities: KL is measured, and penalised if asked for.
    pub fn with_reference(self, reference: &'a [f32]) -> Result<Self, ObjectiveError> {
        self.check("reference log-probabilities", reference)?;
        Ok(Self { reference: Some(reference), ..self })
    }

    /// Adds the entropy of the distribution at each token, for the statistics.
    pub fn with_entropy(self, entropy: &'a [f32]) -> Result<Self, ObjectiveError> {
        self.check("entropies", entropy)?;
        Ok(Self { entropy: Some(entropy), ..self })
    }

    /// The number of tokens; at least one.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.sampled.len()
    }

    pub(super) fn advantage(&self) -> f64 {
        self.advantage
    }

    pub(super) fn reference(&self) -> Option<&'a [f32]> {
        self.reference
    }

    pub(super) fn entropy(&self) -> Option<&'a [f32]> {
        self.entropy
    }

    pub(super) fn current(&self, token: usize) -> f64 {
        f64::from(self.current[token])
    }

    pub(super) fn log_ratio(&self, token: usize) -> f64 {
        f64::from(self.current[token]) - f64::from(self.sampled[token])
    }

    fn check(&self, what: &'static str, slice: &[f32]) -> Result<(), ObjectiveError> {
        if slice.len() != self.sampled.len() {
            return Err(ObjectiveError::Length {
                what,
                expected: self.sampled.len(),
                found: slice.len(),
            });
        }
        match slice.iter().position(|value| !value.is_finite()) {
            Some(token) => {
                Err(ObjectiveError::NotFinite { what, token, found: f64::from(slice[token]) })
            }
            None => Ok(()),
        }
    }
}

impl BatchShape {
    /// The shape of a step's batch from the lengths of all its completions, and the token limit of
    /// a completion.
    pub fn new(
        lengths: impl IntoIterator<Item = usize>,
        max_tokens: usize,
    ) -> Result<Self, ObjectiveError> {
        let (completions, tokens) = lengths
            .into_iter()
            .fold((0u64, 0u64), |(count, sum), length| (count + 1, sum + length as u64));
        let some = |what, value| NonZeroU64::new(value).ok_or(ObjectiveError::EmptyBatch { what });
        Ok(Self {
            completions: some("completions", completions)?,
            tokens: some("completion tokens", tokens)?,
            max_tokens: some("tokens a completion may have", max_tokens as u64)?,
        })
    }

    /// Completions in the step.
    pub fn completions(&self) -> u64 {
        self.completions.get()
    }

    /// Completion tokens in the step.
    pub fn tokens(&self) -> u64 {
        self.tokens.get()
    }

    pub(super) fn per_token(&self) -> f64 {
        1.0 / self.tokens.get() as f64
    }

    pub(super) fn per_completion(&self) -> f64 {
        1.0 / self.completions.get() as f64
    }

    /// Where the completions are those of pairs.
    pub(super) fn per_pair(&self) -> f64 {
        2.0 / self.completions.get() as f64
    }

    pub(super) fn per_token_slot(&self) -> f64 {
        1.0 / (self.completions.get() as f64 * self.max_tokens.get() as f64)
    }
}
