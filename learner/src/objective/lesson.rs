//! What a group's rewards ask of its completions.
//!
//! Invariants: pure, and a function of the rewards alone. Of completions with the same reward the one
//! with the lowest index is taken, so a group always teaches the same.

use super::Objective;
use crate::advantage::{Advantages, GroupRewards};

/// What a group teaches, and with which of its completions.
#[derive(Clone, Debug, PartialEq)]
pub enum Lesson {
    /// Every completion, by its advantage.
    Advantages(Advantages),
    /// One completion is preferred to another: the best of the group to the worst.
    Preference {
        /// The index of the best.
        chosen: usize,
        /// The index of the worst.
        rejected: usize,
    },
    /// The best completion alone, by its index.
    Best(usize),
    /// Nothing.
    Nothing,
}

impl Lesson {
    /// The lesson of a group under an objective; `epsilon` is what is added to its standard deviation
    /// where the objective divides by it.
    pub(super) fn of(objective: Objective, rewards: &GroupRewards, epsilon: f64) -> Self {
        let all = rewards.rewards();
        let first = |better: fn(f64, f64) -> bool| {
            // The earliest stays, unless another is truly better.
            (1..all.len()).fold(0, |best, at| if better(all[at], all[best]) { at } else { best })
        };
        let best = first(|one, other| one > other);
        match (objective, objective.estimator(epsilon)) {
            (_, Some(estimator)) => Self::Advantages(rewards.advantages(estimator)),
            (Objective::Dpo, None) if rewards.is_zero_variance() => Self::Nothing,
            (Objective::Dpo, None) => {
                Self::Preference { chosen: best, rejected: first(|one, other| one < other) }
            }
            (_, None) if all[best] > 0.0 => Self::Best(best),
            (_, None) => Self::Nothing,
        }
    }

    /// Whether the group has nothing to say about its completions: a gradient of exactly zero, but for
    /// a KL penalty.
    pub fn is_nothing(&self) -> bool {
        match self {
            Self::Advantages(advantages) => advantages.is_zero_variance(),
            Self::Preference { .. } | Self::Best(_) => false,
            Self::Nothing => true,
        }
    }

    /// What the completion at an index counts for: its advantage, or 1 for one that is to become
    /// likelier and −1 for one that is to become less so. `None` where it has no part.
    pub fn weight(&self, index: usize) -> Option<f64> {
        match self {
            Self::Advantages(advantages) => advantages.values().get(index).copied(),
            Self::Preference { chosen, .. } if *chosen == index => Some(1.0),
            Self::Preference { rejected, .. } if *rejected == index => Some(-1.0),
            Self::Best(best) if *best == index => Some(1.0),
            _ => None,
        }
    }

    /// What the completion at an index was picked as, where completions are picked.
    pub fn picked(&self, index: usize) -> Option<&'static str> {
        match self {
            Self::Preference { chosen, .. } if *chosen == index => Some("chosen"),
            Self::Preference { rejected, .. } if *rejected == index => Some("rejected"),
            Self::Best(best) if *best == index => Some("best"),
            _ => None,
        }
    }
}
