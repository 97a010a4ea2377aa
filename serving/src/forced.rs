//! A call that must be made: its beginning is written for the model, in the words of the model's own template.
//!
//! Invariant: with `tool_choice` required the name that is called is one of the offered ones, and with a named
//! tool it is that one. The arguments are the model's own, so they may be wrong, or cut off by the token limit.

use crate::loaded::Loaded;
use crate::request::{ChatRequest, ToolChoice, tool_name};
use octet_policy::sampler::Guide;
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;

/// Stand for a name and an argument where the template is asked how it writes a call.
const NAME: &str = "octet_name_of_the_tool";
const ARGUMENT: &str = "octet_first_argument";

/// What a model may write while it chooses a name, by its tokens' texts.
#[derive(Clone)]
pub(crate) struct Guidance {
    texts: Arc<Vec<String>>,
    /// The names, each with the quote that ends it.
    names: Vec<String>,
}

/// The beginning of the answer, and what may follow it; both empty where nothing is asked for. `prompt` is the
/// rendered conversation.
pub(crate) fn forced(
    loaded: &Loaded,
    request: &ChatRequest,
    prompt: &str,
) -> (String, Option<Guidance>) {
    let named = match &request.choice {
        ToolChoice::None | ToolChoice::Auto => return (String::new(), None),
        ToolChoice::Named(name) => Some(name.as_str()),
        ToolChoice::Required if request.tools.len() == 1 => Some(tool_name(&request.tools[0])),
        ToolChoice::Required => None,
    };
    let example = example(loaded, request, named.unwrap_or(NAME), prompt);
    match named {
        Some(name) => (before_arguments(&example, name), None),
        None => {
            let names = request.tools.iter().map(|tool| quoted(tool_name(tool))).collect();
            (before_name(&example), Some(Guidance { texts: loaded.texts(), names }))
        }
    }
}

/// How the template writes a call to `name` behind the prompt; empty where it writes none there.
fn example(loaded: &Loaded, request: &ChatRequest, name: &str, prompt: &str) -> String {
    let mut messages = request.messages.clone();
    messages.push(json!({
        "role": "assistant",
        "content": "",
        "tool_calls": [{
            "id": "call_0",
            "type": "function",
            "function": { "name": name, "arguments": { ARGUMENT: 1 } },
        }],
    }));
    let rendered = loaded.render(&messages, &request.tools, false).unwrap_or_default();
    rendered.strip_prefix(prompt).unwrap_or_default().to_owned()
}

/// What stands before the arguments, without the space that the model's own token brings.
fn before_arguments(example: &str, name: &str) -> String {
    let begin = example.find(ARGUMENT).and_then(|at| example[..at].rfind('{'));
    match begin {
        Some(at) if example[..at].contains(name) => example[..at].trim_end().to_owned(),
        _ => format!("<tool_call>\n{{\"name\": {}, \"arguments\":", Value::from(name)),
    }
}

/// What stands before the name, its opening quote included.
fn before_name(example: &str) -> String {
    match example.find(NAME) {
        Some(at) if example[..at].ends_with('"') => example[..at].to_owned(),
        _ => "<tool_call>\n{\"name\": \"".to_owned(),
    }
}

/// A name as JSON writes it, without the opening quote.
fn quoted(name: &str) -> String {
    Value::from(name).to_string()[1..].to_owned()
}

impl Guide for Guidance {
    fn allowed(&self, written: &[u32]) -> Option<Vec<u32>> {
        let text = |id: &u32| self.texts.get(*id as usize).map_or("", String::as_str);
        let begun: String = written.iter().map(text).collect();
        if self.names.iter().any(|name| begun.starts_with(name)) {
            return None;
        }
        let open: Vec<&str> =
            self.names.iter().filter_map(|name| name.strip_prefix(begun.as_str())).collect();
        let fits = |text: &str| {
            let goes_on = |rest: &&str| rest.starts_with(text) || text.starts_with(*rest);
            !text.is_empty() && open.iter().any(goes_on)
        };
        let ids = (0..).zip(self.texts.iter()).filter(|(_, text)| fits(text));
        Some(ids.map(|(id, _)| id).collect())
    }
}

impl fmt::Debug for Guidance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guidance").field("names", &self.names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
