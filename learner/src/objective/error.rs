//! Why a loss could not be computed.
//!
//! Invariant: what would not be finite is an error with its place, never a NaN in a gradient.

/// Why a loss could not be computed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ObjectiveError {
    /// A completion without tokens.
    #[error("expected a completion with at least one token, found none")]
    Empty,
    /// Slices that do not describe the same tokens.
    #[error("expected {expected} {what} as there are sampled log-probabilities, found {found}")]
    Length {
        /// Which slice.
        what: &'static str,
        /// The number of sampled log-probabilities.
        expected: usize,
        /// The slice's length.
        found: usize,
    },
    /// NaN or an infinity among the inputs.
    #[error(
        "expected finite {what}, found {found} at token {token}; the model that computed it diverged or its weights are damaged"
    )]
    NotFinite {
        /// Which input.
        what: &'static str,
        /// The token's position in the completion; 0 for what has no position.
        token: usize,
        /// What was found.
        found: f64,
    },
    /// The gradient left the range of f32: the policy is far from what sampled the completion.
    #[error(
        "expected a finite gradient, found {gradient:e} at token {token} (log-ratio {log_ratio}, advantage {advantage}); lower the learning rate or the lag"
    )]
    Exploded {
        /// The token's position in the completion.
        token: usize,
        /// The derivative.
        gradient: f64,
        /// Log-probability now minus when sampled.
        log_ratio: f64,
        /// The completion's advantage.
        advantage: f64,
    },
    /// KL is asked for and there is nothing to compare with.
    #[error(
        "expected the reference policy's log-probabilities because the KL coefficient is {beta}, found none; give them, or set the coefficient to 0"
    )]
    NoReference {
        /// The KL coefficient.
        beta: f64,
    },
    /// `dpo` without anything to compare with.
    #[error(
        "expected the reference policy's log-probabilities, since dpo rewards what has become likelier than there; found none"
    )]
    NoReferenceForDpo,
    /// `dpo` was asked about one completion.
    #[error("expected a pair of completions for dpo, found one")]
    Alone,
    /// A clip range that is not one.
    #[error(
        "expected a clip range with 0 ≤ low ≤ 1 and 0 ≤ high, both finite, found low {low} and high {high}"
    )]
    ClipRange {
        /// How far below 1.
        low: f64,
        /// How far above 1.
        high: f64,
    },
    /// A KL coefficient that is not one.
    #[error("expected a finite KL coefficient of at least 0, found {found}")]
    KlBeta {
        /// What was found.
        found: f64,
    },
    /// A β of `dpo` that is not one.
    #[error("expected a finite beta above 0 for dpo, found {found}")]
    DpoBeta {
        /// What was found.
        found: f64,
    },
    /// An advantage ε that is not one.
    #[error("expected a finite advantage epsilon of at least 0, found {found}")]
    Epsilon {
        /// What was found.
        found: f64,
    },
    /// A batch of nothing.
    #[error("expected at least 1 of {what} in the batch, found 0")]
    EmptyBatch {
        /// Completions, tokens, or the token limit.
        what: &'static str,
    },
}
