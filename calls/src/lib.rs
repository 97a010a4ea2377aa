//! From a completion's text to the calls in it, the text around them, and what was rejected and why.
//!
//! What counts as a call, in the order it is looked for:
//!
//! - `<tool_call>…</tool_call>`, several in a row, each holding one call or a list of calls. A `</tool_call>`
//!   inside a JSON string does not end a block. **A block without its end counts if the JSON in it is
//!   complete**, as the last one does in vLLM's Hermes parser: the completion ran into its token limit
//!   just before the tag. If the JSON is not complete the block is rejected with both reasons.
//! - JSON in the rest of the text, in a code fence (`json`, `xml`, `tool_call` or no language) or not: an
//!   object or a list. Fences of other languages are text, whatever is in them. Blocks come first: a
//!   `<tool_call>` inside a string of such JSON begins a block and breaks it.
//! - In each: `{"name", "arguments"}` or `"parameters"` (an object, or its JSON in a string; missing, null
//!   or an empty string means no arguments), `{"function": {…}}`, `{"tool_call": {…}}`, and messages with
//!   `"tool_calls": […]`.
//!
//! A key given twice in one object rejects it as ambiguous, since parsers differ in which one they keep.
//! A leading `<think>…</think>` is neither searched nor part of the text.
//!
//! A crate of its own because two must read alike: what is rewarded in training is what is served as
//! `tool_calls`, and a server has no use for a reward.
//!
//! Invariants: never panics; time is linear in the text, whatever it holds (a scan goes on where reading
//! failed, never from where it began); depth, length and the number of candidates are bounded; the kept
//! text and the spans of the rejections are slices of the completion.

mod json;
mod reject;
mod shape;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

pub use self::{
    json::{JsonFault, JsonFaultKind, MAX_DEPTH, excerpt},
    reject::{Form, Reason, Rejection},
    shape::kind,
};

/// The longest completion that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// How many calls and rejections one completion may have.
pub const MAX_CALLS: usize = 64;
/// How many brackets in the text are tried as the start of a call.
pub const MAX_BRACKETS: usize = 1024;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const FENCE: &str = "```";
const SEARCHED_FENCES: [&str; 6] = ["", "json", "xml", "tool_call", "tool_calls", "tool_code"];

/// A call as a completion wrote it.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedCall {
    /// The tool's name.
    pub name: String,
    /// Its arguments, in the order written.
    pub arguments: Map<String, Value>,
}

/// What is in a completion.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// The calls, in the order written.
    pub calls: Vec<ParsedCall>,
    /// What is neither call, nor rejected, nor a fence's mark; trimmed.
    pub text_outside: String,
    /// What was meant as a call and is none.
    pub rejected: Vec<Rejection>,
}

impl Parsed {
    /// True when the completion neither calls nor tries to.
    pub fn is_text(&self) -> bool {
        self.calls.is_empty() && self.rejected.is_empty()
    }
}

/// Reads a completion.
pub fn parse(completion: &str) -> Parsed {
    if completion.len() > MAX_BYTES {
        let why = Reason::TooLong { found: completion.len(), limit: MAX_BYTES };
        let whole = Rejection { form: Form::Whole, span: 0..completion.len(), why };
        return Parsed { rejected: vec![whole], ..Parsed::default() };
    }
    let mut scan = Scan { text: completion, parsed: Parsed::default(), brackets: 0, full: false };
    scan.all(after_thinking(completion));
    let kept = scan.parsed.text_outside.trim().to_owned();
    Parsed { text_outside: kept, ..scan.parsed }
}

/// Where the text behind a leading `<think>` block begins.
fn after_thinking(text: &str) -> usize {
    let lead = text.len() - text.trim_start().len();
    if !slice(text, lead, text.len()).starts_with("<think>") {
        return 0;
    }
    find(text, lead, "</think>").map_or(text.len(), |at| at + "</think>".len())
}

struct Scan<'a> {
    text: &'a str,
    parsed: Parsed,
    brackets: usize,
    /// No more candidates are looked at.
    full: bool,
}

