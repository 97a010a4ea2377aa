//! Users' reward functions in Python, unmodified, in the shapes that people already have.
//!
//! Invariants: user code runs in processes of its own, with a time and a memory limit, and none of its
//! failures is more than a named [`ScoreError`]. A revision does not change under a run: the file is read
//! once, and a process that finds other modules beside it than the first one did is refused.

mod pool;
mod process;
mod settings;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::{fs, io};

use octet_dataset::Example;
use serde_json::{Value, json};

use crate::function::{RewardFunction, RewardRange, ScoreError, Verdict};
use pool::Pool;
use process::Trouble;
pub use settings::{ParseSourceError, PythonSettings, PythonSource, Shape};

/// What runs in the child: only the standard library.
const RUNNER: &str = include_str!("python/runner.py");
/// Raised whenever the same file could give other rewards.
const RUNNER_VERSION: &str = "1";

/// Why a Python function cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    /// The file cannot be read.
    #[error("reading the reward function {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file holds no function that can be run.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        reason: String,
    },
    /// There is no interpreter, or it does not get as far as the file.
    #[error("{}: expected {} to run it, but it {reason}; install Python 3.8 or later, or name another interpreter", path.display(), interpreter.display())]
    NoPython {
        /// The file.
        path: PathBuf,
        /// The interpreter.
        interpreter: PathBuf,
        /// How it ended.
        reason: String,
    },
}

/// A Python function with the processes that run it.
pub struct PythonReward {
    name: String,
    shape: Shape,
    digest: String,
    range: RewardRange,
    pool: Pool,
}

/// What a process says of itself once the file is loaded.
#[derive(Debug, PartialEq)]
struct Loaded {
    function: String,
    shape: Shape,
    /// What the file imported from its own folder: path and SHA-256.
    modules: Vec<(String, String)>,
}

impl PythonReward {
    /// Loads the file in a first process, which finds the function and its shape.
    ///
    /// # Errors
    /// The file cannot be read or run, or holds no function of a known shape.
    pub fn open(source: &PythonSource, settings: PythonSettings) -> Result<Self, PythonError> {
        let path = source.file.clone();
        let unreadable = |source| PythonError::Unreadable { path: path.clone(), source };
        let text = fs::read_to_string(&path).map_err(unreadable)?;
        let file = fs::canonicalize(&path).map_err(unreadable)?;
        let range = settings.range;
        let begin = json!({
            "file": file.to_string_lossy(),
            "source": text,
            "function": source.function,
            "shape": source.shape.map(Shape::name),
            "memory": settings.memory_mib.map_or(0, |mib| mib.get() << 20),
        });
        let interpreter = settings.interpreter.clone();
        let (pool, told) = Pool::open(settings, begin).map_err(|trouble| {
            PythonError::NoPython { path: path.clone(), interpreter, reason: trouble.to_string() }
        })?;
        let loaded = Loaded::read(&told)
            .map_err(|reason| PythonError::Refused { path: path.clone(), reason })?;
        let digest = digest(&path, &text, &loaded, range);
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = format!("{stem}:{}", loaded.function);
        tracing::info!(file = %path.display(), reward = name, shape = %loaded.shape, digest, "loaded a reward function");
        let shape = loaded.shape;
        pool.expect(told);
        Ok(Self { name, shape, digest, range, pool })
    }

    /// Which shape the function has.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    fn named(&self) -> String {
        self.name.clone()
    }

    fn read(&self, told: &Value) -> Result<Verdict, ScoreError> {
        let text = |key: &str| told.get(key).and_then(Value::as_str).map(str::to_owned);
        let function = self.named();
        if let Some(kind) = text("failure") {
            let message = text("message").unwrap_or_default();
            return Err(match kind.as_str() {
                "not-a-number" => ScoreError::NotANumber { function, message },
                "bad-return" => ScoreError::BadReturn { function, message },
                "out-of-memory" => {
                    ScoreError::OutOfMemory { function, limit_mib: self.pool.memory_mib(), message }
                }
                _ => ScoreError::Threw { function, message },
            });
        }
        let reward = text("reward").and_then(|reward| reward.parse().ok());
        let reward = reward.ok_or_else(|| ScoreError::BadReturn {
            function,
            message: format!("expected a reward, found {told}"),
        })?;
        let label = text("verdict").unwrap_or_default().into();
        Ok(Verdict { reward, label, detail: text("detail").unwrap_or_default() })
    }
}

impl RewardFunction for PythonReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn digest(&self) -> String {
        self.digest.clone()
    }

    fn range(&self) -> RewardRange {
        self.range
    }

    fn score(&self, example: &Example, completion: &str) -> Result<Verdict, ScoreError> {
        let request = json!({"row": example.row(), "completion": completion});
        match self.pool.ask(&request) {
            Ok(told) => self.read(&told),
            Err(Trouble::Late(limit)) => {
                Err(ScoreError::TimedOut { function: self.named(), limit })
            }
            Err(trouble) => {
                Err(ScoreError::Crashed { function: self.named(), message: trouble.to_string() })
            }
        }
    }
}

impl Loaded {
    fn read(told: &Value) -> Result<Self, String> {
        if let Some(reason) = told.get("refused").and_then(Value::as_str) {
            return Err(reason.to_owned());
        }
        let text = |key: &str| told.get(key).and_then(Value::as_str);
        let shape = text("shape").and_then(Shape::by_name);
        let modules = serde_json::from_value(told.get("modules").cloned().unwrap_or_default());
        match (text("name"), shape, modules) {
            (Some(function), Some(shape), Ok(modules)) => {
                Ok(Self { function: function.to_owned(), shape, modules })
            }
            _ => Err(format!("expected a function and its shape, found {told}")),
        }
    }
}

/// BLAKE3 of all that the rewards depend on and that is known before the first.
fn digest(path: &Path, text: &str, loaded: &Loaded, range: RewardRange) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    field(b"octet python reward");
    field(RUNNER_VERSION.as_bytes());
    // The name matters to what the code can see of itself; where the file lies does not.
    field(path.file_name().unwrap_or_default().to_string_lossy().as_bytes());
    field(text.as_bytes());
    field(loaded.function.as_bytes());
    field(loaded.shape.name().as_bytes());
    field(&range.min.to_le_bytes());
    field(&range.max.to_le_bytes());
    for (module, sha256) in &loaded.modules {
        field(module.as_bytes());
        field(sha256.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
