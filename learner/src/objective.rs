//! Objectives: from log-probabilities to a loss and its exact gradient, token by token.
//!
//! A group's rewards say what it teaches ([`Lesson`]). Each objective is a function of one completion
//! ([`Terms`]), `dpo` of the two of a pair, its [`Settings`] and the shape of the whole step's batch
//! ([`BatchShape`]); it returns `d loss / d logprob` for each token. There is no autograd: the policy's
//! backward takes these derivatives in.
//!
//! Invariant: a completion's gradient depends on nothing but its own terms (in a pair: both) and the batch's shape, so
//! the sum over micro-batches is the whole batch's to the bit, however the step is cut. Arithmetic is
//! f64 from f32 log-probabilities, rounded once at the end; sums run in the order of the tokens.
//!
//! What differs from the papers:
//!
//! | objective | ratio | divided by | advantages | against the paper |
//! |---|---|---|---|---|
//! | `grpo` | token | the step's completion tokens | `(r − mean)/(std + ε)` | DeepSeekMath averages each completion first, which favours short right and long wrong answers; KL is off by default |
//! | `dr-grpo` | token | completions × `max_tokens` | `r − mean` | as in the paper |
//! | `dapo` | token | the step's completion tokens | as `grpo` | clip-higher and token level; dynamic sampling and length shaping are no part of an objective |
//! | `rloo` | product over the completion | completions | leave one out | clipped as in TRL; KL is a loss term (k3), not part of the reward |
//! | `gspo` | geometric mean over the completion | completions | as `grpo` | as in the paper |
//! | `cispo` | token, as a weight without gradient | the step's completion tokens | as `grpo` | as in the paper, with the cap that ScaleRL recommends |
//! | `dpo` | none | the step's pairs | none: the best and the worst of a group | the sigmoid loss as in the paper and in TRL; pairs are sampled by the policy that learns, so it is the online kind |
//! | `sft` | none | the tokens of the step's best completions | none: the best of a group | RAFT's step and Llama 2's rejection sampling, one policy version at a time; a best completion of reward 0 is not learned |
//!
//! The ratio is always taken against the log-probabilities that the sampler recorded. The KL penalty
//! to the reference is the k3 estimator, weighted per token as the objective weighs its own tokens.

mod best;
mod cispo;
mod dpo;
mod error;
mod gathered;
mod lesson;
mod name;
mod sequence;
mod settings;
mod sft;
mod tally;
mod terms;
mod token;

pub use best::best_of_group;
pub use cispo::cispo;
pub use dpo::{PairLoss, dpo};
pub use error::ObjectiveError;
pub use gathered::k3;
pub use lesson::Lesson;
pub use name::{Objective, UnknownObjective};
pub use sequence::{gspo, rloo};
pub use settings::{ClipRange, DEFAULT_DPO_BETA, Settings};
pub use sft::{SftLoss, sft};
pub use tally::{CompletionStatistics, LossStatistics, Preference, PreferenceStatistics, Tally};
pub use terms::{BatchShape, CompletionLoss, Terms};
pub use token::{dapo, dr_grpo, grpo};

use crate::advantage::GroupRewards;

/// An objective with its settings: what a run's configuration resolves to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyLoss {
    objective: Objective,
    settings: Settings,
    epsilon: f64,
}

impl PolicyLoss {
    /// `epsilon` is what is added to a group's standard deviation, where the objective divides by it.
    pub fn new(
        objective: Objective,
        settings: Settings,
        epsilon: f64,
    ) -> Result<Self, ObjectiveError> {
        if !epsilon.is_finite() || epsilon < 0.0 {
            return Err(ObjectiveError::Epsilon { found: epsilon });
        }
        Ok(Self { objective, settings, epsilon })
    }

    /// The objective's name.
    pub fn objective(&self) -> Objective {
        self.objective
    }

    /// The clip range and the KL coefficient.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Whether the log-probabilities of the policy that the run began with are needed.
    pub fn needs_reference(&self) -> bool {
        self.objective == Objective::Dpo || self.settings.kl_beta() > 0.0
    }

    /// What a group with these rewards teaches.
    pub fn lesson(&self, rewards: &GroupRewards) -> Lesson {
        self.objective.lesson(rewards, self.epsilon)
    }

    /// Whether a group with this lesson has a gradient of exactly zero: its forward and backward can
    /// be left out.
    pub fn is_inert(&self, lesson: &Lesson) -> bool {
        match lesson {
            Lesson::Nothing => true,
            // KL holds all completions of a group, whatever their rewards.
            lesson => lesson.is_nothing() && self.settings.kl_beta() == 0.0,
        }
    }

    /// The completion's share of the step's loss, and its gradient.
    ///
    /// # Errors
    /// The inputs or the gradient are not finite; or the objective is `dpo`, which wants a pair:
    /// see [`PolicyLoss::evaluate_pair`].
    pub fn evaluate(
        &self,
        terms: &Terms<'_>,
        batch: &BatchShape,
    ) -> Result<CompletionLoss, ObjectiveError> {
        let of = match self.objective {
            Objective::Grpo => grpo,
            Objective::DrGrpo => dr_grpo,
            Objective::Dapo => dapo,
            Objective::Rloo => rloo,
            Objective::Gspo => gspo,
            Objective::Cispo => cispo,
            Objective::Sft => best_of_group,
            Objective::Dpo => return Err(ObjectiveError::Alone),
        };
        of(terms, &self.settings, batch)
    }

    /// The shares of a pair's completions in the step's loss, and their gradients: those of `dpo`.
    ///
    /// # Errors
    /// There is no reference, or the gradient is not finite.
    pub fn evaluate_pair(
        &self,
        chosen: &Terms<'_>,
        rejected: &Terms<'_>,
        batch: &BatchShape,
    ) -> Result<PairLoss, ObjectiveError> {
        dpo(chosen, rejected, &self.settings, batch)
    }
}

#[cfg(test)]
mod tests;
