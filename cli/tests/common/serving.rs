//! `octet serve` under test: a process of its own, requests for it, and what a client makes of the pieces.

use std::path::Path;

use serde_json::{Value, json};

use super::cluster::Node;

/// A server of the bundled policy, or of what `more` says, and its address.
pub fn serve(home: &Path, more: &[&str]) -> (Node, String) {
    let words = [&["serve", "--listen", "127.0.0.1:0"], more].concat();
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let mut node = Node::spawn(home, &words);
    let line = node.line("http://");
    let at = line.split_once("http://").unwrap().1.split('/').next().unwrap().to_owned();
    (node, at)
}

/// What the bundled policy was trained with.
pub const SYSTEM: &str = "You call tools. If a required value is missing, ask for it. If no tool fits or the request is \
    harmful, refuse.";
pub const FORECAST: &str = "Please get the forecast with city Paris and days 3.";
pub const OFFERED: [&str; 2] = ["get_forecast", "get_match_score"];

pub fn tools() -> Value {
    json!([{"type": "function", "function": {
        "name": "get_forecast",
        "description": "Forecast for a city",
        "parameters": {"type": "object", "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
        }, "required": ["city", "days"]},
    }}, {"type": "function", "function": {
        "name": "get_match_score",
        "description": "Score of a match",
        "parameters": {"type": "object", "properties": {"team": {"type": "string"}}, "required": ["team"]},
    }}])
}

pub fn question(text: &str) -> Value {
    json!({"messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]})
}

pub fn with(mut body: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("{changes}") };
    body.as_object_mut().unwrap().extend(changes);
    body
}

/// What a client makes of the pieces of choice `index`: content, calls, and how it ended.
pub fn put_together(events: &[Value], index: u64) -> Value {
    let (mut content, mut calls, mut finish) = (String::new(), Vec::<Value>::new(), Value::Null);
    for event in events {
        let Some(choice) = event["choices"].as_array().unwrap().first() else { continue };
        if choice["index"].as_u64() != Some(index) {
            continue;
        }
        let delta = &choice["delta"];
        content.push_str(delta["content"].as_str().unwrap_or_default());
        for part in delta["tool_calls"].as_array().into_iter().flatten() {
            let at = part["index"].as_u64().unwrap() as usize;
            if at == calls.len() {
                assert!(part["id"].as_str().unwrap().starts_with("call_"));
                calls.push(json!({"name": part["function"]["name"], "arguments": ""}));
            }
            let more = part["function"]["arguments"].as_str().unwrap();
            calls[at]["arguments"] =
                json!(calls[at]["arguments"].as_str().unwrap().to_owned() + more);
        }
        if !choice["finish_reason"].is_null() {
            assert!(finish.is_null(), "a choice ended twice");
            finish = choice["finish_reason"].clone();
        }
    }
    json!({"content": content, "calls": calls, "finish": finish})
}

/// The same of a choice that came whole.
pub fn of(choice: &Value) -> Value {
    let message = &choice["message"];
    let calls: Vec<Value> = message["tool_calls"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|call| {
            assert_eq!(call["type"], "function");
            json!({"name": call["function"]["name"], "arguments": call["function"]["arguments"]})
        })
        .collect();
    let content = message["content"].as_str().unwrap_or_default();
    json!({"content": content, "calls": calls, "finish": choice["finish_reason"]})
}
