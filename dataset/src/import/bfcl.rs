//! The Berkeley Function Calling Leaderboard's files, as the Python package `bfcl-eval` ships them.
//!
//! Read are the single-turn categories in Python. A question's tools become JSON Schema as the leaderboard's own
//! `convert_to_tool` makes it (names keep their dots), with its note on Python's syntax; possible answers become
//! `possible_calls` with every value in its place, since the first one's type decides what a variable is; a question
//! without an answer (irrelevance) wants no call, which is a refusal here.
//!
//! Invariant: no question is dropped in silence; the files that are not read are named with the reason.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{Imported, object};
use crate::check::check;
use crate::example::Example;
use crate::fault::{Fault, Faults, RowFault, RowFaults, found};
use crate::load::read_rows;
use crate::possible::{PossibleCall, may_be_left_out};
use crate::tool::Tool;
use crate::truth::GroundTruth;

/// The categories that are read, in the leaderboard's order.
pub const BFCL_CATEGORIES: [&str; 11] = [
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "irrelevance",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
    "live_irrelevance",
    // What the first three versions called `simple_python`.
    "simple",
];

const SYNTAX: &str = " Note that the provided function is in Python 3 syntax.";

/// The leaderboard's types in JSON Schema.
const TYPES: [(&str, &str); 8] = [
    ("string", "string"),
    ("integer", "integer"),
    ("float", "number"),
    ("boolean", "boolean"),
    ("array", "array"),
    ("tuple", "array"),
    ("dict", "object"),
    ("any", "string"),
];

/// Reads the folder with the leaderboard's files: the package's `data`, the package, or what holds it. Only the
/// categories named, or all that are read.
pub fn import_bfcl(directory: &Path, categories: &[String]) -> Imported {
    let mut imported = Imported::default();
    let files = match files(directory) {
        Ok(files) => files,
        Err(fault) => {
            imported.faults = Some(Faults { faults: vec![fault], count: 1 });
            return imported;
        }
    };
    let wanted = |category: &str| categories.is_empty() || categories.iter().any(|c| c == category);
    for category in BFCL_CATEGORIES.iter().filter(|category| wanted(category)) {
        if let Some(path) = files.get(*category) {
            let faults = questions(path, category, &mut imported);
            imported.faults = Faults::joined(imported.faults.take(), faults);
        }
    }
    for (category, path) in &files {
        if let Some(why) = why_not(category) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            imported.notes.push(format!("{name} is left out: {why}"));
        }
    }
    let unearned: Vec<&str> =
        imported.rows.iter().filter(|row| !earnable(row)).filter_map(id).collect();
    if !unearned.is_empty() {
        let note = format!(
            "no answer is right to {} rows, whose possible answers accept nothing that the schema allows: {}",
            unearned.len(),
            unearned.join(", ")
        );
        imported.notes.push(note);
    }
    imported
}

fn id(row: &Example) -> Option<&str> {
    row.extra_info.get("id").and_then(Value::as_str)
}

fn why_not(category: &str) -> Option<&'static str> {
    match category {
        _ if BFCL_CATEGORIES.contains(&category) => None,
        "simple_java" | "simple_javascript" => {
            Some("its arguments are Java's or JavaScript's source text, not JSON values")
        }
        "live_relevance" => Some("any call at all is right, so there is no ground truth"),
        "format_sensitivity" => Some("it asks the other questions again in other formats"),
        _ if category.starts_with("multi_turn") => {
            Some("it takes several turns with simulated tools")
        }
        "memory" | "web_search" => Some("it needs tools that run"),
        _ => Some("it is no category that is known here"),
    }
}

/// The files by category.
fn files(directory: &Path) -> Result<BTreeMap<String, PathBuf>, Fault> {
    let mut error = None;
    for folder in ["", "data", "bfcl_eval/data"] {
        let folder = directory.join(folder);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(why) => {
                error.get_or_insert(why);
                continue;
            }
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let files: BTreeMap<String, PathBuf> =
            paths.filter_map(|path| Some((category_of(&path)?, path))).collect();
        if !files.is_empty() {
            return Ok(files);
        }
    }
    let wanted = "a folder with the leaderboard's files, BFCL_v4_simple_python.json and others";
    let what = error.map_or("none of them".to_owned(), |why| why.to_string());
    Err(Fault { file: directory.to_owned(), line: 1, fault: RowFault::new("file", wanted, what) })
}

/// The category in a name like `BFCL_v4_live_simple.json`.
fn category_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
    let (version, category) = name.strip_prefix("BFCL_v")?.split_once('_')?;
    version.chars().all(|c| c.is_ascii_digit()).then(|| category.to_owned())
}

fn questions(path: &Path, category: &str, imported: &mut Imported) -> Option<Faults> {
    let answers = match category.ends_with("irrelevance") {
        true => None,
        false => {
            let place = path.file_name().map(|name| Path::new("possible_answer").join(name));
            let place = path.with_file_name(place.unwrap_or_default());
            let mut answers = BTreeMap::new();
            let faults = read_rows(&place, &mut |text| {
                let (id, calls) = answer(&object(text)?)?;
                answers.insert(id, calls);
                Ok(())
            });
            if faults.is_some() {
                return faults;
            }
            Some(answers)
        }
    };
    read_rows(path, &mut |text| {
        imported.rows.push(question(&object(text)?, category, answers.as_ref())?);
        Ok(())
    })
}

