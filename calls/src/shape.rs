//! From a JSON value to calls: the shapes that models and their servers write calls in.
//!
//! Invariant: a value is a call only when a tool's name and its arguments can be read from it without
//! a guess. In a `<tool_call>` block other keys are ignored, as Hermes' and Qwen's parsers do; outside
//! one an unknown key rejects the object, or any JSON with a "name" would count as a call.

use serde_json::{Map, Value};

use super::{
    Form, ParsedCall, Reason,
    json::{excerpt, read_whole},
};

/// Keys that stand beside a call's name and arguments in OpenAI's and its imitators' messages.
const COMPANIONS: [&str; 4] = ["id", "type", "index", "call_id"];

/// Reads every call in `value`, in order; each is a call or the reason why it is none.
pub(super) fn calls(value: Value, form: Form, out: &mut Vec<Result<ParsedCall, Reason>>) {
    match value {
        Value::Array(items) if items.is_empty() => out.push(Err(Reason::EmptyList)),
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Object(object) => from_object(object, form, out),
                    other => out.push(Err(Reason::NotAnObject { found: kind(&other) })),
                }
            }
        }
        Value::Object(object) => from_object(object, form, out),
        other => out.push(Err(Reason::NotAnObject { found: kind(&other) })),
    }
}

/// A message with `tool_calls`, a `tool_call` or `function` wrapper, or the call itself.
fn from_object(
    mut object: Map<String, Value>,
    form: Form,
    out: &mut Vec<Result<ParsedCall, Reason>>,
) {
    if !object.contains_key("name") {
        match object.remove("tool_calls") {
            Some(Value::Array(items)) if items.is_empty() => {
                return out.push(Err(Reason::EmptyList));
            }
            Some(Value::Array(items)) => {
                return out.extend(items.into_iter().map(|item| match item {
                    Value::Object(item) => unwrap(item, form),
                    other => Err(Reason::NotAnObject { found: kind(&other) }),
                }));
            }
            Some(other) => return out.push(Err(Reason::NotAnObject { found: kind(&other) })),
            None => {}
        }
    }
    out.push(unwrap(object, form));
}

/// Takes off a `function` or `tool_call` wrapper, if there is one.
fn unwrap(mut object: Map<String, Value>, form: Form) -> Result<ParsedCall, Reason> {
    if !object.contains_key("name") {
        for wrapper in ["function", "tool_call"] {
            match object.remove(wrapper) {
                Some(Value::Object(inner)) => {
                    check_keys(&object, form)?;
                    return call(inner, form);
                }
                Some(other) => return Err(Reason::NotAnObject { found: kind(&other) }),
                None => {}
            }
        }
    }
    call(object, form)
}

fn call(mut object: Map<String, Value>, form: Form) -> Result<ParsedCall, Reason> {
    let name = match object.remove("name") {
        Some(Value::String(name)) if !name.trim().is_empty() => name,
        Some(Value::String(_)) => return Err(Reason::BadName { found: "an empty string" }),
        Some(other) => return Err(Reason::BadName { found: kind(&other) }),
        None => {
            let keys: Vec<_> = object.keys().take(8).map(|key| excerpt(key)).collect();
            return Err(Reason::NoName { keys: format!("{keys:?}") });
        }
    };
    let (key, value) = match (object.remove("arguments"), object.remove("parameters")) {
        (Some(_), Some(_)) => return Err(Reason::BothArguments),
        (Some(value), None) => ("arguments", value),
        (None, Some(value)) => ("parameters", value),
        (None, None) => ("arguments", Value::Null),
    };
    check_keys(&object, form)?;
    Ok(ParsedCall { name, arguments: arguments(key, value)? })
}

fn arguments(key: &'static str, value: Value) -> Result<Map<String, Value>, Reason> {
    match value {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        Value::String(text) if text.trim().is_empty() => Ok(Map::new()),
        Value::String(text) => match read_whole(&text) {
            Ok(Value::Object(map)) => Ok(map),
            Ok(other) => Err(Reason::BadArguments { key, found: kind(&other) }),
            Err(fault) => Err(Reason::BadArgumentText { key, fault }),
        },
        other => Err(Reason::BadArguments { key, found: kind(&other) }),
    }
}

fn check_keys(left: &Map<String, Value>, form: Form) -> Result<(), Reason> {
    let unknown = left.keys().find(|key| !COMPANIONS.contains(&key.as_str()));
    match unknown {
        Some(key) if form != Form::Tagged => Err(Reason::UnknownKey { key: excerpt(key) }),
        _ => Ok(()),
    }
}

/// What a value is, in words for a message.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
