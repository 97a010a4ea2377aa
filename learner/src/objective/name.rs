//! The objectives by name, and what each one defaults to.
//!
//! Invariant: a name reads back as the objective that wrote it; an unknown one is answered with the
//! nearest.

use super::{ClipRange, Lesson, ObjectiveError, Settings};
use crate::advantage::{Estimator, GroupRewards};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What is maximised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Objective {
    /// Group-relative policy optimisation, token level.
    #[default]
    Grpo,
    /// GRPO without division by the deviation, and with a constant length.
    DrGrpo,
    /// GRPO with a higher upper clip bound.
    Dapo,
    /// REINFORCE with a leave-one-out baseline.
    Rloo,
    /// Group sequence policy optimisation.
    Gspo,
    /// Clipped importance-sampling weights.
    Cispo,
    /// Direct preference optimisation of the best completion of a group over the worst.
    Dpo,
    /// Supervised fine-tuning on the best completion of a group.
    Sft,
}

/// A name that no objective has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an objective ({}), found \"{found}\"; did you mean \"{nearest}\"?",
    Objective::names()
)]
pub struct UnknownObjective {
    /// What was found.
    pub found: String,
    /// The objective whose name is nearest to it.
    pub nearest: &'static str,
}

impl Objective {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Grpo,
        Self::DrGrpo,
        Self::Dapo,
        Self::Rloo,
        Self::Gspo,
        Self::Cispo,
        Self::Dpo,
        Self::Sft,
    ];

    /// The name used in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpo => "grpo",
            Self::DrGrpo => "dr-grpo",
            Self::Dapo => "dapo",
            Self::Rloo => "rloo",
            Self::Gspo => "gspo",
            Self::Cispo => "cispo",
            Self::Dpo => "dpo",
            Self::Sft => "sft",
        }
    }

    /// How the objective's advantages are estimated; `None` where it has none, and picks completions
    /// instead.
    pub fn estimator(self, epsilon: f64) -> Option<Estimator> {
        match self {
            Self::Grpo | Self::Dapo | Self::Gspo | Self::Cispo => {
                Some(Estimator::Normalised { epsilon })
            }
            Self::DrGrpo => Some(Estimator::Centred),
            Self::Rloo => Some(Estimator::LeaveOneOut),
            Self::Dpo | Self::Sft => None,
        }
    }

    /// Whether some completions of a group are picked, rather than all weighed by their advantages.
    /// Then no ratio is clipped either, and the step's losses are divided by what was picked.
    pub fn picks(self) -> bool {
        matches!(self, Self::Dpo | Self::Sft)
    }

    /// What a group with these rewards teaches; `epsilon` is what is added to its standard deviation,
    /// where the objective divides by it.
    pub fn lesson(self, rewards: &GroupRewards, epsilon: f64) -> Lesson {
        Lesson::of(self, rewards, epsilon)
    }

    /// The clip bounds `(low, high)` where a configuration names none: the papers' own, and for
    /// `cispo` the cap of 5 that ScaleRL recommends (TRL's `epsilon_high = 5.0`), no lower bound. An
    /// objective that picks has no ratio, and nothing looks at its bounds.
    pub fn default_clip(self) -> (f64, f64) {
        match self {
            Self::Grpo | Self::DrGrpo | Self::Rloo => (0.2, 0.2),
            Self::Dapo => (0.2, 0.28),
            Self::Gspo => (3e-4, 4e-4),
            Self::Cispo => (1.0, 4.0),
            Self::Dpo | Self::Sft => (0.0, 0.0),
        }
    }

    /// The objective's settings, with its own defaults for the bounds that are not given.
    pub fn settings(
        self,
        clip_low: Option<f64>,
        clip_high: Option<f64>,
        kl_beta: f64,
    ) -> Result<Settings, ObjectiveError> {
        let (low, high) = self.default_clip();
        let clip = ClipRange::new(clip_low.unwrap_or(low), clip_high.unwrap_or(high))?;
        Settings::new(clip, kl_beta)
    }

    fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

impl FromStr for Objective {
    type Err = UnknownObjective;

    fn from_str(text: &str) -> Result<Self, UnknownObjective> {
        if let Some(objective) = Self::ALL.into_iter().find(|objective| objective.name() == text) {
            return Ok(objective);
        }
        let found = text.to_lowercase().replace('_', "-");
        let nearest = Self::ALL
            .into_iter()
            .min_by_key(|objective| strsim::damerau_levenshtein(objective.name(), &found))
            .unwrap_or_default()
            .name();
        Err(UnknownObjective { found: text.to_owned(), nearest })
    }
}

impl TryFrom<String> for Objective {
    type Error = UnknownObjective;

    fn try_from(text: String) -> Result<Self, UnknownObjective> {
        text.parse()
    }
}

impl From<Objective> for &'static str {
    fn from(objective: Objective) -> Self {
        objective.name()
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
