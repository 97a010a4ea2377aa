//! A tool's schema, read: its name, its parameters, and whether a value fits.
//!
//! Invariant: a value that is refused breaks `type`, `enum`, `required` or names a parameter that is
//! not there; keywords of JSON Schema beyond those never refuse anything.

use serde_json::{Map, Value};

use crate::fault::{RowFault, found};

/// A tool that a row offers.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// The name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The JSON Schema of its arguments, an object; empty where none is given.
    pub parameters: Map<String, Value>,
}

impl Tool {
    /// Reads `{"type": "function", "function": {...}}` or the bare function object; `field` is where
    /// the value was found.
    pub fn from_value(value: &Value, field: &str) -> Result<Self, RowFault> {
        let wanted =
            "{\"type\": \"function\", \"function\": {\"name\", \"description\", \"parameters\"}}";
        let Value::Object(outer) = value else {
            return Err(RowFault::new(field, wanted, found(value)));
        };
        let (function, field) = match outer.get("function") {
            Some(Value::Object(function)) => (function, format!("{field}.function")),
            Some(other) => {
                return Err(RowFault::new(&format!("{field}.function"), "an object", found(other)));
            }
            None if outer.contains_key("name") => (outer, field.to_owned()),
            None => return Err(RowFault::new(field, wanted, found(value))),
        };
        let name = match function.get("name") {
            Some(Value::String(name)) if !name.trim().is_empty() => name.clone(),
            other => {
                let what = other.map_or("nothing".into(), found);
                return Err(RowFault::new(&format!("{field}.name"), "a tool's name", what));
            }
        };
        let description = match function.get("description") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => {
                let field = format!("{field}.description");
                return Err(RowFault::new(&field, "a text", found(other)));
            }
        };
        let parameters = match function.get("parameters") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(schema)) => schema.clone(),
            Some(other) => {
                let field = format!("{field}.parameters");
                return Err(RowFault::new(&field, "a JSON Schema object", found(other)));
            }
        };
        let field = format!("{field}.parameters");
        for (key, wanted, fits) in [
            ("properties", "an object of schemas", Value::is_object as fn(&Value) -> bool),
            ("required", "a list of parameter names", Value::is_array),
        ] {
            if let Some(value) = parameters.get(key)
                && !fits(value)
            {
                return Err(RowFault::new(&format!("{field}.{key}"), wanted, found(value)));
            }
        }
        Ok(Tool { name, description, parameters })
    }

    /// The parameters and their schemas, in order.
    pub fn properties(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.parameters.get("properties").and_then(Value::as_object).into_iter().flatten()
    }

    /// The names of the parameters that a call must give.
    pub fn required(&self) -> impl Iterator<Item = &str> {
        let names = self.parameters.get("required").and_then(Value::as_array);
        names.into_iter().flatten().filter_map(Value::as_str)
    }

    /// What is wrong with these arguments; `field` is where they were found.
    pub fn faults(&self, arguments: &Map<String, Value>, field: &str) -> Vec<RowFault> {
        let mut faults = Vec::new();
        object(&self.parameters, arguments, field, &mut faults);
        faults
    }
}

fn object(
    schema: &Map<String, Value>,
    map: &Map<String, Value>,
    field: &str,
    faults: &mut Vec<RowFault>,
) {
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    for name in required.filter_map(Value::as_str).filter(|name| !map.contains_key(*name)) {
        let field = format!("{field}.{name}");
        faults.push(RowFault::new(&field, "a value, the schema requires it", "nothing"));
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    // JSON Schema allows unnamed properties by default; in a ground truth one is a misspelled name.
    let open = schema.get("additionalProperties").is_some_and(|value| value != false);
    for (name, value) in map {
        let field = format!("{field}.{name}");
        match properties.get(name).and_then(Value::as_object) {
            Some(schema) => check(schema, value, &field, faults),
            None if open || properties.contains_key(name) => {}
            None => {
                let names: Vec<&str> = properties.keys().map(String::as_str).collect();
                let wanted = format!("one of the tool's parameters {names:?}");
                faults.push(RowFault::new(&field, wanted, format!("the name {name:?}")));
            }
        }
    }
}

fn check(schema: &Map<String, Value>, value: &Value, field: &str, faults: &mut Vec<RowFault>) {
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|name| is_of(name, value)) {
        faults.push(RowFault::new(
            field,
            format!("a value of type {}", types.join(" or ")),
            found(value),
        ));
        return;
    }
    if let Some(Value::Array(choices)) = schema.get("enum")
        && !choices.contains(value)
    {
        let choices = Value::Array(choices.clone());
        faults.push(RowFault::new(field, format!("one of {choices}"), found(value)));
        return;
    }
    match value {
        Value::Object(map) => object(schema, map, field, faults),
        Value::Array(items) => {
            if let Some(schema) = schema.get("items").and_then(Value::as_object) {
                for (i, item) in items.iter().enumerate() {
                    check(schema, item, &format!("{field}[{i}]"), faults);
                }
            }
        }
        _ => {}
    }
}

/// Whether the value has this JSON Schema type; a type that we do not know fits everything.
fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => true,
    }
}
