//! Hermes' rows: `conversations` of `from` and `value`, the tools between `<tools>` and `</tools>` in the system
//! turn (or in a `tools` column), calls between `<tool_call>` and `</tool_call>` in the answers, and results
//! between `<tool_response>` and `</tool_response>`. Calls are JSON, or a dictionary as Python prints it.
//!
//! The system turn is dropped where the tools were taken from it: it teaches the format, and a chat template
//! says that in its own words.

use serde_json::{Map, Value};

use super::conversation::{Conversation, PlacedCall, Turn, role};
use super::{list_or_text, python, schema, trl};
use crate::example::Role;
use crate::fault::{RowFault, RowFaults, found};
use crate::truth;

pub(super) fn read(row: &Value) -> Result<Conversation, RowFaults> {
    let mut turns = turns(row)?;
    let column = list_or_text(row, "tools").map_err(|fault| RowFaults(vec![fault]))?;
    let system = turns.first().filter(|turn| turn.role == Role::System);
    let stated = system.map(|turn| stated_tools(&turn.content, "conversations[0].value"));
    let stated = stated.transpose().map_err(|fault| RowFaults(vec![fault]))?.unwrap_or_default();
    let (tools, field) = match column {
        Some(tools) if !tools.is_empty() => (tools, "tools"),
        _ => (stated.clone(), "conversations[0].value"),
    };
    if !stated.is_empty() {
        turns.remove(0);
    }
    let tools = schema::tools(&tools, field).map_err(RowFaults)?;
    let mut extra_info = Map::new();
    for key in ["id", "category", "subcategory", "task"] {
        if let Some(value) = row.get(key).filter(|value| !value.is_null()) {
            extra_info.insert(key.to_owned(), value.clone());
        }
    }
    let field = "conversations";
    Ok(Conversation { tools, turns, answers_from: 0, field, silence_refuses: false, extra_info })
}

fn turns(row: &Value) -> Result<Vec<Turn>, RowFaults> {
    let key = if row.get("conversations").is_some() { "conversations" } else { "messages" };
    let items = match row.get(key) {
        Some(Value::Array(items)) if !items.is_empty() => items,
        other => {
            let what = other.map_or("nothing".into(), found);
            let fault = RowFault::new("conversations", "a list of turns with from and value", what);
            return Err(RowFaults(vec![fault]));
        }
    };
    let (mut turns, mut faults) = (Vec::new(), Vec::new());
    for (i, item) in items.iter().enumerate() {
        match turn(item, &format!("{key}[{i}]")) {
            Ok(turn) => turns.push(turn),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(turns) } else { Err(RowFaults(faults)) }
}

/// A turn of `from` and `value`; one of `role` and `content` is read as a message.
fn turn(value: &Value, field: &str) -> Result<Turn, RowFault> {
    if value.get("from").is_none() && value.get("role").is_some() {
        return trl::message(value, field);
    }
    let mut turn = spoken(value, field)?;
    match turn.role {
        Role::Assistant => take_calls(&mut turn, &format!("{field}.value"))?,
        Role::Tool => {
            let result = between(&turn.content, "<tool_response>", "</tool_response>");
            turn.content =
                result.map_or(turn.content.trim(), |(_, inside, _)| inside.trim()).to_owned();
        }
        Role::System | Role::User => {}
    }
    Ok(turn)
}

/// Who said what in a turn of `from` and `value`.
pub(super) fn spoken(value: &Value, field: &str) -> Result<Turn, RowFault> {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let Some(speaker) = text("from").and_then(role) else {
        let wanted = "\"system\", \"human\", \"gpt\" or \"tool\"";
        let what = value.get("from").map_or("nothing".into(), found);
        return Err(RowFault::new(&format!("{field}.from"), wanted, what));
    };
    match text("value") {
        Some(content) => Ok(Turn::new(speaker, content)),
        None => {
            let what = value.get("value").map_or("nothing".into(), found);
            Err(RowFault::new(&format!("{field}.value"), "a text", what))
        }
    }
}

/// Takes the `<tool_call>` blocks out of an answer's text.
pub(super) fn take_calls(turn: &mut Turn, field: &str) -> Result<(), RowFault> {
    let mut text = String::new();
    let mut rest = turn.content.as_str();
    let mut calls = Vec::new();
    while let Some((before, inside, after)) = between(rest, "<tool_call>", "</tool_call>") {
        text.push_str(before);
        let field = format!("{field}.<tool_call>[{}]", calls.len());
        let value = json_or_python(inside.trim())
            .map_err(|why| RowFault::new(&field, "a call as JSON", why))?;
        let places = |call| PlacedCall::new(call, &field, "arguments");
        match &value {
            Value::Array(several) => {
                for call in several {
                    calls.push(places(truth::call(call, &field)?));
                }
            }
            one => calls.push(places(truth::call(one, &field)?)),
        }
        rest = after;
    }
    if calls.is_empty() {
        return Ok(());
    }
    text.push_str(rest);
    turn.content = text.trim().to_owned();
    turn.calls = calls;
    Ok(())
}

fn json_or_python(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).or_else(|error| {
        python::literal(text).map_err(|_| format!("JSON that does not parse: {error}"))
    })
}

/// The tools that a system turn states: the first block that holds any, as one list or one after the other.
fn stated_tools(text: &str, field: &str) -> Result<Vec<Value>, RowFault> {
    let mut rest = text;
    while let Some((_, inside, after)) = between(rest, "<tools>", "</tools>") {
        let inside = inside.trim();
        if inside.starts_with(['[', '{']) {
            let values = serde_json::Deserializer::from_str(inside).into_iter::<Value>();
            let values = values.collect::<Result<Vec<_>, _>>().or_else(|error| {
                let python = python::literal(inside).map(|value| vec![value]);
                python.map_err(|_| {
                    let what = format!("JSON that does not parse: {error}");
                    RowFault::new(&format!("{field}.<tools>"), "tool schemas as JSON", what)
                })
            })?;
            return Ok(values.into_iter().flat_map(one_or_several).collect());
        }
        rest = after;
    }
    Ok(Vec::new())
}

fn one_or_several(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        one => vec![one],
    }
}

/// What stands before, between and behind the first pair of tags.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let (before, rest) = text.split_once(open)?;
    let (inside, after) = rest.split_once(close)?;
    Some((before, inside, after))
}
