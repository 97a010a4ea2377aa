//! Which reward function a command means, and what a user's may use.

use anyhow::{Context, Result, ensure};
use clap::Args;
use octet_reward_service::function::RewardRange;
use octet_reward_service::{
    PythonSettings, PythonSource, RewardFunction, RewardSource, Shape, open,
};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// A reward function.
#[derive(Args, Clone, Debug)]
pub struct SourceArgs {
    /// A built-in reward function: tool-call, aws-compat or bfcl.
    #[arg(long, default_value = "tool-call", conflicts_with = "python")]
    function: String,
    /// A reward function of your own, as it is: reward_function(response, ground_truth), verl's
    /// compute_score, TRL's reward(prompts, completions, **columns), or a lambda_handler(event, context).
    #[arg(long, value_name = "FILE.py[:FUNCTION]")]
    python: Option<PythonSource>,
    /// How it is called, where its signature does not show it: aws, verl, trl, trl-text, lambda or
    /// lambda-batch.
    #[arg(long)]
    shape: Option<Shape>,
    /// The rewards that it may give; another is refused.
    #[arg(long, value_name = "MIN..MAX", default_value = "0..1")]
    range: Range,
    /// Seconds that one call may take, until its process is killed and started again.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    time_limit: f64,
    /// Memory of each of its processes in MiB; 0 for no limit.
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    memory: u64,
    /// How many processes run it; without it, one a processor.
    #[arg(long)]
    processes: Option<NonZeroUsize>,
    /// What runs it: Python 3.8 or later.
    #[arg(long, default_value = "python3")]
    interpreter: PathBuf,
}

#[derive(Clone, Copy, Debug)]
struct Range(RewardRange);

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected MIN..MAX, for example -1..1, found {text:?}");
        let (min, max) = text.split_once("..").ok_or_else(wrong)?;
        let number = |text: &str| text.trim().parse().ok().filter(|n: &f64| n.is_finite());
        match (number(min), number(max)) {
            (Some(min), Some(max)) if min < max => Ok(Self(RewardRange { min, max })),
            _ => Err(wrong()),
        }
    }
}

impl SourceArgs {
    /// How many processes or threads score at once.
    pub fn processes(&self) -> NonZeroUsize {
        self.processes.unwrap_or_else(|| PythonSettings::default().workers)
    }

    /// How long one call may take.
    pub fn time_limit(&self) -> Duration {
        Duration::try_from_secs_f64(self.time_limit).unwrap_or(Duration::MAX)
    }

    /// The function, ready to score. What it prints goes to standard error, or to the log.
    pub fn open(&self, to_screen: bool) -> Result<Arc<dyn RewardFunction>> {
        let Some(python) = &self.python else {
            ensure!(
                self.shape.is_none(),
                "--shape says how a --python function is called: give both"
            );
            return Ok(open(&RewardSource::Builtin(self.function.clone()))?);
        };
        ensure!(
            self.time_limit > 0.0 && self.time_limit.is_finite(),
            "--time-limit: expected more than 0 seconds, found {}",
            self.time_limit
        );
        let mut settings = PythonSettings {
            interpreter: self.interpreter.clone(),
            workers: self.processes(),
            call_limit: self.time_limit(),
            memory_mib: NonZeroU64::new(self.memory),
            range: self.range.0,
            ..PythonSettings::default()
        };
        if to_screen {
            settings.show = Arc::new(|line| crate::screen::note(&format!("printed: {line}")));
        }
        let source = PythonSource { shape: self.shape, ..python.clone() };
        open(&RewardSource::Python(source, settings)).context("opening the reward function")
    }
}
