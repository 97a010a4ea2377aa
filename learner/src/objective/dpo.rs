//! `dpo`: direct preference optimisation (Rafailov et al., 2023) on a pair of one group.
//!
//! Invariant: both completions of a pair are pushed equally hard, in opposite directions, and never
//! harder than β.

use super::gathered::Gathered;
use super::tally::Preference;
use super::terms::{BatchShape, CompletionLoss, Terms};
use super::{ObjectiveError, Settings};

/// The shares of a pair's two completions in the step's loss. The pair's loss is the chosen one's.
#[derive(Clone, Debug, PartialEq)]
pub struct PairLoss {
    /// Of the completion that is preferred.
    pub chosen: CompletionLoss,
    /// Of the other one.
    pub rejected: CompletionLoss,
}

/// `−log σ(β·((logπ(w) − logπref(w)) − (logπ(l) − logπref(l))))` for chosen `w` and rejected `l`, with
/// log-probabilities summed over a completion's tokens, averaged over the step's pairs; `batch` has the
/// completions of all its pairs.
pub fn dpo(
    chosen: &Terms<'_>,
    rejected: &Terms<'_>,
    settings: &Settings,
    batch: &BatchShape,
) -> Result<PairLoss, ObjectiveError> {
    let beta = settings.dpo_beta();
    let preference = Preference {
        chosen_reward: beta * log_ratio(chosen)?,
        rejected_reward: beta * log_ratio(rejected)?,
    };
    let margin = preference.margin();
    let slope = -beta * sigmoid(-margin);
    let weight = batch.per_pair();
    let share = |terms: &Terms<'_>, loss: f64, slope: f64| {
        let mut gathered = Gathered::new(terms);
        gathered.loss(loss);
        (0..terms.len()).for_each(|token| gathered.slope(token, slope));
        gathered.finish(settings, weight, weight)
    };
    let mut won = share(chosen, softplus(-margin), slope)?;
    won.statistics.preference = Some(preference);
    Ok(PairLoss { chosen: won, rejected: share(rejected, 0.0, -slope)? })
}

/// `logπ − logπref` of a whole completion.
fn log_ratio(terms: &Terms<'_>) -> Result<f64, ObjectiveError> {
    let reference = terms.reference().ok_or(ObjectiveError::NoReferenceForDpo)?;
    let tokens = reference.iter().enumerate();
    Ok(tokens.map(|(token, reference)| terms.current(token) - f64::from(*reference)).sum())
}

/// `1/(1 + e^−x)`.
fn sigmoid(x: f64) -> f64 {
    // The exponent is never positive, so nothing overflows.
    let small = libm::exp(-x.abs());
    if x < 0.0 { small / (1.0 + small) } else { 1.0 / (1.0 + small) }
}

/// `log(1 + e^x) = −log σ(−x)`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + libm::log1p(libm::exp(-x.abs()))
}
