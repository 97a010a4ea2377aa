//! A row of a data set, as the documented format has it.
//!
//! Invariant: an [`Example`] keeps the row it was read from; writing it gives that row's JSON back,
//! with its keys in their order, fields unknown to us included.

use serde_json::{Map, Value};

use crate::fault::{RowFault, RowFaults, found};
use crate::truth::{Behaviour, GroundTruth};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The instructions.
    System,
    /// The person.
    User,
    /// The policy.
    Assistant,
    /// The result of a call.
    Tool,
}

impl Role {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Role::System, Role::User, Role::Assistant, Role::Tool]
            .into_iter()
            .find(|role| role.name() == name)
    }
}

/// A message of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The text; an assistant's message that only calls tools has none.
    pub content: Option<String>,
    /// The message as it was read: what a chat template gets.
    json: Map<String, Value>,
}

impl Message {
    /// A message of a role and a text.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        let content = content.into();
        let mut json = Map::new();
        json.insert("role".into(), role.name().into());
        json.insert("content".into(), content.clone().into());
        Message { role, content: Some(content), json }
    }

    /// The message's JSON object, `tool_calls`, `name` and other fields included.
    pub fn json(&self) -> &Map<String, Value> {
        &self.json
    }

    fn from_value(value: &Value, field: &str) -> Result<Self, RowFault> {
        let Value::Object(json) = value else {
            return Err(RowFault::new(
                field,
                "a message object with role and content",
                found(value),
            ));
        };
        let wanted = "\"system\", \"user\", \"assistant\" or \"tool\"";
        let role = match json.get("role") {
            Some(role) => role
                .as_str()
                .and_then(Role::parse)
                .ok_or_else(|| RowFault::new(&format!("{field}.role"), wanted, found(role)))?,
            None => return Err(RowFault::new(&format!("{field}.role"), wanted, "nothing")),
        };
        let content = Self::content(json, role, field)?;
        for (key, fits) in [
            ("name", json.get("name").is_none_or(|v| v.is_string() || v.is_null())),
            ("tool_calls", json.get("tool_calls").is_none_or(|v| v.is_array() || v.is_null())),
        ] {
            if !fits {
                let wanted = if key == "name" { "a text" } else { "a list of calls" };
                let what = json.get(key).map_or("nothing".into(), found);
                return Err(RowFault::new(&format!("{field}.{key}"), wanted, what));
            }
        }
        Ok(Message { role, content, json: json.clone() })
    }

    fn content(
        json: &Map<String, Value>,
        role: Role,
        field: &str,
    ) -> Result<Option<String>, RowFault> {
        let field = format!("{field}.content");
        match json.get("content") {
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Array(parts)) => {
                let texts = parts.iter().enumerate().map(|(i, part)| {
                    part.get("text").and_then(Value::as_str).ok_or_else(|| {
                        RowFault::new(&format!("{field}[{i}]"), "a part with a text", found(part))
                    })
                });
                texts.collect::<Result<Vec<_>, _>>().map(|texts| Some(texts.concat()))
            }
            None | Some(Value::Null) if role == Role::Assistant => Ok(None),
            Some(other) => Err(RowFault::new(&field, "a text", found(other))),
            None => Err(RowFault::new(&field, "a text", "nothing")),
        }
    }
}

/// A row: a prompt, the tools offered with it, and what the right answer is.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Where the row is from.
    pub data_source: Option<String>,
    /// The messages before the answer; never empty.
    pub prompt: Vec<Message>,
    /// The tools offered, each as it was written (see [`crate::Tool`] for their meaning).
    pub tools: Vec<Value>,
    /// What the row trains.
    pub ability: Option<String>,
    /// What the right answer is.
    pub ground_truth: GroundTruth,
    /// Whatever else its author wrote down.
    pub extra_info: Map<String, Value>,
    row: Value,
}

impl Example {
    /// Reads a row from its JSON text.
    pub fn from_json(text: &str) -> Result<Self, RowFaults> {
        match serde_json::from_str::<Value>(text) {
            Ok(row) => Self::from_value(row),
            Err(error) => Err(RowFaults(vec![crate::load::json_fault(text, &error)])),
        }
    }

