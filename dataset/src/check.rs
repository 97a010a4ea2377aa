//! What must hold between the parts of a row.
//!
//! Invariant: a row without faults can be earned: the right answer calls tools that are offered, with
//! arguments that their schemas allow. Only accepted values (`possible_calls`) are not held to a schema.

use std::collections::HashSet;

use serde_json::Value;

use crate::example::Example;
use crate::fault::RowFault;
use crate::tool::Tool;
use crate::truth::{Call, GroundTruth};

/// The faults between the parts of a row; empty for a sound one.
pub fn check(example: &Example) -> Vec<RowFault> {
    let mut faults = Vec::new();
    let mut names = HashSet::new();
    let mut tools = Vec::new();
    for (i, value) in example.tools.iter().enumerate() {
        match Tool::from_value(value, &format!("tools[{i}]")) {
            Ok(tool) => {
                if !names.insert(tool.name.clone()) {
                    let field = format!("tools[{i}].function.name");
                    let found = format!("{:?} a second time", tool.name);
                    faults.push(RowFault::new(&field, "a name of its own for each tool", found));
                }
                tools.push(tool);
            }
            Err(fault) => faults.push(fault),
        }
    }
    // Without tools in the row they stand in the prompt's text, as in the paper's own rows.
    if example.tools.is_empty() || !faults.is_empty() {
        return faults;
    }
    match &example.ground_truth {
        GroundTruth::Calls(calls) => {
            for (i, call) in calls.iter().enumerate() {
                check_call(call, &tools, &places(example, i, calls.len()), &mut faults);
            }
        }
        // Accepted values are taken as they are: benchmarks accept stand-ins that no schema allows.
        GroundTruth::Possible(calls) => {
            for (i, call) in calls.iter().enumerate() {
                if !tools.iter().any(|tool| tool.name == call.name) {
                    let field = format!("reward_model.ground_truth.possible_calls[{i}].name");
                    faults.push(not_offered(&call.name, &tools, &field));
                }
            }
        }
        GroundTruth::Clarify { .. } | GroundTruth::Refuse | GroundTruth::Text(_) => {}
    }
    faults
}

/// Where a call's name and arguments stand in the row.
pub(crate) struct Places {
    pub(crate) name: String,
    pub(crate) arguments: String,
}

/// What is wrong with a call to one of these tools.
pub(crate) fn check_call(call: &Call, tools: &[Tool], places: &Places, faults: &mut Vec<RowFault>) {
    match tools.iter().find(|tool| tool.name == call.name) {
        Some(tool) => faults.extend(tool.faults(&call.arguments, &places.arguments)),
        None => faults.push(not_offered(&call.name, tools, &places.name)),
    }
}

fn not_offered(name: &str, tools: &[Tool], field: &str) -> RowFault {
    let offered: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
    let wanted = format!("one of the tools offered {offered:?}");
    RowFault::new(field, wanted, format!("{name:?}"))
}

/// The path of the call at this index, in the form in which the row's author wrote it.
fn places(example: &Example, index: usize, count: usize) -> Places {
    let base = "reward_model.ground_truth";
    let written = example.row().pointer("/reward_model/ground_truth").cloned().unwrap_or_default();
    let written = match &written {
        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
        _ => written,
    };
    let (mut place, mut value) = match &written {
        Value::Array(items) => (format!("{base}[{index}]"), items.get(index).cloned()),
        Value::Object(map) => match (map.get("tool_call"), map.get("tool_calls")) {
            (Some(one), _) if count == 1 => (format!("{base}.tool_call"), Some(one.clone())),
            (_, Some(several)) => {
                (format!("{base}.tool_calls[{index}]"), several.get(index).cloned())
            }
            _ => (base.to_owned(), Some(written.clone())),
        },
        _ => (base.to_owned(), None),
    };
    for wrapper in ["tool_call", "function"] {
        if let Some(inner) = value.as_ref().and_then(|value| value.get(wrapper)).cloned() {
            place = format!("{place}.{wrapper}");
            value = Some(inner);
        }
    }
    let key = match value.as_ref().and_then(|value| value.get("arguments")) {
        Some(_) => "arguments",
        None => "parameters",
    };
    Places { name: format!("{place}.name"), arguments: format!("{place}.{key}") }
}
