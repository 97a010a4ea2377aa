//! A chat completion request as strangers send it, read into what can be computed.
//!
//! Invariant: any bytes give a request within the limits or a [`Refusal`] that names the parameter. What would
//! change the completion and is not computed here is refused, never passed over; what cannot is ignored.

mod fields;
mod messages;
mod tools;

pub(crate) use tools::name as tool_name;

use crate::error::Refusal;
use fields::{Fields, describe};
use octet_policy::kernel::head::Shaping;
use serde_json::{Map, Value, json};

/// What a request may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Completions of one request.
    pub completions: usize,
    /// Tokens of one completion.
    pub max_tokens: usize,
}

/// Messages of one conversation.
pub const MOST_MESSAGES: usize = 4096;
/// Tools of one request.
pub const MOST_TOOLS: usize = 1024;
/// Strings that end a completion.
pub const MOST_STOPS: usize = 16;
/// Bytes of a string that ends a completion.
pub const LONGEST_STOP: usize = 256;
/// Likely tokens beside each sampled one.
pub const MOST_LIKELIEST: usize = 20;

/// Whether the completion is to call a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    /// It may not: it is not shown the tools.
    None,
    /// As it sees fit.
    Auto,
    /// It must call one.
    Required,
    /// It must call this one.
    Named(String),
}

/// A request that can be computed.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// The model that is asked for; absent for whichever is served.
    pub model: Option<String>,
    /// The conversation as chat templates read it: contents are strings, arguments are objects.
    pub messages: Vec<Value>,
    /// Schemas of the tools.
    pub tools: Vec<Value>,
    /// Whether a tool is to be called.
    pub choice: ToolChoice,
    /// Whether more than one call is given back.
    pub parallel: bool,
    /// Whether the answer comes in pieces.
    pub stream: bool,
    /// Whether a stream ends with the usage.
    pub include_usage: bool,
    /// Completions.
    pub completions: usize,
    /// Keys the random numbers; absent for one that the server draws.
    pub seed: Option<u64>,
    /// How logits become a distribution.
    pub shaping: Shaping,
    /// Most tokens of a completion; absent for as many as there is room for.
    pub max_tokens: Option<usize>,
    /// Strings that end a completion and are no part of it.
    pub stops: Vec<String>,
    /// How many likely tokens are told beside each sampled one; absent where log-probabilities are not.
    pub likeliest: Option<usize>,
}

/// Parameters that change no completion.
const IGNORED: [&str; 8] = [
    "user",
    "store",
    "metadata",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prediction",
];

/// Parameters that are not computed here, each with the value that asks for nothing.
fn neutral() -> [(&'static str, Value); 11] {
    [
        ("frequency_penalty", json!(0)),
        ("presence_penalty", json!(0)),
        ("repetition_penalty", json!(1)),
        ("min_p", json!(0)),
        ("best_of", json!(1)),
        ("logit_bias", json!({})),
        ("response_format", json!({ "type": "text" })),
        ("modalities", json!(["text"])),
        ("functions", json!([])),
        ("function_call", json!("none")),
        ("reasoning_effort", json!("none")),
    ]
}

/// Parameters that are read.
const KNOWN: [&str; 17] = [
    "model",
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "stream",
    "stream_options",
    "n",
    "seed",
    "temperature",
    "top_p",
    "top_k",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "logprobs",
    "top_logprobs",
];

impl ChatRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// The first parameter that cannot be read, with what was expected and what was found.
    pub fn read(body: &[u8], limits: Limits) -> Result<Self, Refusal> {
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| Refusal::Body { found: format!("something else: {error}") })?;
        let Value::Object(object) = value else {
            return Err(Refusal::Body { found: octet_calls::kind(&value).into() });
        };
        let mut fields = Fields::new(object, "");
        let tools = tools::read(fields.take("tools"))?;
        let choice = tools::choice(fields.take("tool_choice"), &tools)?;
        let stream = fields.boolean("stream")?.unwrap_or(false);
        let request = Self {
            model: fields.string("model")?,
            messages: messages::read(fields.take("messages"))?,
            tools,
            choice,
            parallel: fields.boolean("parallel_tool_calls")?.unwrap_or(true),
            stream,
            include_usage: include_usage(fields.take("stream_options"), stream)?,
            completions: fields.whole("n", 1, limits.completions)?.unwrap_or(1),
            seed: fields.seed("seed")?,
            shaping: Shaping {
                temperature: fields.number("temperature", 0.0, 2.0)?.unwrap_or(1.0),
                top_p: top_p(&mut fields)?,
                top_k: fields.whole("top_k", 0, u32::MAX as usize)?.unwrap_or(0),
            },
            max_tokens: max_tokens(&mut fields, limits)?,
            stops: stops(fields.take("stop"))?,
            likeliest: likeliest(&mut fields)?,
        };
        nothing_else(fields.rest())?;
        Ok(request)
    }
}

