//! What the last screen of a run shows, and `summary.json` holds.

use crate::evaluation::table::{Comparison, Report};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How fast a part of the run was, beside the machine's own speed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Tokens computed, prompts and completions, per second of work.
    pub tokens_per_second: f64,
    /// Necessary floating-point operations per second of work, in 10⁹.
    pub gflops: f64,
    /// The machine's own f32 matrix-product speed, in 10⁹ operations per second.
    pub machine_gflops: f64,
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The held-out set before the run; absent where evaluation was disabled.
    pub before: Option<Report>,
    /// The held-out set after the run.
    pub after: Option<Report>,
    /// BLAKE3 digest of the final weights.
    pub weights_digest: String,
    /// The largest gap between the sampler's and the learner's log-probability of a token, in nats,
    /// over the steps that this process took.
    pub logprob_gap_max: f64,
    /// Optimiser updates of the whole run.
    pub steps: u64,
    /// Seconds since this process began, evaluations included.
    pub wall_seconds: f64,
    /// Sampling; absent where this process sampled nothing.
    pub sampling: Option<Speed>,
    /// Learning; absent where this process learned nothing.
    pub learning: Option<Speed>,
    /// The final policy's directory.
    pub policy: String,
    /// Digest of the configuration.
    pub config_digest: String,
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = 100.0 * self.gflops / self.machine_gflops;
        write!(
            f,
            "{:>8.0} tokens/s  {:>6.1} GFLOP/s  {share:>3.0}% of the machine's {:.1}",
            self.tokens_per_second, self.gflops, self.machine_gflops
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(before), Some(after)) = (&self.before, &self.after) {
            writeln!(f, "{}", Comparison { before, after })?;
        }
        let minutes = self.wall_seconds / 60.0;
        writeln!(f, "steps        {} in {minutes:.1} minutes", self.steps)?;
        if let Some(speed) = &self.sampling {
            writeln!(f, "sampling   {speed}")?;
        }
        if let Some(speed) = &self.learning {
            writeln!(f, "learning   {speed}")?;
        }
        writeln!(f, "logprob gap  {:e} between sampler and learner", self.logprob_gap_max)?;
        write!(f, "weights      {}", self.weights_digest)
    }
}
