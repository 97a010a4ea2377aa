//! Importers: other people's files of function calls, read into octet's rows.
//!
//! Each format reads a row into a [`conversation::Conversation`] (tools, turns, calls), and one place makes
//! examples of those; the leaderboard's files, which have accepted values instead of answers, are read by
//! [`import_bfcl`].
//!
//! Invariant: a fault names the file, line and field of the source, not of the row that would have been made; a
//! source row gives all its examples or a fault, and whatever is left out on purpose is counted.

mod bfcl;
mod conversation;
mod hermes;
mod python;
mod schema;
mod toolace;
mod trl;
mod xlam;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

pub use bfcl::{BFCL_CATEGORIES, import_bfcl};

use crate::example::Example;
use crate::fault::{Faults, RowFault, RowFaults, found};
use crate::load::{json_fault, read_rows};
use conversation::Conversation;

/// A format of files that hold one conversation or question a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TRL's conversational rows: `messages`, or `prompt` with `completion` or `chosen`; and `tools`.
    Trl,
    /// xLAM's rows: `query`, `tools`, `answers`.
    Xlam,
    /// ToolACE's rows: `system` with the tools in it, `conversations` with calls like `[f(a=1)]`.
    ToolAce,
    /// Hermes' rows: `conversations` with `<tools>` in the system turn and `<tool_call>` in the answers.
    Hermes,
}

impl Format {
    /// The name on the command line, and the `data_source` of the rows.
    pub fn name(self) -> &'static str {
        match self {
            Format::Trl => "trl",
            Format::Xlam => "xlam",
            Format::ToolAce => "toolace",
            Format::Hermes => "hermes",
        }
    }

    fn read(self, row: &Value) -> Result<Conversation, RowFaults> {
        match self {
            Format::Trl => trl::read(row),
            Format::Xlam => xlam::read(row),
            Format::ToolAce => toolace::read(row),
            Format::Hermes => hermes::read(row),
        }
    }
}

/// What a file gave.
#[derive(Debug, Default)]
pub struct Imported {
    /// The examples, in the source's order.
    pub rows: Vec<Example>,
    /// What is wrong with the rows that gave none.
    pub faults: Option<Faults>,
    /// How much was left out on purpose, by why.
    pub left_out: BTreeMap<String, usize>,
    /// What a person should know of the rows.
    pub notes: Vec<String>,
}

/// Reads a file of this format: JSON lines or one JSON array.
///
/// An answer that calls nothing becomes a row that wants its text where `text_answers` says so; otherwise it is
/// left out and counted. A null for a parameter that may be left out is left out: tables of columns write one
/// wherever another row has a value.
pub fn import(format: Format, path: &Path, text_answers: bool) -> Imported {
    let mut imported = Imported::default();
    let Imported { rows, left_out, .. } = &mut imported;
    let faults = read_rows(path, &mut |text| {
        let row = object(text)?;
        let made = format.read(&row)?.examples(format.name(), text_answers)?;
        rows.extend(made.examples);
        for (why, count) in made.left_out {
            *left_out.entry(why.to_owned()).or_default() += count;
        }
        Ok(())
    });
    imported.faults = faults;
    imported
}

/// A row's JSON object.
fn object(text: &str) -> Result<Value, RowFaults> {
    let row: Value =
        serde_json::from_str(text).map_err(|error| RowFaults(vec![json_fault(text, &error)]))?;
    if row.is_object() {
        return Ok(row);
    }
    Err(RowFaults(vec![RowFault::new("row", "an object", found(&row))]))
}

/// A list under a key, where a column may also hold the list's JSON as a text. Nothing where there is none.
fn list_or_text(row: &Value, key: &str) -> Result<Option<Vec<Value>>, RowFault> {
    let wanted = "a list, or a list's JSON as a text";
    match row.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items.clone())),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => match serde_json::from_str(text) {
            Ok(Value::Array(items)) => Ok(Some(items)),
            Ok(Value::Null) => Ok(None),
            Ok(other) => Err(RowFault::new(key, wanted, found(&other))),
            Err(error) => {
                Err(RowFault::new(key, wanted, format!("JSON that does not parse: {error}")))
            }
        },
        Some(other) => Err(RowFault::new(key, wanted, found(other))),
    }
}