fn question(
    row: &Value,
    category: &str,
    answers: Option<&BTreeMap<String, Vec<PossibleCall>>>,
) -> Result<Example, RowFaults> {
    let one = |fault| RowFaults(vec![fault]);
    let id = super::schema::text(row, "id").map_err(one)?;
    let prompt = match row.get("question") {
        Some(Value::Array(turns)) if turns.len() == 1 => turns[0].clone(),
        other => {
            let what = other.map_or("nothing".into(), found);
            return Err(one(RowFault::new("question", "a list with one list of messages", what)));
        }
    };
    let tools = match row.get("function") {
        Some(Value::Array(functions)) => functions
            .iter()
            .enumerate()
            .map(|(i, function)| tool(function, &format!("function[{i}]")))
            .collect::<Result<Vec<_>, _>>()
            .map_err(one)?,
        other => {
            let what = other.map_or("nothing".into(), found);
            return Err(one(RowFault::new("function", "a list of functions", what)));
        }
    };
    let truth = match answers {
        None => GroundTruth::Refuse,
        Some(answers) => match answers.get(id) {
            Some(calls) => GroundTruth::Possible(calls.clone()),
            None => {
                let wanted = "the id of a row in possible_answer";
                return Err(one(RowFault::new("id", wanted, format!("{id:?}"))));
            }
        },
    };
    let example = Example::from_value(json!({
        "data_source": "bfcl",
        "prompt": prompt,
        "tools": tools,
        "ability": "tool_calling",
        "reward_model": {"ground_truth": truth.to_value(), "style": "rule"},
        "extra_info": {"id": id, "category": category},
    }))?;
    let faults = check(&example);
    if faults.is_empty() { Ok(example) } else { Err(RowFaults(faults)) }
}

/// A row of `possible_answer`: its id, and `[{"f": {"x": [1, 2]}}]`.
fn answer(row: &Value) -> Result<(String, Vec<PossibleCall>), RowFaults> {
    let one = |fault| RowFaults(vec![fault]);
    let id = super::schema::text(row, "id").map_err(one)?.to_owned();
    let calls = match row.get("ground_truth") {
        Some(Value::Array(calls)) if !calls.is_empty() => calls,
        other => {
            let what = other.map_or("nothing".into(), found);
            return Err(one(RowFault::new("ground_truth", "a list of at least one call", what)));
        }
    };
    let calls = calls.iter().enumerate().map(|(i, call)| {
        let field = format!("ground_truth[{i}]");
        let mut names = call.as_object().into_iter().flatten();
        match (names.next(), names.next()) {
            (Some((name, Value::Object(parameters))), None) => {
                PossibleCall::new(name.clone(), parameters.clone(), &format!("{field}.{name}"))
            }
            _ => Err(RowFault::new(&field, "{NAME: {PARAMETER: [VALUE, …]}}", found(call))),
        }
    });
    Ok((id, calls.collect::<Result<_, _>>().map_err(one)?))
}

/// A function in OpenAI's form, its schema in JSON Schema's types.
fn tool(function: &Value, field: &str) -> Result<Value, RowFault> {
    let read = Tool::from_value(function, field)?;
    let mut parameters = read.parameters.clone();
    parameters.insert("type".into(), "object".into());
    if let Some(Value::Object(properties)) = parameters.get("properties") {
        let properties = typed_properties(properties, &format!("{field}.parameters"))?;
        parameters.insert("properties".into(), Value::Object(properties));
    }
    let description = read.description.unwrap_or_default() + SYNTAX;
    let function = json!({"name": read.name, "description": description, "parameters": parameters});
    Ok(json!({"type": "function", "function": function}))
}

fn typed_properties(
    properties: &Map<String, Value>,
    field: &str,
) -> Result<Map<String, Value>, RowFault> {
    let typed = properties.iter().map(|(name, schema)| {
        let field = format!("{field}.properties.{name}");
        let Value::Object(schema) = schema else {
            return Err(RowFault::new(&field, "an object with a type", found(schema)));
        };
        let mut made = typed(schema, &field)?;
        if schema.get("type").and_then(Value::as_str) == Some("float") {
            made.insert("format".into(), "float".into());
            if let Some(Value::String(description)) = made.get_mut("description") {
                description.push_str(" This is a float type value.");
            }
        }
        Ok((name.clone(), Value::Object(made)))
    });
    typed.collect()
}

fn typed(schema: &Map<String, Value>, field: &str) -> Result<Map<String, Value>, RowFault> {
    let mut made = schema.clone();
    let name = schema.get("type").and_then(Value::as_str).unwrap_or("string");
    let Some((_, kind)) = TYPES.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = TYPES.iter().map(|(known, _)| *known).collect();
        let wanted = format!("one of {}", known.join(", "));
        return Err(RowFault::new(&format!("{field}.type"), wanted, format!("{name:?}")));
    };
    made.insert("type".into(), (*kind).into());
    if let Some(Value::Object(properties)) = schema.get("properties") {
        made.insert("properties".into(), Value::Object(typed_properties(properties, field)?));
    }
    if let Some(Value::Object(items)) = schema.get("items") {
        made.insert("items".into(), Value::Object(typed(items, &format!("{field}.items"))?));
    }
    Ok(made)
}

/// Whether some answer can be right: every parameter that must be given accepts a value, and is in the schema.
fn earnable(row: &Example) -> bool {
    let GroundTruth::Possible(calls) = &row.ground_truth else { return true };
    calls.iter().all(|call| {
        let tools = row.tools.iter().filter_map(|tool| Tool::from_value(tool, "tools").ok());
        let Some(tool) = tools.into_iter().find(|tool| tool.name == call.name) else {
            return false;
        };
        let known = |name: &str| tool.properties().any(|(property, _)| property == name);
        let given = |name: &str| call.accepted(name).is_some_and(|accepted| !accepted.is_empty());
        tool.required().all(given)
            && call.parameters().all(|(name, accepted)| {
                may_be_left_out(accepted) || (!accepted.is_empty() && known(name))
            })
    })
}
