//! What an example wants: calls, a question, a refusal, or a text.
//!
//! Invariant: all the written forms of one ground truth give the same [`GroundTruth`].

use serde_json::{Map, Value};

use crate::fault::{RowFault, found};
use crate::possible::PossibleCall;

/// One call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The tool's name.
    pub name: String,
    /// The arguments, in the order they were written.
    pub arguments: Map<String, Value>,
}

/// What the right answer is.
#[derive(Debug, Clone, PartialEq)]
pub enum GroundTruth {
    /// These calls, as a multiset; never empty.
    Calls(Vec<Call>),
    /// These calls, as a multiset, each with the values accepted for its parameters; never empty.
    Possible(Vec<PossibleCall>),
    /// A question that names what is missing.
    Clarify {
        /// The parameters that the request lacks.
        missing: Vec<String>,
    },
    /// A refusal without a call.
    Refuse,
    /// This text.
    Text(String),
}

/// What kind of answer an example wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Behaviour {
    /// Call the right tool.
    Execute,
    /// Ask for what is missing.
    Clarify,
    /// Say no.
    Refuse,
    /// Answer in words; only rows from elsewhere have this one.
    Text,
}

impl Behaviour {
    /// The name used in rows, metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            Behaviour::Execute => "execute",
            Behaviour::Clarify => "clarify",
            Behaviour::Refuse => "refuse",
            Behaviour::Text => "text",
        }
    }
}

impl std::fmt::Display for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

const FORMS: &str = "{\"tool_call\": {\"name\", \"parameters\"}}, {\"tool_calls\": [...]}, \
    [{\"name\", \"arguments\"}], {\"possible_calls\": [...]}, {\"behavior\": \"clarify\", \"missing\": [...]}, \
    {\"behavior\": \"refuse\"}, or a text";

impl GroundTruth {
    /// The behaviour that this ground truth asks for.
    pub fn behaviour(&self) -> Behaviour {
        match self {
            GroundTruth::Calls(_) | GroundTruth::Possible(_) => Behaviour::Execute,
            GroundTruth::Clarify { .. } => Behaviour::Clarify,
            GroundTruth::Refuse => Behaviour::Refuse,
            GroundTruth::Text(_) => Behaviour::Text,
        }
    }

    /// Reads any of the documented forms; `field` is where the value was found.
    pub fn from_value(value: &Value, field: &str) -> Result<Self, RowFault> {
        match value {
            Value::String(text) => Self::from_text(text, field),
            Value::Object(map) => Self::from_object(map, field),
            Value::Array(items) => calls(items, field).map(GroundTruth::Calls),
            other => Err(RowFault::new(field, FORMS, found(other))),
        }
    }

    /// The canonical JSON of this ground truth.
    pub fn to_value(&self) -> Value {
        fn call(call: &Call) -> Value {
            serde_json::json!({"name": call.name, "parameters": call.arguments})
        }
        match self {
            GroundTruth::Calls(calls) => match calls.as_slice() {
                [only] => serde_json::json!({"tool_call": call(only)}),
                several => {
                    serde_json::json!({"tool_calls": several.iter().map(call).collect::<Vec<_>>()})
                }
            },
            GroundTruth::Possible(calls) => {
                let calls: Vec<_> = calls.iter().map(PossibleCall::to_value).collect();
                serde_json::json!({"possible_calls": calls})
            }
            GroundTruth::Clarify { missing } => {
                serde_json::json!({"behavior": "clarify", "missing": missing})
            }
            GroundTruth::Refuse => serde_json::json!({"behavior": "refuse"}),
            GroundTruth::Text(text) => Value::String(text.clone()),
        }
    }

