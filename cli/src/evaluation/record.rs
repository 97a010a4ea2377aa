//! What an evaluation found, row by row: a line of JSON for each row of the data set.
//!
//! Invariant: a record can be read without the data set and without the policy, and says by a digest which row it is
//! of, so that two evaluations are compared on the rows that are the same in both, and on no others.

use super::Outcome;
use anyhow::{Context, Result};
use octet_dataset::{Example, Tool};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// The file of a run directory with the evaluation before the run.
pub const BEFORE_FILE: &str = "evaluation-before.jsonl";

/// The file of a run directory with the evaluation after the run.
pub const AFTER_FILE: &str = "evaluation-after.jsonl";

/// A row, and what the policy made of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowRecord {
    /// Its place in the data set, from 0.
    pub row: usize,
    /// BLAKE3 of its JSON, hex.
    pub example: String,
    /// What it wants: `execute`, `clarify`, …
    pub behavior: String,
    /// The last message of the user.
    pub request: String,
    /// The tools offered, by name.
    pub tools: Vec<String>,
    /// Its ground truth, as the data set has it.
    pub wanted: Value,
    /// What the policy wrote.
    pub completions: Vec<Answer>,
}

/// A completion with its reward.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// What the policy wrote.
    pub text: String,
    /// Its reward.
    pub reward: f64,
    /// The reward's label.
    pub verdict: String,
    /// The reward's line for a person.
    pub detail: String,
}

/// The lines of a file: each row that has outcomes, in their order. Outcomes are ordered by row.
///
/// # Errors
/// A value that JSON cannot hold.
pub fn lines(rows: &[Example], outcomes: &[Outcome]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for of_row in outcomes.chunk_by(|one, next| one.row == next.row) {
        let Some((row, example)) = of_row.first().and_then(|o| Some((o.row, rows.get(o.row)?)))
        else {
            continue;
        };
        let named = |tool: &Value| Some(Tool::from_value(tool, "tools").ok()?.name);
        let answer = |outcome: &Outcome| Answer {
            text: outcome.completion.clone(),
            reward: outcome.reward,
            verdict: outcome.verdict.clone(),
            detail: outcome.detail.clone(),
        };
        let record = RowRecord {
            row,
            example: blake3::hash(example.to_json().as_bytes()).to_hex().to_string(),
            behavior: example.behaviour().name().to_owned(),
            request: example.request().to_owned(),
            tools: example.tools.iter().filter_map(named).collect(),
            wanted: wanted(example).clone(),
            completions: of_row.iter().map(answer).collect(),
        };
        serde_json::to_writer(&mut text, &record).context("writing an evaluation's rows")?;
        text.push(b'\n');
    }
    Ok(text)
}

/// A row's ground truth, as it was written.
pub fn wanted(example: &Example) -> &Value {
    example.row().pointer("/reward_model/ground_truth").unwrap_or(&Value::Null)
}

/// Reads what [`lines`] wrote; `None` where there is no such file.
///
/// # Errors
/// The file cannot be read; a line that is no record, by its number.
pub fn read(path: &Path) -> Result<Option<Vec<RowRecord>>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let record = |(at, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| {
            format!(
                "{} line {}: expected a row of an evaluation; restore the file, or remove it",
                path.display(),
                at + 1
            )
        })
    };
    text.lines().enumerate().map(record).collect::<Result<_>>().map(Some)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use octet_dataset::Behaviour;

    fn outcome(row: usize, completion: &str, reward: f64) -> Outcome {
        Outcome {
            row,
            behaviour: Behaviour::Refuse,
            completion: completion.into(),
            reward,
            verdict: "refused".into(),
            detail: "as wanted".into(),
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_damage_is_named_by_its_line() {
        let row = |request: &str| {
            let row = serde_json::json!({
                "prompt": [{"role": "user", "content": request}],
                "tools": [{"type": "function", "function": {"name": "f", "description": "F.",
                           "parameters": {"type": "object", "properties": {}}}}],
                "reward_model": {"ground_truth": {"behavior": "refuse"}},
            });
            Example::from_value(row).unwrap()
        };
        let rows = [row("first"), row("second"), row("third")];
        let outcomes = [outcome(0, "a", 0.0), outcome(0, "b\n", 1.0), outcome(2, "c", 0.5)];
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(BEFORE_FILE);
        assert_eq!(read(&path).unwrap(), None);
        let mut text = lines(&rows, &outcomes).unwrap();
        std::fs::write(&path, &text).unwrap();
        let found = read(&path).unwrap().unwrap();
        assert_eq!(found.iter().map(|record| record.row).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(found[0].completions.len(), 2);
        assert_eq!(found[0].completions[1].text, "b\n");
        assert_eq!((found[1].request.as_str(), found[1].tools[0].as_str()), ("third", "f"));
        assert_eq!(found[1].wanted, serde_json::json!({"behavior": "refuse"}));
        assert_ne!(found[0].example, found[1].example);
        text.extend(b"{\"row\": 1}\n");
        std::fs::write(&path, &text).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
    }
}