impl Scan<'_> {
    fn all(&mut self, mut at: usize) {
        while let Some(open) = find(self.text, at, OPEN) {
            self.prose(at, open);
            if self.full {
                return self.keep(open, self.text.len());
            }
            at = self.block(open);
        }
        self.prose(at, self.text.len());
    }

    /// Reads the block that opens at `open`; returns where to go on.
    fn block(&mut self, open: usize) -> usize {
        let body = open + OPEN.len();
        let (value, read) = json::read_value(slice(self.text, body, self.text.len()));
        let read = body + read;
        // Behind the JSON, or where it failed. Another opening tag ends a block that lacks its end.
        let next = find(self.text, read, OPEN).unwrap_or(self.text.len());
        let close = find(slice(self.text, 0, next), read, CLOSE);
        let (inner_end, end) = close.map_or((next, next), |close| (close, close + CLOSE.len()));
        let span = open..end;
        let rest = slice(self.text, read, inner_end);
        match value {
            Ok(value) => match rest.trim_start().chars().next() {
                None => self.take(value, Form::Tagged, span),
                Some(found) => {
                    let at = read - body + (rest.len() - rest.trim_start().len());
                    let fault = JsonFault { at, kind: JsonFaultKind::Trailing { found } };
                    self.reject(Form::Tagged, span, Reason::Json(fault));
                }
            },
            Err(_) if slice(self.text, body, inner_end).trim().is_empty() => {
                self.reject(Form::Tagged, span, Reason::Empty);
            }
            Err(fault) if close.is_some() => self.reject(Form::Tagged, span, Reason::Json(fault)),
            Err(fault) => self.reject(Form::Tagged, span, Reason::Unclosed(fault)),
        }
        end
    }

    /// Reads what lies between blocks: fences, brackets and plain text.
    fn prose(&mut self, mut at: usize, end: usize) {
        let mut in_fence = false;
        while at < end && !self.full {
            let rest = slice(self.text, at, end);
            let Some(step) = rest.find(['{', '[', '`']) else { break };
            self.keep(at, at + step);
            at += step;
            let rest = slice(self.text, at, end);
            if rest.starts_with(FENCE) {
                at = self.fence(at, end, &mut in_fence);
            } else if rest.starts_with('`') {
                self.keep(at, at + 1);
                at += 1;
            } else {
                at = self.bracket(at, end);
            }
        }
        self.keep(at, end);
    }

    /// Passes a fence's mark, and the fence with it if its language is none that calls are written in.
    fn fence(&mut self, at: usize, end: usize, in_fence: &mut bool) -> usize {
        let mark = at + FENCE.len();
        if std::mem::take(in_fence) {
            return mark;
        }
        let rest = slice(self.text, mark, end);
        let word = rest.find(|c: char| !(c.is_alphanumeric() || "_-+#.".contains(c)));
        let language = &rest[..word.unwrap_or(rest.len())];
        if SEARCHED_FENCES.iter().any(|known| language.eq_ignore_ascii_case(known)) {
            *in_fence = true;
            return mark + language.len();
        }
        let close = rest.find(FENCE).map_or(end, |close| mark + close + FENCE.len());
        self.keep(at, close);
        close
    }

    /// Tries the bracket at `at` as the start of a call; returns where to go on.
    fn bracket(&mut self, at: usize, end: usize) -> usize {
        if self.brackets == MAX_BRACKETS {
            self.overflow(at, end, MAX_BRACKETS);
            return at;
        }
        self.brackets += 1;
        let (value, read) = json::read_value(slice(self.text, at, end));
        // Every bracket is at least one byte, so this always moves on.
        let stop = at + read.max(1);
        match value {
            Ok(value) if looks_like_call(&value) => self.take(value, Form::Bare, at..stop),
            Err(fault) if text_looks_like_call(slice(self.text, at, end), stop - at) => {
                self.reject(Form::Bare, at..stop, Reason::Json(fault));
            }
            _ => self.keep(at, stop),
        }
        stop
    }

    fn take(&mut self, value: Value, form: Form, span: std::ops::Range<usize>) {
        let mut found = Vec::new();
        shape::calls(value, form, &mut found);
        for result in found {
            match result {
                Ok(_) if self.is_full() => return self.overflow(span.start, span.end, MAX_CALLS),
                Ok(call) => self.parsed.calls.push(call),
                Err(why) => self.reject(form, span.clone(), why),
            }
            if self.full {
                return;
            }
        }
    }

    fn reject(&mut self, form: Form, span: std::ops::Range<usize>, why: Reason) {
        if self.is_full() {
            return self.overflow(span.start, span.end, MAX_CALLS);
        }
        self.parsed.rejected.push(Rejection { form, span, why });
    }

    fn is_full(&self) -> bool {
        self.parsed.calls.len() + self.parsed.rejected.len() >= MAX_CALLS
    }

    fn overflow(&mut self, start: usize, end: usize, limit: usize) {
        self.full = true;
        let why = Reason::TooMany { limit };
        self.parsed.rejected.push(Rejection { form: Form::Whole, span: start..end, why });
    }

    fn keep(&mut self, start: usize, end: usize) {
        self.parsed.text_outside.push_str(slice(self.text, start, end));
    }
}

fn slice(text: &str, start: usize, end: usize) -> &str {
    text.get(start..end).unwrap_or_default()
}

fn find(text: &str, from: usize, needle: &str) -> Option<usize> {
    text.get(from..).and_then(|rest| rest.find(needle)).map(|at| from + at)
}

const CALL_KEYS: [&str; 6] =
    ["name", "arguments", "parameters", "function", "tool_call", "tool_calls"];

fn looks_like_call(value: &Value) -> bool {
    match value {
        Value::Object(object) => CALL_KEYS.iter().any(|key| object.contains_key(*key)),
        Value::Array(items) => items.iter().any(|item| item.is_object() && looks_like_call(item)),
        _ => false,
    }
}

/// The same for text that is no JSON: an object, or a list of them, with a quoted key of a call. Looks
/// only as far as reading came and a little further, to stay linear; not past the next object, which
/// is tried by itself.
fn text_looks_like_call(text: &str, read: usize) -> bool {
    const FURTHER: usize = 64;
    let ahead = slice(text, read, text.len());
    let further = ahead.char_indices().nth(FURTHER).map_or(ahead.len(), |(at, _)| at);
    let further = slice(ahead, 0, further).find('{').unwrap_or(further);
    let window = slice(text, 0, read + further);
    window.trim_start_matches(['[', ' ', '\n', '\r', '\t']).starts_with('{')
        && CALL_KEYS.iter().any(|key| {
            ['"', '\''].iter().any(|quote| window.contains(&format!("{quote}{key}{quote}")))
        })
}
