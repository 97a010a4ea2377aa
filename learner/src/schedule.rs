//! The learning rate of a step: linear warm-up, then constant or cosine.
//!
//! Invariant: a pure function of the step's index; never negative, never above the peak.
//!
//! Steps count from 0 and the first has a rate above 0: warm-up over `w` steps gives
//! `peak·(k + 1)/w`. (Hugging Face's schedules start at 0, which wastes a step.) The cosine is theirs:
//! from the peak at the end of the warm-up towards the floor at `total_steps`.

/// What follows the warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decay {
    /// The peak, for ever.
    Constant,
    /// Half a cosine from the peak to `floor` (a share of the peak, 0 to 1).
    Cosine {
        /// What is left at the end, as a share of the peak.
        floor: f64,
    },
}

/// A checked schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    peak: f64,
    warmup_steps: u64,
    total_steps: u64,
    decay: Decay,
}

/// A schedule that makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// The peak learning rate.
    #[error("expected a finite learning rate of at least 0, found {found}")]
    Peak {
        /// What was found.
        found: f64,
    },
    /// The floor of the cosine.
    #[error("expected the learning rate's floor as a share of its peak, 0 to 1, found {found}")]
    Floor {
        /// What was found.
        found: f64,
    },
    /// Warm-up that outlasts the run.
    #[error(
        "expected at most {total_steps} warm-up steps, as many as the run has, found {warmup_steps}"
    )]
    Warmup {
        /// Steps of warm-up.
        warmup_steps: u64,
        /// Steps of the run.
        total_steps: u64,
    },
}

impl Schedule {
    /// Checks the numbers of a schedule.
    pub fn new(
        peak: f64,
        warmup_steps: u64,
        total_steps: u64,
        decay: Decay,
    ) -> Result<Self, ScheduleError> {
        if !peak.is_finite() || peak < 0.0 {
            return Err(ScheduleError::Peak { found: peak });
        }
        if let Decay::Cosine { floor } = decay
            && !(0.0..=1.0).contains(&floor)
        {
            return Err(ScheduleError::Floor { found: floor });
        }
        if warmup_steps > total_steps {
            return Err(ScheduleError::Warmup { warmup_steps, total_steps });
        }
        Ok(Self { peak, warmup_steps, total_steps, decay })
    }

    /// The learning rate of step `step`, counted from 0.
    pub fn learning_rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * ((step + 1) as f64 / self.warmup_steps as f64);
        }
        match self.decay {
            Decay::Constant => self.peak,
            Decay::Cosine { floor } => {
                let length = (self.total_steps - self.warmup_steps).max(1) as f64;
                let progress = ((step - self.warmup_steps) as f64 / length).min(1.0);
                let cosine = 0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress));
                self.peak * (floor + (1.0 - floor) * cosine)
            }
        }
    }
}

#[cfg(test)]
mod tests;
