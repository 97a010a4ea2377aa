//! Scores given answers against a data set's rows: what `octet reward try` prints.
//!
//! Invariant: answer `i` is scored against row `i`; a single answer against every row. Any other
//! number of answers is refused, never cut or repeated.

use std::{fmt, fs, io, path::Path};

use octet_dataset::Example;
use serde_json::Value;

use crate::{
    function::{RewardFunction, ScoreError, Verdict, score},
    parse::{excerpt, kind},
    tally::{Tally, write_table},
};

#[cfg(test)]
mod tests;

/// Why answers cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum TryError {
    /// The file of answers cannot be read.
    #[error("reading answers from {path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// A line is not an answer.
    #[error("{path}:{line}: expected {{\"completion\": \"…\"}}, found {found}")]
    BadAnswer {
        /// The file.
        path: String,
        /// Its line, from 1.
        line: usize,
        /// What stands there.
        found: String,
    },
    /// As many answers as there are rows, or one, is what can be scored.
    #[error("expected {rows} answers, one a row, or a single one for all rows; found {answers}")]
    Count {
        /// How many rows there are.
        rows: usize,
        /// How many answers.
        answers: usize,
    },
}

/// An answer's verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    /// The row's number in the data set, from 1.
    pub row: usize,
    /// The request it answers.
    pub request: String,
    /// The answer.
    pub answer: String,
    /// What the function says of it.
    pub verdict: Result<Verdict, ScoreError>,
}

/// The verdicts on all answers; prints as a table.
#[derive(Clone, Debug, PartialEq)]
pub struct TryTable {
    /// The reward function's name.
    pub function: String,
    /// One for each row.
    pub tried: Vec<Tried>,
    /// All of them taken together.
    pub tally: Tally,
}

/// Reads answers: a JSON object with a string `completion` on each line. Other keys, and empty lines,
/// are passed over.
pub fn read_answers(path: &Path) -> Result<Vec<String>, TryError> {
    let shown = || path.display().to_string();
    let text = fs::read_to_string(path)
        .map_err(|source| TryError::Unreadable { path: shown(), source })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let answers = lines.map(|(at, line)| {
        completion(line).map_err(|found| TryError::BadAnswer { path: shown(), line: at + 1, found })
    });
    answers.collect()
}

fn completion(line: &str) -> Result<String, String> {
    let mut row: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    match row.get_mut("completion").map(Value::take) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("{} under \"completion\"", kind(&other))),
        None if row.is_object() => Err("an object without \"completion\"".to_owned()),
        None => Err(kind(&row).to_owned()),
    }
}

/// Scores answers against rows.
pub fn try_answers(
    examples: &[Example],
    answers: &[String],
    function: &dyn RewardFunction,
) -> Result<TryTable, TryError> {
    if answers.len() != examples.len() && answers.len() != 1 {
        return Err(TryError::Count { rows: examples.len(), answers: answers.len() });
    }
    let mut tally = Tally::default();
    let tried =
        examples.iter().zip(answers.iter().cycle()).enumerate().map(|(at, (row, answer))| {
            let verdict = score(function, row, answer);
            tally.add(function, row.behaviour(), &verdict);
            Tried {
                row: at + 1,
                request: row.request().to_owned(),
                answer: answer.clone(),
                verdict,
            }
        });
    let tried = tried.collect();
    Ok(TryTable { function: function.name().to_owned(), tried, tally })
}

impl fmt::Display for TryTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>5}  {:>6}  {:18}  why", "row", "reward", "verdict")?;
        for tried in &self.tried {
            match &tried.verdict {
                Ok(Verdict { reward, label, detail }) => {
                    writeln!(f, "{:>5}  {reward:6.3}  {label:18}  {detail}", tried.row)?;
                }
                Err(error) => {
                    writeln!(f, "{:>5}  {:>6}  {:18}  {error}", tried.row, "none", error.kind())?;
                }
            }
            writeln!(f, "{:>5}  {:?}", "", excerpt(&tried.answer))?;
        }
        writeln!(f)?;
        write_table(f, &self.function, std::iter::once(("these answers", &self.tally)))?;
        for (label, count) in &self.tally.by_label {
            write!(f, "\n{count:>7} × {label}")?;
        }
        Ok(())
    }
}
