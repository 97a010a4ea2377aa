//! Reference answers: what a good assistant writes for an example.
//!
//! Invariant: a call is written as Python's `json.dumps` writes it, its arguments in the schema's
//! order; a question names every missing parameter in words; a refusal says so plainly.

use serde_json::{Map, Value};

use crate::draw::{Draw, Purpose};
use crate::example::Example;
use crate::lexicon::{be, enumeration};
use crate::truth::{Call, GroundTruth};

const HARMFUL: [&str; 4] = [
    "Sorry, I can't help with that.",
    "I cannot help with that request.",
    "I can't do that, it could cause harm.",
    "Sorry, I won't help with that.",
];
const NO_TOOL: [&str; 4] = [
    "I cannot do that with the tools I have.",
    "Sorry, none of my tools can do that.",
    "Sorry, I can't do that with my tools.",
    "I'm sorry, I am unable to do that.",
];

/// The text that an assistant should produce. Equal examples and seeds give equal texts; the wording
/// of questions and refusals varies from example to example.
pub fn reference_answer(example: &Example, seed: u64) -> String {
    let mut draw = Draw::keyed(Purpose::Answer, seed, fingerprint(example.request()), 0);
    match &example.ground_truth {
        GroundTruth::Calls(calls) => {
            let calls: Vec<String> =
                calls.iter().map(|c| reference_call(c, &example.tools)).collect();
            calls.join("\n")
        }
        GroundTruth::Possible(calls) => {
            let calls: Vec<String> =
                calls.iter().map(|c| reference_call(&c.reference(), &example.tools)).collect();
            calls.join("\n")
        }
        GroundTruth::Clarify { missing } => question(missing, &mut draw),
        GroundTruth::Refuse => {
            let why = example.extra_info.get("refusal").and_then(Value::as_str);
            let texts = match why {
                Some("unserved" | "no_such_tool") => &NO_TOOL,
                _ => &HARMFUL,
            };
            (*draw.pick(texts)).to_owned()
        }
        GroundTruth::Text(text) => text.clone(),
    }
}

/// A call as the answer has it.
pub(crate) fn reference_call(call: &Call, tools: &[Value]) -> String {
    let mut arguments = Map::new();
    for name in schema_order(&call.name, tools) {
        if let Some(value) = call.arguments.get(&name) {
            arguments.insert(name, value.clone());
        }
    }
    for (name, value) in &call.arguments {
        arguments.entry(name.clone()).or_insert_with(|| value.clone());
    }
    let body = serde_json::json!({"name": call.name, "arguments": arguments});
    format!("<tool_call>\n{}\n</tool_call>", python_json(&body))
}

fn schema_order(name: &str, tools: &[Value]) -> Vec<String> {
    let tool = tools
        .iter()
        .map(|tool| tool.get("function").unwrap_or(tool))
        .find(|tool| tool.get("name").and_then(Value::as_str) == Some(name));
    let properties = tool.and_then(|tool| tool.pointer("/parameters/properties")?.as_object());
    properties.map(|map| map.keys().cloned().collect()).unwrap_or_default()
}

fn question(missing: &[String], draw: &mut Draw) -> String {
    let words: Vec<String> = missing.iter().map(|name| name.replace('_', " ")).collect();
    let is = be(&words);
    let the: Vec<String> = words.iter().map(|word| format!("the {word}")).collect();
    match draw.below(4) {
        0 => format!("Which {} should I use?", enumeration(&words)),
        1 => format!("What {is} {}?", enumeration(&the)),
        2 => format!("Could you tell me {}?", enumeration(&the)),
        _ => format!("Can you give me {}?", enumeration(&the)),
    }
}

/// JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it: `", "` and `": "` between.
pub fn python_json(value: &Value) -> String {
    let mut text = String::new();
    write_python(value, &mut text);
    text
}

fn write_python(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for (i, item) in items.iter().enumerate() {
                text.push_str(if i > 0 { ", " } else { "" });
                write_python(item, text);
            }
            text.push(']');
        }
        Value::Object(map) => {
            text.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                text.push_str(if i > 0 { ", " } else { "" });
                text.push_str(&Value::String(key.clone()).to_string());
                text.push_str(": ");
                write_python(item, text);
            }
            text.push('}');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

/// FNV-1a: a number that stands for a text in a key.
pub(crate) fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
