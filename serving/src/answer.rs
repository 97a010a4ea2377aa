//! The shapes of OpenAI's answers.
//!
//! Invariant: an answer that is not streamed is made of the same news as the pieces of one that is.

use crate::choice::{Delta, FinishReason, News, NotedToken, token_text};
use crate::loaded::Loaded;
use octet_calls::ParsedCall;
use octet_policy::tokenizer::TokenizerError;
use serde_json::{Value, json};

/// What every part of an answer says.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// Names the answer.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's name.
    pub model: String,
    /// Names the weights.
    pub fingerprint: String,
    /// Whether the pieces of a stream have the key `usage`.
    pub usage: bool,
}

/// Tokens that an answer took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Of the prompt, once.
    pub prompt: usize,
    /// Of all choices.
    pub completion: usize,
}

/// An answer's choice, put together.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    content: String,
    calls: Vec<ParsedCall>,
    tokens: Vec<NotedToken>,
    finish: Option<FinishReason>,
}

impl FinishReason {
    fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
        }
    }
}

impl Usage {
    fn json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        })
    }
}

impl Collected {
    /// Adds what is new.
    pub(crate) fn add(&mut self, news: News) {
        for delta in news.deltas {
            match delta {
                Delta::Content(text) => self.content.push_str(&text),
                Delta::Call(call) => self.calls.push(call),
            }
        }
        self.tokens.extend(news.tokens);
        self.finish = self.finish.or(news.finish);
    }
}

impl Head {
    /// The whole answer. `noted` says whether log-probabilities were asked for.
    pub(crate) fn whole(
        &self,
        loaded: &Loaded,
        choices: Vec<Collected>,
        usage: Usage,
        noted: bool,
    ) -> Result<Value, TokenizerError> {
        let choice = |(index, choice): (usize, Collected)| {
            let logprobs = if noted { logprobs(loaded, &choice.tokens)? } else { Value::Null };
            let mut message =
                json!({ "role": "assistant", "content": choice.content, "refusal": null });
            if !choice.calls.is_empty() {
                let calls = choice.calls.iter().enumerate();
                let calls = calls.map(|(at, call)| self.call(index, at, call, arguments(call)));
                message["tool_calls"] = calls.collect();
                if choice.content.is_empty() {
                    message["content"] = Value::Null;
                }
            }
            Ok(json!({
                "index": index,
                "message": message,
                "logprobs": logprobs,
                "finish_reason": choice.finish.map(FinishReason::name),
            }))
        };
        let choices = choices.into_iter().enumerate().map(choice);
        let choices: Vec<Value> = choices.collect::<Result<_, TokenizerError>>()?;
        Ok(json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
            "usage": usage.json(),
        }))
    }

    /// The first piece of a choice.
    pub(crate) fn first(&self, index: usize) -> Value {
        self.piece(index, json!({ "role": "assistant", "content": "" }), Value::Null, None)
    }

    /// The pieces that tell what is new of a choice; `called` counts its calls.
    pub(crate) fn pieces(
        &self,
        loaded: &Loaded,
        index: usize,
        news: News,
        called: &mut usize,
    ) -> Result<Vec<Value>, TokenizerError> {
        let mut deltas = Vec::new();
        for delta in news.deltas {
            match delta {
                Delta::Content(text) => deltas.push(json!({ "content": text })),
                Delta::Call(call) => {
                    let mut head = self.call(index, *called, &call, String::new());
                    head["index"] = json!(*called);
                    deltas.push(json!({ "tool_calls": [head] }));
                    let rest =
                        json!({ "index": *called, "function": { "arguments": arguments(&call) } });
                    deltas.push(json!({ "tool_calls": [rest] }));
                    *called += 1;
                }
            }
        }
        // The tokens go with the first piece; where all text is held back, with one that has none.
        let mut tokens = Value::Null;
        if !news.tokens.is_empty() {
            tokens = logprobs(loaded, &news.tokens)?;
            if deltas.is_empty() {
                deltas.push(json!({}));
            }
        }
        let deltas = deltas.into_iter();
        let mut pieces: Vec<Value> =
            deltas.map(|delta| self.piece(index, delta, tokens.take(), None)).collect();
        if news.finish.is_some() {
            pieces.push(self.piece(index, json!({}), Value::Null, news.finish));
        }
        Ok(pieces)
    }

    /// The last piece of a stream that tells the usage.
    pub(crate) fn last(&self, usage: Usage) -> Value {
        self.chunk(json!([]), usage.json())
    }

    fn piece(
        &self,
        index: usize,
        delta: Value,
        logprobs: Value,
        finish: Option<FinishReason>,
    ) -> Value {
        let finish = finish.map(FinishReason::name);
        let choice = json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish });
        self.chunk(json!([choice]), Value::Null)
    }

    fn chunk(&self, choices: Value, usage: Value) -> Value {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        });
        if self.usage {
            chunk["usage"] = usage;
        }
        chunk
    }

    /// A call as OpenAI has it. Its id is its own in all answers.
    fn call(&self, index: usize, at: usize, call: &ParsedCall, arguments: String) -> Value {
        let id = self.id.trim_start_matches("chatcmpl-");
        json!({
            "id": format!("call_{id}{index:x}_{at:x}"),
            "type": "function",
            "function": { "name": call.name, "arguments": arguments },
        })
    }
}