    /// Reads a row from its JSON value.
    pub fn from_value(row: Value) -> Result<Self, RowFaults> {
        let Value::Object(map) = &row else {
            let fault = RowFault::new("row", "an object with prompt and reward_model", found(&row));
            return Err(RowFaults(vec![fault]));
        };
        let mut faults = Faulty::default();
        let prompt = faults.take(prompt(map)).unwrap_or_default();
        let tools = faults.take(tools(map)).unwrap_or_default();
        let ground_truth = faults.take(truth(map).map_err(|fault| vec![fault]));
        let data_source = faults.take(text(map, "data_source"));
        let ability = faults.take(text(map, "ability"));
        let extra_info = match map.get("extra_info") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(extra)) => extra.clone(),
            Some(other) => {
                faults.0.push(RowFault::new("extra_info", "an object", found(other)));
                Map::new()
            }
        };
        match ground_truth {
            Some(ground_truth) if faults.0.is_empty() => Ok(Example {
                data_source: data_source.flatten(),
                prompt,
                tools,
                ability: ability.flatten(),
                ground_truth,
                extra_info,
                row,
            }),
            _ => Err(RowFaults(faults.0)),
        }
    }

    /// The row's JSON on one line, as it was read.
    pub fn to_json(&self) -> String {
        self.row.to_string()
    }

    /// The row's JSON value, as it was read.
    pub fn row(&self) -> &Value {
        &self.row
    }

    /// The behaviour that the row asks for.
    pub fn behaviour(&self) -> Behaviour {
        self.ground_truth.behaviour()
    }

    /// The text of the last user message, or nothing where there is none.
    pub fn request(&self) -> &str {
        let user = self.prompt.iter().rev().find(|message| message.role == Role::User);
        user.and_then(|message| message.content.as_deref()).unwrap_or_default()
    }
}

#[derive(Default)]
struct Faulty(Vec<RowFault>);

impl Faulty {
    fn take<T>(&mut self, result: Result<T, Vec<RowFault>>) -> Option<T> {
        result.map_err(|faults| self.0.extend(faults)).ok()
    }
}

fn text(map: &Map<String, Value>, key: &str) -> Result<Option<String>, Vec<RowFault>> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(vec![RowFault::new(key, "a text", found(other))]),
    }
}

fn prompt(map: &Map<String, Value>) -> Result<Vec<Message>, Vec<RowFault>> {
    const WANTED: &str = "a list of at least one message";
    match map.get("prompt") {
        Some(Value::Array(messages)) if !messages.is_empty() => {
            let mut faults = Vec::new();
            let read = messages.iter().enumerate().filter_map(|(i, message)| {
                Message::from_value(message, &format!("prompt[{i}]"))
                    .map_err(|fault| faults.push(fault))
                    .ok()
            });
            let read: Vec<Message> = read.collect();
            if faults.is_empty() { Ok(read) } else { Err(faults) }
        }
        Some(Value::Array(_)) => Err(vec![RowFault::new("prompt", WANTED, "an empty list")]),
        Some(other) => Err(vec![RowFault::new("prompt", WANTED, found(other))]),
        None => Err(vec![RowFault::new("prompt", WANTED, "nothing")]),
    }
}

fn tools(map: &Map<String, Value>) -> Result<Vec<Value>, Vec<RowFault>> {
    match map.get("tools") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(tools)) => Ok(tools.clone()),
        Some(other) => Err(vec![RowFault::new("tools", "a list of tool schemas", found(other))]),
    }
}

fn truth(map: &Map<String, Value>) -> Result<GroundTruth, RowFault> {
    let model = match map.get("reward_model") {
        Some(Value::Object(model)) => model,
        Some(other) => {
            return Err(RowFault::new("reward_model", "an object with ground_truth", found(other)));
        }
        None => {
            return Err(RowFault::new("reward_model", "an object with ground_truth", "nothing"));
        }
    };
    let field = "reward_model.ground_truth";
    match model.get("ground_truth") {
        Some(value) => GroundTruth::from_value(value, field),
        None => Err(RowFault::new(field, "a call, a behaviour or a text", "nothing")),
    }
}
