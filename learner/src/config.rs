//! `[learner]` of a run's configuration, and what it resolves to.
//!
//! Invariant: a [`Recipe`] was checked as a whole, so that nothing which it says can make a step fail
//! hours later; an error names the key and says what to do.

use crate::adamw::{AdamW, AdamWError, Hyperparameters};
use crate::advantage::DEFAULT_EPSILON;
use crate::commit::Retention;
use crate::objective::{DEFAULT_DPO_BETA, Objective, ObjectiveError, PolicyLoss};
use crate::schedule::{Decay, Schedule, ScheduleError};
use octet_policy::kernel::head::Shaping;
use octet_policy::lora::FreshLora;
use serde::{Deserialize, Serialize};
use std::num::{NonZeroU64, NonZeroUsize};

/// How the policy learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LearnerConfig {
    /// What is maximised: `grpo`, `dr-grpo`, `dapo`, `rloo`, `gspo` or `cispo`; or how picked completions are
    /// learned: `dpo` or `sft`.
    pub objective: Objective,
    /// Groups that a step consumes.
    pub batch: NonZeroU64,
    /// How many versions old the sampling policy is. 0 is on-policy; 1 overlaps sampling and learning.
    pub lag: u64,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// What follows the warm-up.
    pub schedule: ScheduleName,
    /// Where a cosine ends, as a share of the learning rate.
    pub schedule_floor: f64,
    /// Decoupled weight decay; norms and biases are spared.
    pub weight_decay: f64,
    /// How slowly the means of gradients and of their squares forget.
    pub betas: [f64; 2],
    /// Keeps the optimiser's division from exploding.
    pub epsilon: f64,
    /// The global gradient norm above which gradients are scaled down; 0 never does.
    pub max_gradient_norm: f64,
    /// How far below 1 a ratio counts; the objective's own bound where there is none.
    pub clip_low: Option<f64>,
    /// How far above 1 a ratio counts; the objective's own bound where there is none.
    pub clip_high: Option<f64>,
    /// What is added to a group's standard deviation.
    pub advantage_epsilon: f64,
    /// The coefficient of the KL penalty to version 0. 0 turns it off, and saves a forward pass.
    pub kl_beta: f64,
    /// The β of `dpo`; 0.1 where there is none.
    pub beta: Option<f64>,
    /// Tokens (prompts once, completions) that are learned at once. A larger group is learned alone.
    pub micro_batch_tokens: NonZeroUsize,
    /// The largest gap between sampler and learner that a run goes on with. On the CPU the two are
    /// equal to the bit; where they run on different devices, allow for rounding.
    pub logprob_gap_max: f64,
    /// Whether groups that teach nothing are measured for the gap too, which costs their forward pass.
    pub check_inert: bool,
    /// With a lag the gap costs a forward pass with the older weights: it is measured on one group in so many, and on
    /// at least one of each step. Without a lag it costs nothing, and is measured on all.
    pub gap_every: NonZeroU64,
    /// How many of the newest commits are kept; the lag may ask for more.
    pub keep_checkpoints: NonZeroUsize,
    /// Commits whose number is a multiple of this are kept for good; 0 keeps none.
    pub keep_every: u64,
}

/// The schedules by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleName {
    /// The learning rate, for ever.
    #[default]
    Constant,
    /// Half a cosine down to the floor.
    Cosine,
}

/// What the rest of a run's configuration says that the learner depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunShape {
    /// Steps of the run.
    pub steps: NonZeroU64,
    /// Completions of a group.
    pub completions: usize,
    /// The most tokens of a completion.
    pub max_tokens: usize,
    /// The longest prompt of the data set, in tokens.
    pub longest_prompt: usize,
    /// How logits become the distribution that is sampled and learned.
    pub shaping: Shaping,
    /// The adapter that is trained instead of the weights.
    pub adapter: Option<FreshLora>,
}

