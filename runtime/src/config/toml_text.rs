//! Reads TOML to assignments that remember their line.
//!
//! Invariant: what TOML can say and JSON cannot (dates, not-a-number, infinity) is refused here, so
//! that a configuration and its digest always speak of the same values.

use serde_json::{Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};
use super::layers::Assignment;

/// Every leaf of the document, one assignment each; an empty table is a leaf.
pub(super) fn assignments(name: &str, text: &str) -> Result<Vec<Assignment>, ConfigError> {
    let at = |start: usize| Origin::File { name: name.to_owned(), line: line_of(text, start) };
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        origin: at(error.span().map_or(0, |span| span.start)),
        problem: error.message().replace('\n', ", "),
    })?;
    let mut found = Vec::new();
    collect(table.get_ref(), &mut Vec::new(), &at, &mut found)?;
    Ok(found)
}

/// One value, as it stands right of an equals sign. `None` when it is not one.
pub(super) fn value(text: &str) -> Option<Value> {
    let parsed = DeValue::parse(text.trim()).ok()?;
    to_json(parsed.get_ref()).ok()
}

fn collect(
    table: &DeTable<'_>,
    path: &mut Vec<String>,
    at: &impl Fn(usize) -> Origin,
    found: &mut Vec<Assignment>,
) -> Result<(), ConfigError> {
    // The parser sorts by key; the file's own order is the one that errors should follow.
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        path.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => collect(inner, path, at, found)?,
            _ => {
                let origin = at(key.span().start);
                let value = leaf(value, path, &origin)?;
                found.push(Assignment { key: path.clone(), value, text: None, origin });
            }
        }
        path.pop();
    }
    Ok(())
}

fn leaf(
    value: &Spanned<DeValue<'_>>,
    path: &[String],
    origin: &Origin,
) -> Result<Value, ConfigError> {
    to_json(value.get_ref()).map_err(|found| ConfigError::Mismatch {
        key: path.join("."),
        origin: origin.clone(),
        expected: "text, a whole number of 64 bits, a finite number, a boolean, a list or a table"
            .to_owned(),
        found,
    })
}

/// The JSON of a value, or what it is that JSON has no form for.
fn to_json(value: &DeValue<'_>) -> Result<Value, String> {
    match value {
        DeValue::String(text) => Ok(Value::String(text.to_string())),
        DeValue::Boolean(truth) => Ok(Value::Bool(*truth)),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map(Number::from)
            .or_else(|_| u64::from_str_radix(integer.as_str(), integer.radix()).map(Number::from))
            .map(Value::Number)
            .map_err(|_| format!("the number {integer}")),
        DeValue::Float(float) => float
            .as_str()
            .parse()
            .ok()
            .and_then(Number::from_f64)
            .map(Value::Number)
            .ok_or_else(|| format!("the number {float}")),
        DeValue::Datetime(date) => Err(format!("the date {date} (put it in quotes)")),
        DeValue::Array(items) => {
            items.iter().map(|item| to_json(item.get_ref())).collect::<Result<_, _>>()
        }
        DeValue::Table(entries) => entries
            .iter()
            .map(|(key, value)| Ok((key.get_ref().to_string(), to_json(value.get_ref())?)))
            .collect::<Result<_, _>>(),
    }
}

fn line_of(text: &str, start: usize) -> usize {
    1 + text.bytes().take(start).filter(|&byte| byte == b'\n').count()
}
