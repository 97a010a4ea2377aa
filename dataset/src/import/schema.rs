//! Tool schemas as data sets write them, made into JSON Schema.
//!
//! Read are OpenAI's form, the bare function object, and xLAM's flat map of parameters; types by their names in
//! JSON Schema, Python (`str, optional`, `List[int]`, `Dict[str, Any]`, `Union[int, float]`) and the leaderboard
//! (`dict`, `float`, `tuple`).
//!
//! Invariant: a type that is not known allows everything, so no schema refuses a value for want of a name.

use serde_json::{Map, Value, json};

use crate::fault::{RowFault, found};
use crate::tool::Tool;

/// A tool in OpenAI's form with JSON Schema parameters; `field` is where it was found.
pub(super) fn tool(value: &Value, field: &str) -> Result<Value, RowFault> {
    let read = Tool::from_value(value, field)?;
    let parameters = match as_schema(&read.parameters) {
        true => normalised(&read.parameters),
        false => flat(&read.parameters),
    };
    let mut function = Map::new();
    function.insert("name".into(), read.name.into());
    if let Some(description) = read.description {
        function.insert("description".into(), description.into());
    }
    function.insert("parameters".into(), Value::Object(parameters));
    Ok(json!({"type": "function", "function": function}))
}

/// All the tools of a list found under `field`.
pub(super) fn tools(values: &[Value], field: &str) -> Result<Vec<Value>, Vec<RowFault>> {
    let (mut tools, mut faults) = (Vec::new(), Vec::new());
    for (i, value) in values.iter().enumerate() {
        match tool(value, &format!("{field}[{i}]")) {
            Ok(tool) => tools.push(tool),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(tools) } else { Err(faults) }
}

/// Whether the parameters are a JSON Schema, not a flat map from names to what is known of them.
fn as_schema(parameters: &Map<String, Value>) -> bool {
    parameters.get("properties").is_some_and(Value::is_object)
        || parameters.get("type").is_some_and(Value::is_string)
}

fn flat(parameters: &Map<String, Value>) -> Map<String, Value> {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, known) in parameters.iter().filter(|(_, known)| known.is_object()) {
        let known = known.as_object().cloned().unwrap_or_default();
        let optional = match known.get("required") {
            Some(Value::Bool(required)) => !required,
            _ => known.contains_key("default") || is_optional(&known),
        };
        if !optional {
            required.push(Value::String(name.clone()));
        }
        let mut schema = normalised(&known);
        schema.remove("required");
        properties.insert(name.clone(), Value::Object(schema));
    }
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    schema.insert("properties".into(), Value::Object(properties));
    schema.insert("required".into(), Value::Array(required));
    schema
}

fn is_optional(known: &Map<String, Value>) -> bool {
    known.get("type").and_then(Value::as_str).is_some_and(|name| python_type(name).1)
}

/// The schema with JSON Schema's names of types at every depth, and without the nulls of absent keywords.
fn normalised(schema: &Map<String, Value>) -> Map<String, Value> {
    let mut made = Map::new();
    for (key, value) in schema {
        match (key.as_str(), value) {
            ("default", value) => {
                made.insert(key.clone(), value.clone());
            }
            (_, Value::Null) => {}
            ("type", Value::String(name)) => made.extend(python_type(name).0),
            ("properties", Value::Object(properties)) => {
                let properties = properties.iter().filter_map(|(name, schema)| {
                    let schema = normalised(schema.as_object()?);
                    Some((name.clone(), Value::Object(schema)))
                });
                made.insert(key.clone(), Value::Object(properties.collect()));
            }
            ("items", Value::Object(items)) => {
                made.insert(key.clone(), Value::Object(normalised(items)));
            }
            // Not a list of names: a flag of the parameter itself, as some exports have it.
            ("required", value) if !value.is_array() => {}
            _ => {
                made.insert(key.clone(), value.clone());
            }
        }
    }
    made
}

