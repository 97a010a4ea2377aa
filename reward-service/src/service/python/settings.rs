//! Which function to run, and what it may use.
//!
//! Invariant: a [`PythonSource`] names a file that ends in `.py`, so that it cannot be taken for the name of
//! a built-in function.

use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use crate::function::RewardRange;

/// How a function is called and what it gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `reward_function(response, ground_truth) -> float`.
    Aws,
    /// verl: `compute_score(data_source, solution_str, ground_truth, extra_info) -> float or {"score"}`.
    Verl,
    /// TRL, conversational: `reward(prompts, completions, **columns) -> list`, of messages.
    Trl,
    /// TRL, standard: the same, of strings.
    TrlText,
    /// SageMaker and Bedrock: `lambda_handler(event, context)`, the event a list of samples.
    Lambda,
    /// The same, the event `{"batch": [samples]}`.
    LambdaBatch,
}

/// A function in a Python file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonSource {
    /// The file.
    pub file: PathBuf,
    /// The function's name; without it, the one that has a known shape.
    pub function: Option<String>,
    /// Its shape; without it, the one that its signature shows.
    pub shape: Option<Shape>,
}

/// What a Python function may use.
#[derive(Clone)]
pub struct PythonSettings {
    /// What runs the file: Python 3.8 or later.
    pub interpreter: PathBuf,
    /// How many processes run it at once.
    pub workers: NonZeroUsize,
    /// How long one call may take, until its process is killed and started again.
    pub call_limit: Duration,
    /// How long loading the file may take.
    pub start_limit: Duration,
    /// Address space of one process in MiB (`RLIMIT_AS`); none for no limit.
    pub memory_mib: Option<NonZeroU64>,
    /// The rewards that the function may give; another is refused.
    pub range: RewardRange,
    /// Where each line goes that the function prints.
    pub show: Arc<dyn Fn(&str) + Send + Sync>,
}

/// A text that names no Python function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected FILE.py or FILE.py:FUNCTION, found {0:?}")]
pub struct ParseSourceError(String);

impl Shape {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Aws, Self::Verl, Self::Trl, Self::TrlText, Self::Lambda, Self::LambdaBatch];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Verl => "verl",
            Self::Trl => "trl",
            Self::TrlText => "trl-text",
            Self::Lambda => "lambda",
            Self::LambdaBatch => "lambda-batch",
        }
    }

    /// The shape of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.name() == name)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.map(Self::name).join(", ");
        Self::by_name(name).ok_or_else(|| format!("expected one of {known}, found {name:?}"))
    }
}

impl PythonSource {
    /// Whether a text is meant as one: the rest are names of built-in functions.
    pub fn is_meant(text: &str) -> bool {
        text.ends_with(".py") || text.contains(".py:") || text.contains('/')
    }
}

impl FromStr for PythonSource {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, ParseSourceError> {
        let (file, function) = match text.rsplit_once(".py:") {
            Some((stem, function)) => (format!("{stem}.py"), Some(function.to_owned())),
            None => (text.to_owned(), None),
        };
        let named = |name: &String| {
            !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_')
        };
        if !file.ends_with(".py") || file.len() == 3 || !function.iter().all(named) {
            return Err(ParseSourceError(text.to_owned()));
        }
        Ok(Self { file: file.into(), function, shape: None })
    }
}

impl Default for PythonSettings {
    fn default() -> Self {
        Self {
            interpreter: "python3".into(),
            workers: available_parallelism().unwrap_or(NonZeroUsize::MIN),
            call_limit: Duration::from_secs(10),
            start_limit: Duration::from_secs(60),
            memory_mib: NonZeroU64::new(4096),
            range: RewardRange::UNIT,
            show: Arc::new(|line| tracing::info!(line, "the reward function printed")),
        }
    }
}

impl fmt::Debug for PythonSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PythonSettings")
            .field("interpreter", &self.interpreter)
            .field("workers", &self.workers)
            .field("call_limit", &self.call_limit)
            .field("start_limit", &self.start_limit)
            .field("memory_mib", &self.memory_mib)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}
