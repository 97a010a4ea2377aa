//! ToolACE's rows: `system` with a JSON list of functions in its text, and `conversations` whose answers call
//! like `[Market Trends API(trend_type="INDEXES", country="us"), other()]`.
//!
//! The system text is dropped where the functions were taken from it: it teaches the format, and a chat template
//! says that in its own words.

use serde_json::{Map, Value};

use super::conversation::{Conversation, PlacedCall, Turn};
use super::{hermes, python, schema};
use crate::example::Role;
use crate::fault::{RowFault, RowFaults, found};

pub(super) fn read(row: &Value) -> Result<Conversation, RowFaults> {
    let one = |fault| RowFaults(vec![fault]);
    let system = schema::text(row, "system").map_err(one)?;
    let stated = functions(system);
    let mut turns = Vec::new();
    if stated.is_none() && !system.trim().is_empty() {
        turns.push(Turn::new(Role::System, system));
    }
    let items = match row.get("conversations") {
        Some(Value::Array(items)) if !items.is_empty() => items,
        other => {
            let what = other.map_or("nothing".into(), found);
            let wanted = "a list of turns with from and value";
            return Err(one(RowFault::new("conversations", wanted, what)));
        }
    };
    let mut faults = Vec::new();
    for (i, item) in items.iter().enumerate() {
        match turn(item, &format!("conversations[{i}]")) {
            Ok(turn) => turns.push(turn),
            Err(fault) => faults.push(fault),
        }
    }
    let tools = schema::tools(&stated.unwrap_or_default(), "system.functions");
    let tools = tools.map_err(|found| faults.extend(found)).unwrap_or_default();
    if !faults.is_empty() {
        return Err(RowFaults(faults));
    }
    let field = "conversations";
    let extra_info = Map::new();
    Ok(Conversation { tools, turns, answers_from: 0, field, silence_refuses: false, extra_info })
}

fn turn(item: &Value, field: &str) -> Result<Turn, RowFault> {
    let mut turn = hermes::spoken(item, field)?;
    if turn.role == Role::Assistant && python::looks_like_calls(&turn.content) {
        let field = format!("{field}.value");
        let calls = python::calls(&turn.content)
            .map_err(|why| RowFault::new(&field, "calls like [f(a=1, b=\"x\")]", why))?;
        let placed = calls.into_iter().enumerate();
        turn.calls = placed
            .map(|(i, call)| PlacedCall::new(call, &format!("{field}[{i}]"), "arguments"))
            .collect();
        turn.content.clear();
    }
    Ok(turn)
}

/// The first JSON list of objects in a text.
fn functions(text: &str) -> Option<Vec<Value>> {
    text.match_indices('[').find_map(|(at, _)| {
        let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        match values.next() {
            Some(Ok(Value::Array(items)))
                if items.iter().all(Value::is_object) && !items.is_empty() =>
            {
                Some(items)
            }
            _ => None,
        }
    })
}