    fn from_text(text: &str, field: &str) -> Result<Self, RowFault> {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(RowFault::new(field, FORMS, "an empty text"));
        }
        if !trimmed.starts_with(['{', '[']) {
            return Ok(GroundTruth::Text(text.to_owned()));
        }
        match serde_json::from_str::<Value>(trimmed) {
            Ok(Value::Object(map)) if !is_truth(&map) => Ok(GroundTruth::Text(text.to_owned())),
            Ok(Value::Array(items)) if !items.iter().all(Value::is_object) || items.is_empty() => {
                Ok(GroundTruth::Text(text.to_owned()))
            }
            Ok(value) => Self::from_value(&value, field),
            // A broken call must not pass as a text that no policy would ever write.
            Err(error)
                if ["\"tool_call", "\"possible_calls", "\"name\"", "\"behavior"]
                    .iter()
                    .any(|key| trimmed.contains(key)) =>
            {
                Err(RowFault::new(
                    field,
                    "a call as a whole JSON text",
                    format!("JSON that does not parse: {error}"),
                ))
            }
            Err(_) => Ok(GroundTruth::Text(text.to_owned())),
        }
    }

    fn from_object(map: &Map<String, Value>, field: &str) -> Result<Self, RowFault> {
        if let Some(one) = map.get("tool_call") {
            let call = call(one, &format!("{field}.tool_call"))?;
            return Ok(GroundTruth::Calls(vec![call]));
        }
        if let Some(several) = map.get("tool_calls") {
            let field = format!("{field}.tool_calls");
            let Value::Array(items) = several else {
                return Err(RowFault::new(&field, "a list of calls", found(several)));
            };
            return calls(items, &field).map(GroundTruth::Calls);
        }
        if let Some(several) = map.get("possible_calls") {
            return possible(several, &format!("{field}.possible_calls"));
        }
        if let Some(behaviour) = map.get("behavior").or_else(|| map.get("behaviour")) {
            return Self::from_behaviour(behaviour, map, field);
        }
        if map.contains_key("name") {
            return Ok(GroundTruth::Calls(vec![call(&Value::Object(map.clone()), field)?]));
        }
        let keys: Vec<&str> = map.keys().map(String::as_str).collect();
        Err(RowFault::new(field, FORMS, format!("an object with the keys {keys:?}")))
    }

    fn from_behaviour(
        behaviour: &Value,
        map: &Map<String, Value>,
        field: &str,
    ) -> Result<Self, RowFault> {
        match behaviour.as_str() {
            Some("refuse") => Ok(GroundTruth::Refuse),
            Some("clarify") => {
                let field = format!("{field}.missing");
                let wanted = "a list of at least one parameter name";
                let Some(Value::Array(items)) = map.get("missing") else {
                    let what = map.get("missing").map_or("nothing".into(), found);
                    return Err(RowFault::new(&field, wanted, what));
                };
                if items.is_empty() {
                    return Err(RowFault::new(&field, wanted, "an empty list"));
                }
                let missing = items.iter().enumerate().map(|(i, item)| match item.as_str() {
                    Some(name) if !name.trim().is_empty() => Ok(name.to_owned()),
                    _ => Err(RowFault::new(
                        &format!("{field}[{i}]"),
                        "a parameter name",
                        found(item),
                    )),
                });
                Ok(GroundTruth::Clarify { missing: missing.collect::<Result<_, _>>()? })
            }
            _ => Err(RowFault::new(
                &format!("{field}.behavior"),
                "\"clarify\" or \"refuse\"",
                found(behaviour),
            )),
        }
    }
}

fn is_truth(map: &Map<String, Value>) -> bool {
    ["tool_call", "tool_calls", "possible_calls", "behavior", "behaviour", "name"]
        .iter()
        .any(|k| map.contains_key(*k))
}

fn possible(several: &Value, field: &str) -> Result<GroundTruth, RowFault> {
    let items = match several {
        Value::Array(items) if !items.is_empty() => items.iter().enumerate(),
        Value::Array(_) => return Err(RowFault::new(field, "at least one call", "an empty list")),
        other => return Err(RowFault::new(field, "a list of calls", found(other))),
    };
    let calls = items.map(|(i, item)| PossibleCall::from_value(item, &format!("{field}[{i}]")));
    calls.collect::<Result<_, _>>().map(GroundTruth::Possible)
}

fn calls(items: &[Value], field: &str) -> Result<Vec<Call>, RowFault> {
    if items.is_empty() {
        return Err(RowFault::new(field, "at least one call", "an empty list"));
    }
    items.iter().enumerate().map(|(i, item)| call(item, &format!("{field}[{i}]"))).collect()
}

/// Reads `{"name", "parameters" | "arguments"}`, bare or wrapped in `tool_call` or `function`.
pub(crate) fn call(value: &Value, field: &str) -> Result<Call, RowFault> {
    let Value::Object(map) = value else {
        return Err(RowFault::new(field, "an object with name and parameters", found(value)));
    };
    for wrapper in ["tool_call", "function"] {
        if let Some(inner) = map.get(wrapper)
            && !map.contains_key("name")
        {
            return call(inner, &format!("{field}.{wrapper}"));
        }
    }
    let name = match map.get("name") {
        Some(Value::String(name)) if !name.trim().is_empty() => name.clone(),
        other => {
            let what = other.map_or("nothing".into(), found);
            return Err(RowFault::new(&format!("{field}.name"), "a tool's name", what));
        }
    };
    let (key, arguments) = match (map.get("parameters"), map.get("arguments")) {
        (Some(_), Some(_)) => {
            return Err(RowFault::new(field, "parameters or arguments, one of them", "both"));
        }
        (Some(value), None) => ("parameters", value),
        (None, Some(value)) => ("arguments", value),
        (None, None) => return Ok(Call { name, arguments: Map::new() }),
    };
    let field = format!("{field}.{key}");
    match arguments {
        Value::Object(arguments) => Ok(Call { name, arguments: arguments.clone() }),
        Value::String(text) => match serde_json::from_str(text) {
            Ok(Value::Object(arguments)) => Ok(Call { name, arguments }),
            _ => Err(RowFault::new(&field, "an object of arguments", found(arguments))),
        },
        other => Err(RowFault::new(&field, "an object of arguments", found(other))),
    }
}
