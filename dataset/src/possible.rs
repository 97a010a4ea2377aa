//! A ground truth with alternatives: for each parameter the values that are accepted.
//!
//! It is the form of the Berkeley Function Calling Leaderboard's "possible answers":
//! `{"possible_calls": [{"name": "f", "parameters": {"unit": ["km", "kilometres", ""]}}]}`.
//!
//! - The empty text `""` among the accepted values means that the parameter may be left out.
//! - An accepted object lists accepted values for each of its keys in turn: `[{"from": ["Lyon"], "by": ["rail", ""]}]`
//!   accepts `{"from": "Lyon"}`. So do the objects that are items of an accepted list. What lies deeper is a plain
//!   value, and so is any other accepted list.
//!
//! Invariant: the accepted values keep the order in which they were written, since the first one is the reference.

use serde_json::{Map, Value, json};

use crate::fault::{RowFault, found};
use crate::truth::Call;

/// One call of a tool, with the values that are accepted for each parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct PossibleCall {
    /// The tool's name.
    pub name: String,
    /// The parameters in the order they were written; each value is a list of what is accepted.
    parameters: Map<String, Value>,
}

impl PossibleCall {
    /// Reads `{"name", "parameters"}`, every parameter a list; `field` is where the value was found.
    pub(crate) fn from_value(value: &Value, field: &str) -> Result<Self, RowFault> {
        let Value::Object(map) = value else {
            return Err(RowFault::new(field, "an object with name and parameters", found(value)));
        };
        let name = match map.get("name") {
            Some(Value::String(name)) if !name.trim().is_empty() => name.clone(),
            other => {
                let what = other.map_or("nothing".into(), found);
                return Err(RowFault::new(&format!("{field}.name"), "a tool's name", what));
            }
        };
        let field = format!("{field}.parameters");
        match map.get("parameters") {
            None => Ok(PossibleCall { name, parameters: Map::new() }),
            Some(Value::Object(parameters)) => Self::new(name, parameters.clone(), &field),
            Some(other) => Err(RowFault::new(&field, "an object of accepted values", found(other))),
        }
    }

    /// A call of this name; `field` is where its parameters were found.
    pub(crate) fn new(
        name: String,
        parameters: Map<String, Value>,
        field: &str,
    ) -> Result<Self, RowFault> {
        for (key, accepted) in &parameters {
            let field = format!("{field}.{key}");
            let Value::Array(accepted) = accepted else {
                return Err(RowFault::new(&field, "a list of accepted values", found(accepted)));
            };
            for (i, value) in accepted.iter().enumerate() {
                check_accepted(value, &format!("{field}[{i}]"))?;
            }
        }
        Ok(PossibleCall { name, parameters })
    }

    /// Each parameter with the values accepted for it, `""` included.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &[Value])> {
        self.parameters.iter().map(|(name, accepted)| (name.as_str(), list(accepted)))
    }

    /// The values accepted for a parameter; none for one that a call may not have.
    pub fn accepted(&self, parameter: &str) -> Option<&[Value]> {
        self.parameters.get(parameter).map(list)
    }

    /// The call that gives the first accepted value of each parameter, and leaves out what may only be left out.
    pub fn reference(&self) -> Call {
        let arguments = self
            .parameters()
            .filter_map(|(name, accepted)| Some((name.to_owned(), first(accepted)?)))
            .collect();
        Call { name: self.name.clone(), arguments }
    }

    /// The canonical JSON.
    pub(crate) fn to_value(&self) -> Value {
        json!({"name": self.name, "parameters": self.parameters})
    }
}

/// A call whose arguments are the only ones accepted.
impl From<&Call> for PossibleCall {
    fn from(call: &Call) -> Self {
        let only = |value: &Value| json!([value]);
        let wrapped = call.arguments.iter().map(|(key, value)| {
            let value = over_keys(value, &|keys| {
                keys.iter().map(|(key, value)| (key.clone(), only(value))).collect()
            });
            (key.clone(), json!([value]))
        });
        PossibleCall { name: call.name.clone(), parameters: wrapped.collect() }
    }
}

/// Whether accepted values allow that there is none.
pub fn may_be_left_out(accepted: &[Value]) -> bool {
    accepted.iter().any(is_empty_text)
}

fn is_empty_text(value: &Value) -> bool {
    value.as_str() == Some("")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The first accepted value that is one, with the first of each key where it is an object.
fn first(accepted: &[Value]) -> Option<Value> {
    let value = accepted.iter().find(|value| !is_empty_text(value))?;
    Some(over_keys(value, &|keys| {
        let keys = keys.iter().filter_map(|(key, accepted)| {
            Some((key.clone(), list(accepted).iter().find(|value| !is_empty_text(value))?.clone()))
        });
        keys.collect()
    }))
}

/// What is made of an object.
type Change<'a> = dyn Fn(&Map<String, Value>) -> Map<String, Value> + 'a;

/// The value with `change` made to it if it is an object, or to its items that are.
fn over_keys(value: &Value, change: &Change) -> Value {
    match value {
        Value::Object(keys) => Value::Object(change(keys)),
        Value::Array(items) => {
            let items = items.iter().map(|item| match item {
                Value::Object(keys) => Value::Object(change(keys)),
                other => other.clone(),
            });
            Value::Array(items.collect())
        }
        scalar => scalar.clone(),
    }
}

/// What is wrong with one accepted value: the keys of an object must be lists in turn.
fn check_accepted(value: &Value, field: &str) -> Result<(), RowFault> {
    let keys_are_lists = |keys: &Map<String, Value>, field: &str| match keys
        .iter()
        .find(|(_, accepted)| !accepted.is_array())
    {
        None => Ok(()),
        Some((key, other)) => {
            let field = format!("{field}.{key}");
            Err(RowFault::new(&field, "a list of accepted values", found(other)))
        }
    };
    match value {
        Value::Object(keys) => keys_are_lists(keys, field),
        Value::Array(items) => items.iter().enumerate().try_for_each(|(i, item)| match item {
            Value::Object(keys) => keys_are_lists(keys, &format!("{field}[{i}]")),
            _ => Ok(()),
        }),
        _ => Ok(()),
    }
}
