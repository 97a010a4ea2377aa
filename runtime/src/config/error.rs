//! Configuration errors: one line each, with the place, what was expected and what was found.

use std::fmt;
use std::path::PathBuf;

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// A line of a file.
    File {
        /// The file's name as it was given.
        name: String,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// A `--set` argument.
    Set {
        /// The argument.
        argument: String,
    },
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{origin}: not valid TOML: {problem}")]
    Syntax {
        /// File and line.
        origin: Origin,
        /// What the parser says.
        problem: String,
    },
    /// A `--set` argument or an environment variable that names no key.
    #[error("{origin}: {problem}: expected section.key=value")]
    Assignment {
        /// The argument or variable.
        origin: Origin,
        /// What is wrong with it.
        problem: String,
    },
    /// A key that does not exist.
    #[error("unknown key `{key}` (from {origin}): {hint}")]
    UnknownKey {
        /// The key as it was given.
        key: String,
        /// Where.
        origin: Origin,
        /// The nearest key, or those that there are.
        hint: String,
    },
    /// A value that the key does not take.
    #[error("key `{key}` (from {origin}): expected {expected}, found {found}")]
    Mismatch {
        /// The key.
        key: String,
        /// Where its value was given.
        origin: Origin,
        /// What it takes.
        expected: String,
        /// What it was given.
        found: String,
    },
    /// A value that the key refuses for a reason of its own.
    #[error("key `{key}` (from {origin}): {problem}")]
    Refused {
        /// The key.
        key: String,
        /// Where its value was given.
        origin: Origin,
        /// The reason.
        problem: String,
    },
    /// A configuration that cannot be written out. This is a fault of its type, not of its values.
    #[error("cannot write the configuration out: {problem}")]
    Unwritable {
        /// What stands in the way.
        problem: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the defaults"),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
            Self::Set { argument } => write!(f, "--set {argument}"),
        }
    }
}

/// The error for what serde said about the value at `key`.
pub(super) fn rejected(key: &str, origin: Origin, message: &str) -> ConfigError {
    let key = if key.is_empty() { "(the whole configuration)" } else { key }.to_owned();
    let mismatch = ["invalid type: ", "invalid value: ", "invalid length "]
        .iter()
        .find_map(|prefix| message.strip_prefix(prefix))
        .or_else(|| message.starts_with("unknown variant").then_some(message))
        .and_then(|rest| rest.split_once(", expected "));
    match mismatch {
        Some((found, expected)) => {
            ConfigError::Mismatch { key, origin, expected: expected.into(), found: found.into() }
        }
        None => ConfigError::Refused { key, origin, problem: message.to_owned() },
    }
}
