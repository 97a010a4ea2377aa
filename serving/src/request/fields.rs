//! Typed access to the keys of one JSON object of a request.
//!
//! Invariant: a key is taken once; `null` is as absent; what is left over can be asked for.

use crate::error::Refusal;
use serde_json::{Map, Value};

/// The keys of an object that nobody has taken yet.
pub(super) struct Fields {
    map: Map<String, Value>,
    /// What its keys are called in errors before their own name, with a dot at the end.
    path: String,
}

impl Fields {
    pub(super) fn new(map: Map<String, Value>, path: impl Into<String>) -> Self {
        Self { map, path: path.into() }
    }

    /// Where a key stands.
    pub(super) fn at(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    /// The keys that were not taken and ask for something.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.map.into_iter().filter(|(_, value)| !value.is_null()).collect()
    }

    pub(super) fn boolean(&mut self, key: &str) -> Result<Option<bool>, Refusal> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(self.refuse(key, "true or false", &other)),
        }
    }

    pub(super) fn string(&mut self, key: &str) -> Result<Option<String>, Refusal> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(other) => Err(self.refuse(key, "a string", &other)),
        }
    }

    /// A string that must be there and not empty.
    pub(super) fn name(&mut self, key: &str) -> Result<String, Refusal> {
        match self.take(key) {
            Some(Value::String(value)) if !value.trim().is_empty() => Ok(value),
            other => {
                Err(self.refuse(key, "a string that is not empty", &other.unwrap_or(Value::Null)))
            }
        }
    }

    /// A whole number from `least` to `most`.
    pub(super) fn whole(
        &mut self,
        key: &str,
        least: usize,
        most: usize,
    ) -> Result<Option<usize>, Refusal> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_u64().and_then(|number| usize::try_from(number).ok()) {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(self.refuse(key, &format!("a whole number from {least} to {most}"), &value)),
        }
    }

    pub(super) fn number(
        &mut self,
        key: &str,
        least: f64,
        most: f64,
    ) -> Result<Option<f32>, Refusal> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number as f32)),
            _ => Err(self.refuse(key, &format!("a number from {least} to {most}"), &value)),
        }
    }

    /// Any whole number of 64 bits, with or without a sign: each is a seed of its own.
    pub(super) fn seed(&mut self, key: &str) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match (value.as_u64(), value.as_i64()) {
            (Some(seed), _) => Ok(Some(seed)),
            (None, Some(seed)) => Ok(Some(seed.cast_unsigned())),
            (None, None) => Err(self.refuse(key, "a whole number of 64 bits", &value)),
        }
    }

    pub(super) fn refuse(&self, key: &str, expected: &str, found: &Value) -> Refusal {
        Refusal::parameter(self.at(key), expected, describe(found))
    }
}

/// A value for a message, cut to a readable length.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(map) => {
            let keys: Vec<String> = map.keys().take(4).map(|key| cut(key)).collect();
            format!("an object with the keys {keys:?}")
        }
        other => cut(&other.to_string()),
    }
}

/// At most 40 characters.
pub(super) fn cut(text: &str) -> String {
    octet_calls::excerpt(text)
}
