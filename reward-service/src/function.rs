//! What a reward function is, and the one way to call it.
//!
//! Invariant: no reward leaves [`score`] that is not finite and within the function's range, and no panic
//! of a function passes it: each is a named [`ScoreError`].

use std::{
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use octet_dataset::Example;

/// The rewards that a function can give, both ends included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RewardRange {
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl RewardRange {
    /// From 0 to 1.
    pub const UNIT: Self = Self { min: 0.0, max: 1.0 };

    /// Whether a reward lies in it.
    pub fn contains(&self, reward: f64) -> bool {
        (self.min..=self.max).contains(&reward)
    }
}

/// What a function says of a completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The reward.
    pub reward: f64,
    /// A short, stable label: see [`crate::labels`].
    pub label: Cow<'static, str>,
    /// One line for a person: what was expected and what was found.
    pub detail: String,
}

impl Verdict {
    /// A verdict with one of the labels that are known beforehand.
    pub fn new(reward: f64, label: &'static str, detail: impl Into<String>) -> Self {
        Self { reward, label: Cow::Borrowed(label), detail: detail.into() }
    }
}

/// Scores completions. The same example and completion always give the same verdict, on every machine.
pub trait RewardFunction: Send + Sync {
    /// What people call it.
    fn name(&self) -> &str;

    /// Changes whenever the same request could get another reward. Hex.
    fn digest(&self) -> String;

    /// The rewards it can give.
    fn range(&self) -> RewardRange;

    /// Scores one completion. Callers use [`score`] instead, which holds the function to its promises.
    fn score(&self, example: &Example, completion: &str) -> Result<Verdict, ScoreError>;
}

/// Why there is no reward.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScoreError {
    /// The example's row cannot be read.
    #[error("reading example_json: {0}")]
    BadExample(String),
    /// NaN or infinity.
    #[error("{function}: expected a finite reward, found {reward}; mend the reward function")]
    NotFinite {
        /// The function's name.
        function: String,
        /// What it gave.
        reward: f64,
    },
    /// Outside the range that the function describes.
    #[error(
        "{function}: expected a reward from {} to {}, found {reward}; mend the function or its range",
        range.min, range.max
    )]
    OutOfRange {
        /// The function's name.
        function: String,
        /// What it gave.
        reward: f64,
        /// What it describes.
        range: RewardRange,
    },
    /// The function failed or panicked.
    #[error("{function}: expected a reward, but the function threw: {message}")]
    Threw {
        /// The function's name.
        function: String,
        /// What it said.
        message: String,
    },
    /// Something that is no number.
    #[error("{function}: {message}; return a number")]
    NotANumber {
        /// The function's name.
        function: String,
        /// What was expected and found.
        message: String,
    },
    /// Something that the function's shape does not allow.
    #[error("{function}: {message}; return what the shape says, or name another shape")]
    BadReturn {
        /// The function's name.
        function: String,
        /// What was expected and found.
        message: String,
    },
    /// The function wanted more memory than it may have.
    #[error(
        "{function}: expected at most {limit_mib} MiB of memory in use, found a function that wants more; raise the limit or mend it: {message}"
    )]
    OutOfMemory {
        /// The function's name.
        function: String,
        /// What it may have.
        limit_mib: u64,
        /// What it said.
        message: String,
    },
    /// The process that runs the function ended, or could not be started.
    #[error("{function}: expected a reward, but the process that runs the function {message}")]
    Crashed {
        /// The function's name.
        function: String,
        /// How it ended, and the last that it wrote.
        message: String,
    },
    /// The function did not answer in time.
    #[error(
        "{function}: expected a reward within {limit:?}, found none; the function hangs or is overloaded"
    )]
    TimedOut {
        /// The function's name.
        function: String,
        /// How long it was given.
        limit: Duration,
    },
}

impl ScoreError {
    /// A stable name, as the wire has it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::BadExample(_) => "bad-example",
            Self::NotFinite { .. } => "not-finite",
            Self::OutOfRange { .. } => "out-of-range",
            Self::Threw { .. } => "threw",
            Self::NotANumber { .. } => "not-a-number",
            Self::BadReturn { .. } => "bad-return",
            Self::OutOfMemory { .. } => "out-of-memory",
            Self::Crashed { .. } => "crashed",
            Self::TimedOut { .. } => "timed-out",
        }
    }

    /// Whether the same request may succeed when sent again. Functions are deterministic, so only
    /// what may be the machine's doing can pass: lateness, and a process that ended.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::Crashed { .. })
    }
}

/// Scores a completion and checks the result.
pub fn score(
    function: &dyn RewardFunction,
    example: &Example,
    completion: &str,
) -> Result<Verdict, ScoreError> {
    let name = || function.name().to_owned();
    let verdict = catch_unwind(AssertUnwindSafe(|| function.score(example, completion)))
        .unwrap_or_else(|panic| {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("a panic without a message");
            Err(ScoreError::Threw { function: name(), message: message.to_owned() })
        })?;
    let (reward, range) = (verdict.reward, function.range());
    if !reward.is_finite() {
        return Err(ScoreError::NotFinite { function: name(), reward });
    }
    if !range.contains(reward) {
        return Err(ScoreError::OutOfRange { function: name(), reward, range });
    }
    Ok(verdict)
}

/// The digest of a built-in function: BLAKE3 of its name and of a version that is raised by hand whenever
/// the same request could get another reward.
pub fn builtin_digest(name: &str, version: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes()).update(b"\0").update(version.as_bytes());
    hasher.finalize().to_hex().to_string()
}
