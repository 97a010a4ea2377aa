//! What policies earn that have learned nothing, so that nobody mistakes silence for skill.
//!
//! Invariant: a trivial policy reads the tools and never the request or the ground truth.

use std::fmt;

use octet_dataset::{Behaviour, Example};
use serde_json::{Map, Value, json};

use crate::{
    function::{RewardFunction, score},
    tally::{Score, Tally, write_table},
};

#[cfg(test)]
mod tests;

/// A policy that gives the same kind of answer whatever it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrivialPolicy {
    /// Says nothing.
    NeverCalls,
    /// Calls the first tool with no arguments.
    FirstTool,
    /// Calls the first tool with each required argument guessed from the schema alone.
    FirstToolGuessed,
    /// Asks for more without saying what.
    AlwaysAsks,
    /// Asks for every parameter of every tool.
    AsksForAll,
    /// Refuses.
    AlwaysRefuses,
}

impl TrivialPolicy {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::NeverCalls,
        Self::FirstTool,
        Self::FirstToolGuessed,
        Self::AlwaysAsks,
        Self::AsksForAll,
        Self::AlwaysRefuses,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::NeverCalls => "never calls",
            Self::FirstTool => "always calls the first tool",
            Self::FirstToolGuessed => "the same, arguments guessed",
            Self::AlwaysAsks => "always asks",
            Self::AsksForAll => "always asks for everything",
            Self::AlwaysRefuses => "always refuses",
        }
    }

    /// What it answers to a prompt with these tools. Without a tool to call it says nothing.
    pub fn answer(self, tools: &[Value]) -> String {
        match self {
            Self::NeverCalls => String::new(),
            Self::FirstTool => first_call(tools, |_| Map::new()),
            Self::FirstToolGuessed => first_call(tools, guess),
            Self::AlwaysAsks => "Could you tell me more?".to_owned(),
            Self::AsksForAll => {
                let names = tools.iter().filter_map(properties).flat_map(Map::keys);
                let names: Vec<_> = names.map(|name| name.replace('_', " ")).collect();
                format!("Could you tell me the {}?", names.join(", the "))
            }
            Self::AlwaysRefuses => "Sorry, I can't help with that.".to_owned(),
        }
    }
}

/// What one trivial policy earns.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The policy.
    pub policy: TrivialPolicy,
    /// Its mean reward.
    pub mean_reward: f64,
    /// The share of examples on which it earns the most that the function gives.
    pub accuracy: f64,
    /// The same by behaviour.
    pub by_behaviour: Vec<(Behaviour, Score)>,
    tally: Tally,
}

/// What the trivial policies earn on a data set; prints as a table.
#[derive(Clone, Debug, PartialEq)]
pub struct TrivialTable {
    /// The reward function's name.
    pub function: String,
    /// One row a policy, in [`TrivialPolicy::ALL`]'s order.
    pub rows: Vec<Row>,
}

/// Scores the trivial policies on a data set.
pub fn table(examples: &[Example], function: &dyn RewardFunction) -> TrivialTable {
    let rows = TrivialPolicy::ALL.map(|policy| {
        let mut tally = Tally::default();
        for example in examples {
            let verdict = score(function, example, &policy.answer(&example.tools));
            tally.add(function, example.behaviour(), &verdict);
        }
        Row {
            policy,
            mean_reward: tally.overall.mean_reward(),
            accuracy: tally.overall.accuracy(),
            by_behaviour: tally.by_behaviour.iter().map(|(b, score)| (*b, *score)).collect(),
            tally,
        }
    });
    TrivialTable { function: function.name().to_owned(), rows: rows.into() }
}

impl fmt::Display for TrivialTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = format!("{}, a policy that", self.function);
        write_table(f, &title, self.rows.iter().map(|row| (row.policy.name(), &row.tally)))
    }
}

fn definition(tool: &Value) -> &Value {
    tool.get("function").unwrap_or(tool)
}

fn properties(tool: &Value) -> Option<&Map<String, Value>> {
    definition(tool).pointer("/parameters/properties")?.as_object()
}

fn first_call(tools: &[Value], arguments: impl Fn(&Value) -> Map<String, Value>) -> String {
    let Some(tool) = tools.first() else { return String::new() };
    let Some(name) = definition(tool).get("name") else { return String::new() };
    let call = json!({"name": name, "arguments": arguments(tool)});
    format!("<tool_call>\n{call}\n</tool_call>")
}

/// Each required argument as the schema suggests it: its default, its first choice, or its type's nought.
fn guess(tool: &Value) -> Map<String, Value> {
    let required = definition(tool).pointer("/parameters/required").and_then(Value::as_array);
    let required = required.into_iter().flatten().filter_map(Value::as_str);
    let schema_of = |name| properties(tool).and_then(|properties| properties.get(name));
    required.map(|name| (name.to_owned(), guess_value(schema_of(name)))).collect()
}

fn guess_value(schema: Option<&Value>) -> Value {
    let Some(schema) = schema else { return Value::Null };
    if let Some(default) = schema.get("default") {
        return default.clone();
    }
    if let Some(first) = schema.pointer("/enum/0") {
        return first.clone();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => json!(""),
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => Value::Null,
    }
}
