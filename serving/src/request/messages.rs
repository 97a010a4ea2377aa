//! The conversation of a request, as chat templates read it.
//!
//! Invariant: a message that comes out has a known role, a string or nothing as content, and calls whose
//! arguments are objects; keys that templates do not read are gone.

use super::MOST_MESSAGES;
use super::fields::{Fields, describe};
use crate::error::Refusal;
use serde_json::{Map, Value, json};

const ROLES: &str = "system, developer, user, assistant or tool";

pub(super) fn read(value: Option<Value>) -> Result<Vec<Value>, Refusal> {
    let expected = format!("a list of 1 to {MOST_MESSAGES} messages");
    match value {
        Some(Value::Array(items)) if (1..=MOST_MESSAGES).contains(&items.len()) => {
            items.into_iter().enumerate().map(|(at, item)| message(at, item)).collect()
        }
        other => {
            Err(Refusal::parameter("messages", expected, describe(&other.unwrap_or(Value::Null))))
        }
    }
}

fn message(at: usize, value: Value) -> Result<Value, Refusal> {
    let Value::Object(object) = value else {
        return Err(Refusal::parameter(format!("messages[{at}]"), "an object", describe(&value)));
    };
    let mut fields = Fields::new(object, format!("messages[{at}]."));
    let role = fields.name("role")?;
    let role = match role.as_str() {
        // What OpenAI renamed; templates know the old name.
        "developer" => "system",
        "system" | "user" | "assistant" | "tool" => &role,
        other => return Err(fields.refuse("role", ROLES, &json!(other))),
    };
    let mut message = Map::new();
    message.insert("role".into(), role.into());
    let content = content(&mut fields)?;
    let calls = match fields.take("tool_calls") {
        None => Vec::new(),
        Some(_) if role != "assistant" => {
            let found = format!("them in a message of role {role}");
            return Err(Refusal::parameter(fields.at("tool_calls"), "none", found));
        }
        Some(value) => calls(&fields.at("tool_calls"), value)?,
    };
    match content {
        Some(text) => drop(message.insert("content".into(), text.into())),
        None if role == "assistant" && !calls.is_empty() => {
            // Templates join it to strings.
            message.insert("content".into(), "".into());
        }
        None => {
            return Err(fields.refuse(
                "content",
                "a string, or a list of text parts",
                &Value::Null,
            ));
        }
    }
    if let Some(other) = fields.take("function_call") {
        return Err(fields.refuse("function_call", "tool_calls in its place", &other));
    }
    if !calls.is_empty() {
        message.insert("tool_calls".into(), calls.into());
    }
    for key in ["name", "tool_call_id", "reasoning_content"] {
        if let Some(text) = fields.string(key)? {
            message.insert(key.into(), text.into());
        }
    }
    Ok(Value::Object(message))
}

/// A string, or text parts joined to one.
fn content(fields: &mut Fields) -> Result<Option<String>, Refusal> {
    let parts = match fields.take("content") {
        None => return Ok(None),
        Some(Value::String(text)) => return Ok(Some(text)),
        Some(Value::Array(parts)) => parts,
        Some(other) => {
            return Err(fields.refuse("content", "a string, or a list of text parts", &other));
        }
    };
    let mut text = String::new();
    for (at, part) in parts.iter().enumerate() {
        let words = (part["type"] == "text").then(|| part["text"].as_str()).flatten();
        text.push_str(words.ok_or_else(|| {
            let expected =
                "{\"type\": \"text\", \"text\": \"…\"}: the model reads nothing but text";
            fields.refuse(&format!("content[{at}]"), expected, part)
        })?);
    }
    Ok(Some(text))
}

fn calls(path: &str, value: Value) -> Result<Vec<Value>, Refusal> {
    let Value::Array(items) = value else {
        return Err(Refusal::parameter(path, "a list of calls", describe(&value)));
    };
    items.into_iter().enumerate().map(|(at, item)| call(&format!("{path}[{at}]"), item)).collect()
}

fn call(path: &str, value: Value) -> Result<Value, Refusal> {
    let Value::Object(object) = value else {
        return Err(Refusal::parameter(path, "an object", describe(&value)));
    };
    let mut fields = Fields::new(object, format!("{path}."));
    let id = fields.string("id")?.unwrap_or_default();
    let function = match fields.take("function") {
        Some(Value::Object(function)) => function,
        other => {
            return Err(fields.refuse("function", "an object", &other.unwrap_or(Value::Null)));
        }
    };
    let mut function = Fields::new(function, format!("{path}.function."));
    let name = function.name("name")?;
    let arguments = match function.take("arguments") {
        None => Map::new(),
        Some(Value::Object(arguments)) => arguments,
        // As OpenAI has it; templates want what the string holds.
        Some(Value::String(text)) if text.trim().is_empty() => Map::new(),
        Some(Value::String(text)) => match serde_json::from_str(&text) {
            Ok(Value::Object(arguments)) => arguments,
            _ => {
                let expected = "a JSON object in a string";
                return Err(function.refuse("arguments", expected, &Value::String(text)));
            }
        },
        Some(other) => {
            return Err(function.refuse("arguments", "a JSON object in a string", &other));
        }
    };
    Ok(json!({
        "id": id,
        "type": "function",
        "function": { "name": name, "arguments": arguments },
    }))
}
