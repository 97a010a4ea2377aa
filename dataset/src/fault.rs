//! What is wrong with a row: where, what was expected, what was found.
//!
//! Invariant: a fault can be understood without the code; it always says file, line and field.

use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

/// How many faults of a file are kept; the rest are counted.
pub const FAULTS_KEPT: usize = 100;

/// A fault inside one row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: expected {expected}, found {found}")]
pub struct RowFault {
    /// The path of the field in the row, such as `reward_model.ground_truth.tool_call.name`.
    pub field: String,
    /// What the format wants there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl RowFault {
    pub(crate) fn new(field: &str, expected: impl Into<String>, found: impl Into<String>) -> Self {
        RowFault { field: field.into(), expected: expected.into(), found: found.into() }
    }
}

/// All the faults of one row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct RowFaults(pub Vec<RowFault>);

/// A fault of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {fault}", file.display())]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub fault: RowFault,
}

/// All the faults of a file: the first [`FAULTS_KEPT`], and how many there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// The faults that were kept, in the file's order; never empty.
    pub faults: Vec<Fault>,
    /// How many there are in all.
    pub count: usize,
}

impl Faults {
    /// The faults of two files together.
    pub(crate) fn joined(one: Option<Faults>, other: Option<Faults>) -> Option<Faults> {
        match (one, other) {
            (Some(mut one), Some(other)) => {
                let room = FAULTS_KEPT.saturating_sub(one.faults.len());
                one.faults.extend(other.faults.into_iter().take(room));
                one.count += other.count;
                Some(one)
            }
            (one, other) => one.or(other),
        }
    }
}

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        if self.count > self.faults.len() {
            write!(f, "\nand {} more faults", self.count - self.faults.len())?;
        }
        Ok(())
    }
}

/// A value in words short enough for one line.
pub(crate) fn found(value: &Value) -> String {
    const SHOWN: usize = 60;
    let kind = match value {
        Value::Null => return "null".into(),
        Value::Bool(_) => "the boolean",
        Value::Number(_) => "the number",
        Value::String(_) => "the text",
        Value::Array(_) => "the list",
        Value::Object(_) => "the object",
    };
    let text = value.to_string();
    if text.chars().count() <= SHOWN {
        return format!("{kind} {text}");
    }
    let short: String = text.chars().take(SHOWN).collect();
    format!("{kind} {short}…")
}
