//! Group-relative advantages: how much better a completion is than its own group.
//!
//! Invariants: a group's advantages depend on that group's rewards alone; a group whose rewards are
//! all equal has advantages of exactly 0.0 and says so; nothing here is ever NaN or infinite.
//!
//! The standard deviation is the *sample* one (divisor `n − 1`), as in TRL and verl, and `ε` is
//! added to it, not to the variance. The DeepSeekMath paper does not say which it used; with eight
//! completions the choice scales every advantage by 0.935.

/// The ε that TRL adds to the standard deviation.
pub const DEFAULT_EPSILON: f64 = 1e-4;

/// How rewards become advantages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Estimator {
    /// `(r − mean) / (std + ε)`.
    Normalised {
        /// Keeps groups with little variance from being blown up without bound.
        epsilon: f64,
    },
    /// `r − mean`: no division, so hard and easy prompts weigh the same (Dr. GRPO).
    Centred,
    /// `r −` the mean of the *other* rewards: an unbiased baseline (RLOO).
    LeaveOneOut,
}

/// The rewards of one group, known to be usable.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupRewards {
    rewards: Vec<f64>,
    mean: f64,
    std: f64,
}

/// One advantage per completion, in the order of the samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Advantages {
    values: Vec<f64>,
    zero_variance: bool,
}

/// Rewards that no advantage can be computed from.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RewardsError {
    /// A group needs company: with one completion there is nothing to compare.
    #[error(
        "expected the rewards of at least 2 completions, found {found}; sample more completions per prompt"
    )]
    TooFew {
        /// How many rewards there were.
        found: usize,
    },
    /// NaN or an infinity.
    #[error(
        "expected a finite reward for sample {sample}, found {reward}; mend the reward function that gave it"
    )]
    NotFinite {
        /// The position in the group.
        sample: usize,
        /// What was found there.
        reward: f64,
    },
    /// Finite rewards whose variance is not.
    #[error(
        "expected rewards whose variance is a finite number, found rewards from {lowest:e} to {highest:e}; scale the reward"
    )]
    Overflow {
        /// The smallest reward.
        lowest: f64,
        /// The largest reward.
        highest: f64,
    },
}

impl GroupRewards {
    /// Checks the rewards of a group: at least two, all finite.
    pub fn new(rewards: Vec<f64>) -> Result<Self, RewardsError> {
        if rewards.len() < 2 {
            return Err(RewardsError::TooFew { found: rewards.len() });
        }
        if let Some(sample) = rewards.iter().position(|reward| !reward.is_finite()) {
            return Err(RewardsError::NotFinite { sample, reward: rewards[sample] });
        }
        let count = rewards.len() as f64;
        let mean = rewards.iter().sum::<f64>() / count;
        let squares: f64 = rewards.iter().map(|reward| (reward - mean) * (reward - mean)).sum();
        if !squares.is_finite() {
            let lowest = rewards.iter().copied().fold(f64::INFINITY, f64::min);
            let highest = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            return Err(RewardsError::Overflow { lowest, highest });
        }
        Ok(Self { rewards, mean, std: (squares / (count - 1.0)).sqrt() })
    }

    /// The rewards, in the order of the samples.
    pub fn rewards(&self) -> &[f64] {
        &self.rewards
    }

    /// The mean of the group.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// The sample standard deviation of the group.
    pub fn std(&self) -> f64 {
        self.std
    }

    /// Whether all rewards are equal, so that there is nothing to learn from the group.
    pub fn is_zero_variance(&self) -> bool {
        self.rewards.iter().all(|reward| *reward == self.rewards[0])
    }

    /// The advantages of the group.
    pub fn advantages(&self, estimator: Estimator) -> Advantages {
        let zero_variance = self.is_zero_variance();
        let value = |reward: &f64| match estimator {
            // The rounded mean of equal rewards need not be equal to them: no arithmetic here.
            _ if zero_variance => 0.0,
            Estimator::Normalised { epsilon } => (reward - self.mean) / (self.std + epsilon),
            Estimator::Centred => reward - self.mean,
            Estimator::LeaveOneOut => self.leave_one_out(*reward),
        };
        Advantages { values: self.rewards.iter().map(value).collect(), zero_variance }
    }

    /// `r − (n·mean − r)/(n − 1)`, rearranged so that the sum is not recomputed per sample.
    fn leave_one_out(&self, reward: f64) -> f64 {
        let count = self.rewards.len() as f64;
        (reward - self.mean) * (count / (count - 1.0))
    }
}

impl Advantages {
    /// One value per completion, in the order of the samples.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Whether all rewards were equal: every value is exactly 0.0.
    pub fn is_zero_variance(&self) -> bool {
        self.zero_variance
    }
}

#[cfg(test)]
mod tests;