/// What a type's name says: the keywords for it, and whether the value may be left out.
fn python_type(name: &str) -> (Map<String, Value>, bool) {
    let name = name.trim();
    if let Some(base) = name.strip_suffix("optional").map(str::trim_end)
        && let Some(base) = base.strip_suffix(',')
    {
        return (python_type(base).0, true);
    }
    let (base, arguments) = match name.split_once('[') {
        Some((base, rest)) => (base.trim(), split(rest.strip_suffix(']').unwrap_or(rest))),
        None => (name, Vec::new()),
    };
    let base = base.rsplit('.').next().unwrap_or(base);
    match (base.to_ascii_lowercase().as_str(), arguments.as_slice()) {
        ("optional", [inner]) => (python_type(inner).0, true),
        ("union", several) => {
            let optional = several.contains(&"None");
            let mut types = Vec::new();
            for name in several.iter().filter(|name| **name != "None") {
                match python_type(name).0.remove("type") {
                    Some(kind) if !types.contains(&kind) => types.push(kind),
                    Some(_) => {}
                    None => return (Map::new(), optional),
                }
            }
            let kind = if types.len() == 1 { types.remove(0) } else { Value::Array(types) };
            (of("type", kind), optional)
        }
        (base, arguments) => {
            let Some(kind) = json_type(base) else { return (Map::new(), false) };
            let mut schema = of("type", kind.into());
            if let ("array", [item]) = (kind, arguments) {
                let item = python_type(item).0;
                if !item.is_empty() {
                    schema.insert("items".into(), Value::Object(item));
                }
            }
            (schema, false)
        }
    }
}

fn of(key: &str, value: Value) -> Map<String, Value> {
    Map::from_iter([(key.to_owned(), value)])
}

/// The parts between commas that no bracket encloses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// JSON Schema's name of a type; none for one that is not known, or that allows everything.
fn json_type(name: &str) -> Option<&'static str> {
    Some(match name {
        "string" | "str" | "char" | "text" | "date" | "datetime" | "time" | "callable" => "string",
        "integer" | "int" | "long" | "short" | "byte" | "bigint" => "integer",
        "number" | "float" | "double" | "decimal" => "number",
        "boolean" | "bool" => "boolean",
        "array" | "list" | "tuple" | "set" | "sequence" | "iterable" | "arraylist" => "array",
        "object" | "dict" | "mapping" | "hashmap" => "object",
        "null" => "null",
        _ => return None,
    })
}

/// A column that must be there, as a text.
pub(super) fn text<'a>(row: &'a Value, key: &str) -> Result<&'a str, RowFault> {
    match row.get(key) {
        Some(Value::String(text)) => Ok(text),
        other => Err(RowFault::new(key, "a text", other.map_or("nothing".into(), found))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_by_their_names_in_python() {
        for (name, schema, optional) in [
            ("str", json!({"type": "string"}), false),
            ("str, optional", json!({"type": "string"}), true),
            ("Optional[int]", json!({"type": "integer"}), true),
            ("List[int]", json!({"type": "array", "items": {"type": "integer"}}), false),
            (
                "List[List[float]]",
                json!({"type": "array", "items": {"type": "array", "items": {"type": "number"}}}),
                false,
            ),
            ("Dict[str, Any]", json!({"type": "object"}), false),
            ("Union[int, float]", json!({"type": ["integer", "number"]}), false),
            ("Union[str, None]", json!({"type": "string"}), true),
            ("typing.Tuple[int, int]", json!({"type": "array"}), false),
            ("Any", json!({}), false),
            ("np.ndarray", json!({}), false),
            ("object", json!({"type": "object"}), false),
        ] {
            let (found, may) = python_type(name);
            assert_eq!((Value::Object(found), may), (schema, optional), "{name}");
        }
    }

    #[test]
    fn a_flat_map_of_parameters_becomes_a_schema() {
        let flat = json!({"name": "f", "description": "d", "parameters": {
            "a": {"type": "str", "description": "x"},
            "b": {"type": "int", "default": 3},
            "c": {"type": "float, optional", "description": "y"}}});
        let made = tool(&flat, "tools[0]").unwrap_or_default();
        let parameters = &made["function"]["parameters"];
        assert_eq!(parameters["required"], json!(["a"]));
        assert_eq!(parameters["properties"]["b"], json!({"type": "integer", "default": 3}));
        assert_eq!(parameters["properties"]["c"], json!({"type": "number", "description": "y"}));
    }
}