/// A nucleus of nothing has no token in it.
fn top_p(fields: &mut Fields) -> Result<f32, Refusal> {
    match fields.number("top_p", 0.0, 1.0)? {
        None => Ok(1.0),
        Some(p) if p > 0.0 => Ok(p),
        Some(p) => Err(Refusal::parameter("top_p", "a number above 0, at most 1", p.to_string())),
    }
}

fn max_tokens(fields: &mut Fields, limits: Limits) -> Result<Option<usize>, Refusal> {
    let new = fields.whole("max_completion_tokens", 1, limits.max_tokens)?;
    let old = fields.whole("max_tokens", 1, limits.max_tokens)?;
    match (new, old) {
        (Some(new), Some(old)) if new != old => Err(Refusal::parameter(
            "max_tokens",
            format!("the same as max_completion_tokens ({new}), or none"),
            old.to_string(),
        )),
        (new, old) => Ok(new.or(old)),
    }
}

fn likeliest(fields: &mut Fields) -> Result<Option<usize>, Refusal> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let count = fields.whole("top_logprobs", 0, MOST_LIKELIEST)?;
    match (wanted, count) {
        (true, count) => Ok(Some(count.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(count)) => Err(Refusal::parameter(
            "top_logprobs",
            "logprobs to be true beside it",
            format!("{count} without it"),
        )),
    }
}

fn include_usage(options: Option<Value>, stream: bool) -> Result<bool, Refusal> {
    let Some(options) = options else { return Ok(false) };
    let Value::Object(options) = options else {
        return Err(Refusal::parameter("stream_options", "an object", describe(&options)));
    };
    if !stream {
        let found = "stream_options without it";
        return Err(Refusal::parameter("stream_options", "stream to be true beside it", found));
    }
    let mut fields = Fields::new(options, "stream_options.");
    let wanted = fields.boolean("include_usage")?.unwrap_or(false);
    // Padding against listeners on the way; it carries nothing.
    fields.boolean("include_obfuscation")?;
    match fields.rest().keys().next() {
        Some(key) => {
            let param = format!("stream_options.{}", fields::cut(key));
            Err(Refusal::Unknown { param, near: None })
        }
        None => Ok(wanted),
    }
}

fn stops(value: Option<Value>) -> Result<Vec<String>, Refusal> {
    let expected =
        format!("a string, or a list of at most {MOST_STOPS}, each of 1 to {LONGEST_STOP} bytes");
    let values = match value {
        None => return Ok(Vec::new()),
        Some(Value::Array(values)) => values,
        Some(value) => vec![value],
    };
    if values.len() > MOST_STOPS {
        return Err(Refusal::parameter("stop", expected, format!("{} of them", values.len())));
    }
    let read = |value: Value| match value {
        Value::String(text) if (1..=LONGEST_STOP).contains(&text.len()) => Ok(text),
        other => Err(Refusal::parameter("stop", &*expected, describe(&other))),
    };
    values.into_iter().map(read).collect()
}

/// What is left over must ask for nothing.
fn nothing_else(rest: Map<String, Value>) -> Result<(), Refusal> {
    let neutral = neutral();
    for (key, value) in rest {
        if IGNORED.contains(&key.as_str()) {
            continue;
        }
        let Some((_, nothing)) = neutral.iter().find(|(name, _)| *name == key) else {
            let all = KNOWN.iter().chain(&IGNORED).copied();
            let near = all.map(|name| (strsim::jaro_winkler(name, &key), name));
            let near =
                near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(likeness, _)| *likeness > 0.8);
            let near = near.map(|(_, name)| name.to_owned());
            return Err(Refusal::Unknown { param: fields::cut(&key), near });
        };
        // 0 and 0.0 ask for the same.
        let same = match (value.as_f64(), nothing.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => value == *nothing,
        };
        if !same {
            let expected = format!("{nothing} or nothing: it is not computed here");
            return Err(Refusal::parameter(key, expected, describe(&value)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