/// The arguments as a string of JSON.
fn arguments(call: &ParsedCall) -> String {
    Value::Object(call.arguments.clone()).to_string()
}

fn logprobs(loaded: &Loaded, tokens: &[NotedToken]) -> Result<Value, TokenizerError> {
    let token = |noted: &NotedToken| {
        let mut entry = token(loaded, noted.id, noted.note.logprob)?;
        let likeliest =
            noted.note.likeliest.iter().map(|(id, logprob)| token(loaded, *id, *logprob));
        entry["top_logprobs"] = Value::Array(likeliest.collect::<Result<_, TokenizerError>>()?);
        Ok(entry)
    };
    let content = tokens.iter().map(token).collect::<Result<Vec<_>, TokenizerError>>()?;
    Ok(json!({ "content": content, "refusal": null }))
}

fn token(loaded: &Loaded, id: u32, logprob: f32) -> Result<Value, TokenizerError> {
    let text = token_text(loaded, id)?;
    let spelled = loaded.tokenizer().token(id).and_then(|spelled| bytes_of(&spelled));
    let bytes = spelled.unwrap_or_else(|| text.as_bytes().to_vec());
    // JSON has no infinity; this is what OpenAI sends for a token that cannot be.
    Ok(json!({ "token": text, "logprob": logprob.max(-9999.0), "bytes": bytes }))
}

/// The bytes that a byte-level vocabulary spells so; none where a character stands for no byte.
fn bytes_of(spelled: &str) -> Option<Vec<u8>> {
    spelled.chars().map(byte_of).collect()
}

/// GPT-2's alphabet: printable bytes stand for themselves, the others for the characters from U+0100 on.
fn byte_of(spelled: char) -> Option<u8> {
    let itself = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match u8::try_from(spelled) {
        Ok(byte) => itself(byte).then_some(byte),
        Err(_) => {
            let at = (spelled as usize).checked_sub(0x100)?;
            (0..=u8::MAX).filter(|byte| !itself(*byte)).nth(at)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_byte_level_token_is_told_in_bytes() {
        // "Ġ" is the space, "Ċ" the line feed, "Ã¼" the two bytes of "ü".
        assert_eq!(bytes_of("ĠaĊ").unwrap(), b" a\n");
        assert_eq!(bytes_of("Ã¼").unwrap(), "ü".as_bytes());
        assert_eq!(bytes_of("▁a"), None);
        let all: Vec<u8> = (0..0x144u32).filter_map(|c| byte_of(char::from_u32(c)?)).collect();
        let mut sorted = all.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..=255).collect::<Vec<u8>>(), "each byte once");
    }
}
