//! A TOML file whose keys are the flags of a command.
//!
//! Invariant: a key that is no flag is refused with the nearest one; what is read is text, as it would
//! stand on the command line, with the line that it was given on.

use std::path::Path;

use serde_json::{Map, Value};

use super::error::{ConfigError, Origin};
use super::{keys, toml_text};

/// A flag that a file gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagGiven {
    /// The flag without its dashes, e.g. `metrics-listen`.
    pub flag: String,
    /// Its value, or its values where it may be repeated.
    pub values: Vec<String>,
    /// Where it was given.
    pub origin: Origin,
}

impl FlagGiven {
    /// The error for a value that the flag does not take.
    pub fn refusal(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError::Refused {
            key: self.flag.clone(),
            origin: self.origin.clone(),
            problem: problem.into(),
        }
    }
}

/// Reads the file; `known` are the flags that there are.
///
/// # Errors
/// The file cannot be read, is not TOML, holds a key that is no flag, or a value that is no flag's.
pub fn flags<'a>(
    path: &Path,
    known: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<FlagGiven>, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let known: Map<String, Value> =
        known.into_iter().map(|flag| (flag.to_owned(), Value::Null)).collect();
    let known = Value::Object(known);
    let assignments = toml_text::assignments(&path.display().to_string(), &text)?;
    let given = assignments.into_iter().map(|assignment| {
        let flag = assignment.key.join(".");
        if known.get(&flag).is_none() {
            return Err(keys::unknown(&flag, &known, assignment.origin));
        }
        let values = match &assignment.value {
            Value::Array(items) => items.iter().map(scalar).collect(),
            single => scalar(single).map(|text| vec![text]),
        };
        let mismatch = || ConfigError::Mismatch {
            key: flag.clone(),
            origin: assignment.origin.clone(),
            expected: "text, a number, true or false, or a list of these".to_owned(),
            found: assignment.value.to_string(),
        };
        let values = values.ok_or_else(mismatch)?;
        Ok(FlagGiven { flag, values, origin: assignment.origin })
    });
    given.collect()
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Result<Vec<FlagGiven>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.toml");
        std::fs::write(&path, text).unwrap();
        flags(&path, ["listen", "reward", "metrics-listen", "insecure-network"])
            .map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_text_with_their_line() {
        let given =
            read("listen = \"127.0.0.1:1\"\n\nreward = [\"http://a:1\", \"http://b:1\"]\ninsecure-network = true\n")
                .unwrap();
        let values: Vec<_> = given.iter().map(|g| (g.flag.as_str(), g.values.clone())).collect();
        assert_eq!(values[0], ("listen", vec!["127.0.0.1:1".to_owned()]));
        assert_eq!(values[1].1.len(), 2);
        assert_eq!(values[2], ("insecure-network", vec!["true".to_owned()]));
        assert!(given[1].refusal("no").to_string().contains("node.toml:3"), "{given:?}");
    }

    #[test]
    fn a_key_that_is_no_flag_is_answered_with_the_nearest() {
        let error = read("listen = \"x\"\nmetrics_listn = \"off\"\n").unwrap_err();
        assert!(error.contains("node.toml:2"), "{error}");
        assert!(error.contains("did you mean `metrics-listen`?"), "{error}");
        let error = read("[network]\nlisten = \"x\"\n").unwrap_err();
        assert!(error.contains("network.listen") && error.contains("did you mean `listen`?"));
        assert!(read("listen = [[1]]\n").unwrap_err().contains("a list of these"));
        assert!(read("listen = {}\n").unwrap_err().contains("a list of these"));
    }
}
