//! TRL's conversational rows, as its trainers and `datasets` write them.
//!
//! Language modelling (`messages`), prompt with completion (`prompt`, `completion`) and preferences (`prompt`,
//! `chosen`), each with a `tools` column: a list, or the list's JSON as a text. Messages hold `tool_calls`, or
//! `<tool_call>` blocks in their text. A prompt that is a text is one message of the user.

use serde_json::{Map, Value};

use super::conversation::{Conversation, PlacedCall, Turn, role};
use super::{hermes, list_or_text, schema};
use crate::example::Role;
use crate::fault::{RowFault, RowFaults, found};
use crate::truth;

pub(super) fn read(row: &Value) -> Result<Conversation, RowFaults> {
    let mut faults = Vec::new();
    let tools = list_or_text(row, "tools").map_err(|fault| vec![fault]);
    let tools = tools.and_then(|tools| schema::tools(&tools.unwrap_or_default(), "tools"));
    let tools = tools.map_err(|found| faults.extend(found)).unwrap_or_default();
    let (parts, field): (&[(&str, Role)], _) = if row.get("messages").is_some() {
        (&[("messages", Role::User)], "messages")
    } else if row.get("chosen").is_some() {
        (&[("prompt", Role::User), ("chosen", Role::Assistant)], "chosen")
    } else {
        (&[("prompt", Role::User), ("completion", Role::Assistant)], "completion")
    };
    let mut turns = Vec::new();
    let mut answers_from = 0;
    for (key, speaker) in parts {
        answers_from = turns.len();
        turns.extend(
            messages(row, key, *speaker).map_err(|found| faults.extend(found)).unwrap_or_default(),
        );
    }
    if !faults.is_empty() {
        return Err(RowFaults(faults));
    }
    let extra_info = Map::new();
    Ok(Conversation { tools, turns, answers_from, field, silence_refuses: false, extra_info })
}

/// The messages of a column; a text is one message of `speaker`.
fn messages(row: &Value, key: &str, speaker: Role) -> Result<Vec<Turn>, Vec<RowFault>> {
    let wanted = "a list of messages with role and content, or a text";
    match row.get(key) {
        Some(Value::Array(items)) if !items.is_empty() => {
            let (mut turns, mut faults) = (Vec::new(), Vec::new());
            for (i, item) in items.iter().enumerate() {
                match message(item, &format!("{key}[{i}]")) {
                    Ok(turn) => turns.push(turn),
                    Err(fault) => faults.push(fault),
                }
            }
            if faults.is_empty() { Ok(turns) } else { Err(faults) }
        }
        Some(Value::String(text)) => {
            let mut turn = Turn::new(speaker, text.clone());
            if speaker == Role::Assistant {
                hermes::take_calls(&mut turn, key).map_err(|fault| vec![fault])?;
            }
            Ok(vec![turn])
        }
        other => {
            let what = other.map_or("nothing".into(), found);
            Err(vec![RowFault::new(key, wanted, what)])
        }
    }
}

/// One message with `role`, `content` and perhaps `tool_calls`; `field` is where it was found.
pub(super) fn message(value: &Value, field: &str) -> Result<Turn, RowFault> {
    let Value::Object(map) = value else {
        return Err(RowFault::new(field, "a message object with role and content", found(value)));
    };
    let speaker = match map.get("role") {
        Some(Value::String(name)) => role(name),
        _ => None,
    };
    let Some(speaker) = speaker else {
        let wanted = "\"system\", \"user\", \"assistant\" or \"tool\"";
        let what = map.get("role").map_or("nothing".into(), found);
        return Err(RowFault::new(&format!("{field}.role"), wanted, what));
    };
    let mut turn = Turn::new(speaker, content(map.get("content"), field)?);
    for key in ["name", "tool_call_id", "reasoning_content"] {
        if let Some(Value::String(text)) = map.get(key) {
            turn.others.insert(key.to_owned(), text.clone().into());
        }
    }
    match map.get("tool_calls") {
        None | Some(Value::Null) => {}
        Some(Value::Array(calls)) => {
            for (i, call) in calls.iter().enumerate() {
                let field = format!("{field}.tool_calls[{i}]");
                let read = truth::call(call, &field)?;
                let field =
                    if call.get("function").is_some() { field + ".function" } else { field };
                turn.calls.push(PlacedCall::new(read, &field, "arguments"));
            }
        }
        Some(other) => {
            let field = format!("{field}.tool_calls");
            return Err(RowFault::new(&field, "a list of calls", found(other)));
        }
    }
    if speaker == Role::Assistant && turn.calls.is_empty() {
        hermes::take_calls(&mut turn, &format!("{field}.content"))?;
    }
    Ok(turn)
}

fn content(value: Option<&Value>, field: &str) -> Result<String, RowFault> {
    let field = format!("{field}.content");
    match value {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().enumerate().map(|(i, part)| {
                part.get("text").and_then(Value::as_str).ok_or_else(|| {
                    RowFault::new(&format!("{field}[{i}]"), "a part with a text", found(part))
                })
            });
            texts.collect::<Result<Vec<_>, _>>().map(|texts| texts.concat())
        }
        Some(other) => Err(RowFault::new(&field, "a text", found(other))),
    }
}
