//! What the formats have in common: turns with calls in them, and the examples that they give.
//!
//! Each answer of the assistant is an example whose prompt is all that was said before it.
//!
//! Invariant: an example made here passes [`check`](crate::check()), since its calls were checked against its tools.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::check::{Places, check, check_call};
use crate::example::{Example, Role};
use crate::fault::{RowFault, RowFaults};
use crate::tool::Tool;
use crate::truth::{Call, GroundTruth};

/// Why an answer gave no example.
const TEXT_ANSWER: &str = "answers that call nothing";

/// A call, and where its name and arguments stand in the source.
pub(super) struct PlacedCall {
    pub(super) call: Call,
    pub(super) places: Places,
}

impl PlacedCall {
    /// A call that stands as a whole under `field`, its arguments under `field.arguments`.
    pub(super) fn new(call: Call, field: &str, arguments: &str) -> Self {
        let places =
            Places { name: format!("{field}.name"), arguments: format!("{field}.{arguments}") };
        PlacedCall { call, places }
    }
}

/// One message, read.
pub(super) struct Turn {
    pub(super) role: Role,
    pub(super) content: String,
    pub(super) calls: Vec<PlacedCall>,
    /// `name`, `tool_call_id` and whatever else the chat template may want.
    pub(super) others: Map<String, Value>,
}

impl Turn {
    pub(super) fn new(role: Role, content: impl Into<String>) -> Self {
        Turn { role, content: content.into(), calls: Vec::new(), others: Map::new() }
    }

    fn message(&self) -> Value {
        let mut message = Map::new();
        message.insert("role".into(), self.role.name().into());
        message.insert("content".into(), self.content.clone().into());
        if !self.calls.is_empty() {
            let calls = self.calls.iter().map(|PlacedCall { call, .. }| {
                let function = json!({"name": call.name, "arguments": call.arguments});
                json!({"type": "function", "function": function})
            });
            message.insert("tool_calls".into(), calls.collect());
        }
        for (key, value) in &self.others {
            message.entry(key.clone()).or_insert_with(|| value.clone());
        }
        Value::Object(message)
    }
}

/// A row of the source, read.
pub(super) struct Conversation {
    /// The tools, in OpenAI's form.
    pub(super) tools: Vec<Value>,
    pub(super) turns: Vec<Turn>,
    /// The first turn that may be an answer: those before it are prompt.
    pub(super) answers_from: usize,
    /// Where the turns stand in the source, for faults.
    pub(super) field: &'static str,
    /// An answer without a call is a refusal, since no tool serves the request.
    pub(super) silence_refuses: bool,
    pub(super) extra_info: Map<String, Value>,
}

/// What a conversation gave.
pub(super) struct Made {
    pub(super) examples: Vec<Example>,
    pub(super) left_out: BTreeMap<&'static str, usize>,
}

impl Conversation {
    pub(super) fn examples(mut self, source: &str, text_answers: bool) -> Result<Made, RowFaults> {
        let tools: Vec<Tool> =
            self.tools.iter().filter_map(|tool| Tool::from_value(tool, "tools").ok()).collect();
        let mut faults = Vec::new();
        for turn in &mut self.turns {
            for PlacedCall { call, places } in &mut turn.calls {
                drop_absent(call, &tools);
                if !tools.is_empty() {
                    check_call(call, &tools, places, &mut faults);
                }
            }
        }
        if !faults.is_empty() {
            return Err(RowFaults(faults));
        }
        let mut made = Made { examples: Vec::new(), left_out: BTreeMap::new() };
        let mut answers = 0;
        for (i, turn) in self.turns.iter().enumerate().skip(self.answers_from) {
            if turn.role != Role::Assistant {
                continue;
            }
            answers += 1;
            let calls: Vec<Call> = turn.calls.iter().map(|placed| placed.call.clone()).collect();
            let truth = match calls.is_empty() {
                false => GroundTruth::Calls(calls),
                true if self.silence_refuses => GroundTruth::Refuse,
                true if text_answers && !turn.content.trim().is_empty() => {
                    GroundTruth::Text(turn.content.clone())
                }
                true => {
                    *made.left_out.entry(TEXT_ANSWER).or_default() += 1;
                    continue;
                }
            };
            if i == 0 {
                let wanted = "a message before the first answer";
                faults.push(RowFault::new(self.field, wanted, "an answer"));
                continue;
            }
            let prompt = self.turns[..i].iter().map(Turn::message);
            match self.example(source, prompt.collect(), &truth) {
                Ok(example) => made.examples.push(example),
                Err(RowFaults(others)) => faults.extend(others),
            }
        }
        if answers == 0 {
            faults.push(RowFault::new(self.field, "an answer of the assistant", "none"));
        }
        if faults.is_empty() { Ok(made) } else { Err(RowFaults(faults)) }
    }

    fn example(
        &self,
        source: &str,
        prompt: Value,
        truth: &GroundTruth,
    ) -> Result<Example, RowFaults> {
        let example = Example::from_value(json!({
            "data_source": source,
            "prompt": prompt,
            "tools": self.tools,
            "ability": "tool_calling",
            "reward_model": {"ground_truth": truth.to_value(), "style": "rule"},
            "extra_info": self.extra_info,
        }))?;
        let faults = check(&example);
        if faults.is_empty() { Ok(example) } else { Err(RowFaults(faults)) }
    }
}

/// Drops nulls that stand for arguments that are not there.
fn drop_absent(call: &mut Call, tools: &[Tool]) {
    let Some(tool) = tools.iter().find(|tool| tool.name == call.name) else { return };
    let nullable = |name: &str| {
        let schema = tool.properties().find(|(property, _)| *property == name);
        let kind = schema.and_then(|(_, schema)| schema.get("type"));
        match kind {
            Some(Value::String(kind)) => kind == "null",
            Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "null"),
            _ => schema.is_some(),
        }
    };
    let required: Vec<&str> = tool.required().collect();
    call.arguments.retain(|name, value| {
        !value.is_null() || required.contains(&name.as_str()) || nullable(name)
    });
}

/// The role that a name of any of the formats means.
pub(super) fn role(name: &str) -> Option<Role> {
    Some(match name {
        "system" | "developer" => Role::System,
        "user" | "human" => Role::User,
        "assistant" | "gpt" | "model" | "function_call" | "function-call" => Role::Assistant,
        "tool" | "function" | "observation" | "ipython" | "function_response" => Role::Tool,
        _ => return None,
    })
}