/// A configuration that was checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// What the rest of the configuration says.
    pub shape: RunShape,
    /// Groups that a step consumes.
    pub batch: NonZeroU64,
    /// How many versions old the sampling policy is.
    pub lag: u64,
    /// The objective with its settings.
    pub loss: PolicyLoss,
    /// The learning rate of every step.
    pub schedule: Schedule,
    /// The optimiser's constants.
    pub hyperparameters: Hyperparameters,
    /// Tokens that are learned at once.
    pub micro_batch_tokens: usize,
    /// The largest gap between sampler and learner.
    pub logprob_gap_max: f64,
    /// Whether groups that teach nothing are measured too.
    pub check_inert: bool,
    /// With a lag, one group in so many is measured.
    pub gap_every: NonZeroU64,
    /// Which commits are kept.
    pub retention: Retention,
}

/// A `[learner]` section that cannot be run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LearnerConfigError {
    /// A key out of its range.
    #[error("key `{key}`: expected {expected}, found {found}")]
    Value {
        /// The key with its section.
        key: &'static str,
        /// Its range.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// Clip range, KL coefficient or ε.
    #[error("[learner]: {0}")]
    Objective(#[from] ObjectiveError),
    /// The learning rate's schedule.
    #[error("[learner]: {0}")]
    Schedule(#[from] ScheduleError),
    /// The optimiser's constants.
    #[error("[learner]: {0}")]
    Optimiser(#[from] AdamWError),
    /// A policy that gives some tokens no probability cannot be compared with another one.
    #[error(
        "key `sampling.{key}`: expected {expected} because `learner.{because}` compares two policies, found {found}: a token that one of them cut off has no ratio; turn one of the two off"
    )]
    CutOff {
        /// The sampling key.
        key: &'static str,
        /// The value that cuts nothing off.
        expected: &'static str,
        /// The learner's key.
        because: &'static str,
        /// What was found.
        found: String,
    },
}

impl Default for LearnerConfig {
    /// On-policy GRPO as TRL and the papers have it.
    fn default() -> Self {
        let adamw = Hyperparameters::default();
        Self {
            objective: Objective::Grpo,
            batch: NonZeroU64::MIN.saturating_add(15),
            lag: 0,
            learning_rate: 1e-6,
            warmup_steps: 0,
            schedule: ScheduleName::Constant,
            schedule_floor: 0.0,
            weight_decay: adamw.weight_decay,
            betas: [adamw.beta1, adamw.beta2],
            epsilon: adamw.epsilon,
            max_gradient_norm: adamw.max_gradient_norm.unwrap_or(0.0),
            clip_low: None,
            clip_high: None,
            advantage_epsilon: DEFAULT_EPSILON,
            kl_beta: 0.0,
            beta: None,
            micro_batch_tokens: NonZeroUsize::MIN.saturating_add(8191),
            logprob_gap_max: 0.0,
            check_inert: false,
            gap_every: NonZeroU64::MIN.saturating_add(15),
            keep_checkpoints: NonZeroUsize::MIN.saturating_add(1),
            keep_every: 0,
        }
    }
}

impl LearnerConfig {
    /// Checks the section together with the rest of the configuration.
    ///
    /// # Errors
    /// Names the key, what it may be, and what it was.
    pub fn resolve(&self, shape: &RunShape) -> Result<Recipe, LearnerConfigError> {
        check_shape(shape)?;
        self.check_objective()?;
        self.check_cut_off(shape)?;
        if !(self.logprob_gap_max.is_finite() && self.logprob_gap_max >= 0.0) {
            return Err(value(
                "learner.logprob_gap_max",
                "a finite number of at least 0",
                self.logprob_gap_max,
            ));
        }
        let settings = self
            .objective
            .settings(self.clip_low, self.clip_high, self.kl_beta)?
            .with_dpo_beta(self.beta.unwrap_or(DEFAULT_DPO_BETA))?;
        let decay = match self.schedule {
            ScheduleName::Constant => Decay::Constant,
            ScheduleName::Cosine => Decay::Cosine { floor: self.schedule_floor },
        };
        // A run that `run.steps` cuts short stays on the ramp that the recipe has.
        let total = shape.steps.get().max(self.warmup_steps);
        let hyperparameters = Hyperparameters {
            beta1: self.betas[0],
            beta2: self.betas[1],
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
            max_gradient_norm: (self.max_gradient_norm != 0.0).then_some(self.max_gradient_norm),
            muon: None,
        };
        // An optimiser of nothing checks its constants.
        AdamW::new(hyperparameters, Vec::new())?;
        Ok(Recipe {
            shape: *shape,
            batch: self.batch,
            lag: self.lag,
            loss: PolicyLoss::new(self.objective, settings, self.advantage_epsilon)?,
            schedule: Schedule::new(self.learning_rate, self.warmup_steps, total, decay)?,
            hyperparameters,
            micro_batch_tokens: self.micro_batch_tokens.get(),
            logprob_gap_max: self.logprob_gap_max,
            check_inert: self.check_inert,
            gap_every: self.gap_every,
            retention: Retention::new(
                self.keep_checkpoints,
                NonZeroU64::new(self.keep_every),
                self.lag,
            ),
        })
    }

    /// A key that the objective would not look at is refused: it was set for a reason.
    fn check_objective(&self) -> Result<(), LearnerConfigError> {
        let dpo = self.objective == Objective::Dpo;
        let refuse = |key, expected, found: String| {
            Err(value(key, expected, format!("{found} with objective \"{}\"", self.objective)))
        };
        if let (Some(beta), false) = (self.beta, dpo) {
            let expected = "no value but with objective \"dpo\", whose β it is; the KL penalty's is \
                            `learner.kl_beta`, and the optimiser's are `learner.betas`";
            return refuse("learner.beta", expected, beta.to_string());
        }
        if dpo && self.kl_beta > 0.0 {
            let expected = "0: `learner.beta` holds the policy near the reference already";
            return refuse("learner.kl_beta", expected, self.kl_beta.to_string());
        }
        for (key, bound) in
            [("learner.clip_low", self.clip_low), ("learner.clip_high", self.clip_high)]
        {
            if let (Some(bound), true) = (bound, self.objective.picks()) {
                return refuse(key, "no value: there is no ratio to clip", bound.to_string());
            }
        }
        Ok(())
    }

    /// With a lag, or with a reference, a completion is looked at by a policy that did not sample it.
    fn check_cut_off(&self, shape: &RunShape) -> Result<(), LearnerConfigError> {
        let because = match (self.lag > 0, self.kl_beta > 0.0, self.objective) {
            (true, ..) => "lag",
            (_, true, _) => "kl_beta",
            (.., Objective::Dpo) => "objective",
            _ => return Ok(()),
        };
        let error = |key, expected, found| {
            Err(LearnerConfigError::CutOff { key, expected, because, found })
        };
        if shape.shaping.top_p < 1.0 {
            return error("top_p", "1", shape.shaping.top_p.to_string());
        }
        if shape.shaping.top_k > 0 {
            return error("top_k", "0", shape.shaping.top_k.to_string());
        }
        Ok(())
    }
}

fn check_shape(shape: &RunShape) -> Result<(), LearnerConfigError> {
    if shape.completions < 2 {
        let expected = "at least 2, so that a completion has something to be compared with";
        return Err(value("sampling.completions", expected, shape.completions));
    }
    if shape.max_tokens == 0 {
        return Err(value("sampling.max_tokens", "at least 1", 0));
    }
    if !(shape.shaping.temperature.is_finite() && shape.shaping.temperature > 0.0) {
        let expected = "a number above 0: without chance all completions of a group are the same";
        return Err(value("sampling.temperature", expected, shape.shaping.temperature));
    }
    Ok(())
}

fn value(
    key: &'static str,
    expected: &'static str,
    found: impl std::fmt::Display,
) -> LearnerConfigError {
    LearnerConfigError::Value { key, expected, found: found.to_string() }
}

#[cfg(test)]
mod tests;
