//! xLAM's rows: `query`, `tools` and `answers`, the last two as lists or as their JSON in a text.
//!
//! No answers at all mean that no tool serves the query: a refusal.

use serde_json::{Map, Value};

use super::conversation::{Conversation, PlacedCall, Turn};
use super::{list_or_text, schema};
use crate::example::Role;
use crate::fault::{RowFault, RowFaults};
use crate::truth;

pub(super) fn read(row: &Value) -> Result<Conversation, RowFaults> {
    let mut faults = Vec::new();
    let query = schema::text(row, "query").map_err(|fault| faults.push(fault)).unwrap_or_default();
    let tools = list(row, "tools").map_err(|fault| vec![fault]);
    let tools = tools.and_then(|tools| schema::tools(&tools, "tools"));
    let tools = tools.map_err(|found| faults.extend(found)).unwrap_or_default();
    let answers = list(row, "answers").map_err(|fault| faults.push(fault)).unwrap_or_default();
    let mut answer = Turn::new(Role::Assistant, "");
    for (i, value) in answers.iter().enumerate() {
        let field = format!("answers[{i}]");
        match truth::call(value, &field) {
            Ok(call) => answer.calls.push(PlacedCall::new(call, &field, "arguments")),
            Err(fault) => faults.push(fault),
        }
    }
    if !faults.is_empty() {
        return Err(RowFaults(faults));
    }
    let mut extra_info = Map::new();
    if let Some(id) = row.get("id") {
        extra_info.insert("id".into(), id.clone());
    }
    Ok(Conversation {
        tools,
        turns: vec![Turn::new(Role::User, query), answer],
        answers_from: 1,
        field: "answers",
        silence_refuses: true,
        extra_info,
    })
}

fn list(row: &Value, key: &str) -> Result<Vec<Value>, RowFault> {
    list_or_text(row, key)?
        .ok_or_else(|| RowFault::new(key, "a list, or a list's JSON as a text", "nothing"))
}
