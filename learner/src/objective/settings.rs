//! What an objective can be told, and the clipped surrogate that follows from it.
//!
//! Invariant: a [`Settings`] was checked; its range holds 1, and its KL coefficient is not negative.

use super::ObjectiveError;

/// The range `[1 − low, 1 + high]` that ratios are clipped to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipRange {
    low: f64,
    high: f64,
}

/// The β that DPO's paper and TRL begin with.
pub const DEFAULT_DPO_BETA: f64 = 0.1;

/// What an objective can be told, checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    clip: ClipRange,
    kl_beta: f64,
    dpo_beta: f64,
}

impl ClipRange {
    /// The range `[1 − low, 1 + high]`. `low = 1` means no lower bound.
    pub fn new(low: f64, high: f64) -> Result<Self, ObjectiveError> {
        if (0.0..=1.0).contains(&low) && high.is_finite() && high >= 0.0 {
            Ok(Self { low, high })
        } else {
            Err(ObjectiveError::ClipRange { low, high })
        }
    }

    /// How far below 1 a ratio may be.
    pub fn low(&self) -> f64 {
        self.low
    }

    /// How far above 1 a ratio may be.
    pub fn high(&self) -> f64 {
        self.high
    }

    pub(super) fn clamp(&self, ratio: f64) -> f64 {
        ratio.clamp(1.0 - self.low, 1.0 + self.high)
    }

    /// `−min(ratio·A, clip(ratio)·A)`, and its derivative by the log-ratio.
    pub(super) fn surrogate(&self, log_ratio: f64, advantage: f64) -> Surrogate {
        let ratio = libm::exp(log_ratio);
        let clipped = self.clamp(ratio);
        let low = advantage < 0.0 && ratio < clipped;
        let high = advantage > 0.0 && ratio > clipped;
        let (loss, slope) = match (advantage == 0.0, low || high) {
            // An overflowed ratio times 0 would be NaN.
            (true, _) => (0.0, 0.0),
            (_, true) => (-clipped * advantage, 0.0),
            (_, false) => (-ratio * advantage, -ratio * advantage),
        };
        Surrogate { ratio, loss, slope, low, high }
    }
}

/// A ratio, what it costs, and which side of the range took its gradient away.
pub(super) struct Surrogate {
    pub ratio: f64,
    pub loss: f64,
    pub slope: f64,
    pub low: bool,
    pub high: bool,
}

impl Settings {
    /// `kl_beta` is the coefficient of the k3 penalty; 0 turns it off.
    pub fn new(clip: ClipRange, kl_beta: f64) -> Result<Self, ObjectiveError> {
        if kl_beta.is_finite() && kl_beta >= 0.0 {
            Ok(Self { clip, kl_beta, dpo_beta: DEFAULT_DPO_BETA })
        } else {
            Err(ObjectiveError::KlBeta { found: kl_beta })
        }
    }

    /// The clip range.
    pub fn clip(&self) -> ClipRange {
        self.clip
    }

    /// The coefficient of the KL penalty.
    pub fn kl_beta(&self) -> f64 {
        self.kl_beta
    }

    /// With another β for `dpo`: how strongly the policy is held near the reference.
    pub fn with_dpo_beta(self, dpo_beta: f64) -> Result<Self, ObjectiveError> {
        if dpo_beta.is_finite() && dpo_beta > 0.0 {
            Ok(Self { dpo_beta, ..self })
        } else {
            Err(ObjectiveError::DpoBeta { found: dpo_beta })
        }
    }

    /// DPO's β.
    pub fn dpo_beta(&self) -> f64 {
        self.dpo_beta
    }
}
