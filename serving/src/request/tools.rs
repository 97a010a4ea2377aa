//! The tools of a request, and whether one of them is to be called.
//!
//! Invariant: names are there, not empty and each of its own; a choice names one of them.

use super::fields::{Fields, cut, describe};
use super::{MOST_TOOLS, ToolChoice};
use crate::error::Refusal;
use serde_json::{Map, Value};

pub(super) fn read(value: Option<Value>) -> Result<Vec<Value>, Refusal> {
    let items = match value {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() <= MOST_TOOLS => items,
        Some(other) => {
            let expected = format!("a list of at most {MOST_TOOLS} tools");
            return Err(Refusal::parameter("tools", expected, describe(&other)));
        }
    };
    let mut names = Vec::with_capacity(items.len());
    let mut tools = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        let tool = tool(at, item)?;
        let name = name(&tool).to_owned();
        if names.contains(&name) {
            let found = format!("{:?} twice", cut(&name));
            return Err(Refusal::parameter(
                format!("tools[{at}].function.name"),
                "each name once",
                found,
            ));
        }
        names.push(name);
        tools.push(tool);
    }
    Ok(tools)
}

/// The name of a tool that was read here.
pub(crate) fn name(tool: &Value) -> &str {
    tool["function"]["name"].as_str().unwrap_or_default()
}

/// Checks a tool and keeps it as it came, its keys in their order: the prompt shows them.
fn tool(at: usize, value: Value) -> Result<Value, Refusal> {
    let path = format!("tools[{at}]");
    let Value::Object(mut tool) = value else {
        return Err(Refusal::parameter(path, "an object", describe(&value)));
    };
    if tool.get("type").is_some_and(|kind| kind != "function") {
        let found = describe(&tool["type"]);
        return Err(Refusal::parameter(format!("{path}.type"), "\"function\"", found));
    }
    let Some(Value::Object(function)) = tool.get_mut("function") else {
        let found = describe(tool.get("function").unwrap_or(&Value::Null));
        return Err(Refusal::parameter(format!("{path}.function"), "an object", found));
    };
    // It asks for arguments that are checked while they are written, which is not done; prompts in training do
    // not show it.
    function.shift_remove("strict");
    check(function.clone(), format!("{path}.function."))?;
    Ok(Value::Object(tool))
}

fn check(function: Map<String, Value>, path: String) -> Result<(), Refusal> {
    let mut fields = Fields::new(function, path);
    fields.name("name")?;
    fields.string("description")?;
    match fields.take("parameters") {
        None | Some(Value::Object(_)) => Ok(()),
        Some(other) => Err(fields.refuse("parameters", "a JSON schema", &other)),
    }
}

pub(super) fn choice(value: Option<Value>, tools: &[Value]) -> Result<ToolChoice, Refusal> {
    const EXPECTED: &str =
        "none, auto, required, or {\"type\": \"function\", \"function\": {\"name\": \"…\"}}";
    let Some(value) = value else {
        return Ok(if tools.is_empty() { ToolChoice::None } else { ToolChoice::Auto });
    };
    let choice = match value.as_str() {
        Some("none") => return Ok(ToolChoice::None),
        Some("auto") if tools.is_empty() => return Ok(ToolChoice::None),
        Some("auto") => return Ok(ToolChoice::Auto),
        Some("required") => ToolChoice::Required,
        Some(_) => return Err(Refusal::parameter("tool_choice", EXPECTED, describe(&value))),
        None => match value["function"]["name"].as_str() {
            Some(name) if value["type"] == "function" => ToolChoice::Named(name.to_owned()),
            _ => return Err(Refusal::parameter("tool_choice", EXPECTED, describe(&value))),
        },
    };
    match &choice {
        _ if tools.is_empty() => {
            Err(Refusal::parameter("tool_choice", "tools to choose from", "no tools"))
        }
        ToolChoice::Named(wanted) if !tools.iter().any(|tool| name(tool) == wanted) => {
            let names: Vec<String> = tools.iter().take(8).map(|tool| cut(name(tool))).collect();
            let expected = format!("the name of one of the tools ({})", names.join(", "));
            Err(Refusal::parameter("tool_choice", expected, format!("{:?}", cut(wanted))))
        }
        _ => Ok(choice),
    }
}
