//! One completion of an answer: from its tokens to content, calls and log-probabilities, in pieces.
//!
//! Invariants: calls are read by `octet_calls`, as rewards read them, and from the same text. The pieces joined are
//! what reading the whole text gives, so an answer is the same streamed or not. A malformed call is not lost: it
//! is content.

use crate::loaded::Loaded;
use crate::text::{Writing, held};
use octet_calls::{Parsed, ParsedCall, parse};
use octet_policy::sampler::{Finish, TokenNote};
use octet_policy::tokenizer::{SpecialTokens, TokenizerError};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const THINK: &str = "<think>";

/// Why a completion ended, as OpenAI has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FinishReason {
    /// It ended by itself, or with a stop string.
    Stop,
    /// It ran into the limit on its tokens.
    Length,
    /// It ended by itself and calls tools.
    ToolCalls,
}

/// What the client is told of one token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NotedToken {
    /// The token.
    pub id: u32,
    /// What the model held of it.
    pub note: TokenNote,
}

/// A part of a choice, in the order of the parts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Delta {
    /// Text.
    Content(String),
    /// A whole call; the calls of a choice are counted from 0.
    Call(ParsedCall),
}

/// What is new of a choice.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Text and calls.
    pub deltas: Vec<Delta>,
    /// Tokens, where the client asked for log-probabilities.
    pub tokens: Vec<NotedToken>,
    /// It ended.
    pub finish: Option<FinishReason>,
}

/// How a choice's text is read.
#[derive(Clone, Debug)]
pub(crate) enum Reading {
    /// All of it is content.
    Plain,
    /// It may hold calls.
    Calls {
        /// The beginning that was written for the model.
        forced: String,
        /// Whether more than the first call is given back.
        parallel: bool,
    },
}

/// A choice in the making.
#[derive(Debug)]
pub(crate) struct Choice {
    writing: Writing,
    reading: Reading,
    /// Content given out, in bytes.
    content: usize,
    /// Calls given out.
    calls: usize,
    /// Bytes of the text that were looked through for the ends of calls.
    searched: usize,
    noted: bool,
    tokens: usize,
    finish: Option<FinishReason>,
}

impl Choice {
    /// Nothing yet.
    pub(crate) fn new(stops: Vec<String>, reading: Reading, noted: bool) -> Self {
        let writing = Writing::new(stops);
        Self { writing, reading, content: 0, calls: 0, searched: 0, noted, tokens: 0, finish: None }
    }

    /// Tokens that were needed for it, the stop token included.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Whether it ended.
    pub(crate) fn ended(&self) -> bool {
        self.finish.is_some()
    }

    /// Takes further tokens, with a note on each where they are noted, and how sampling ended if it did.
    pub(crate) fn push(
        &mut self,
        loaded: &Loaded,
        tokens: &[u32],
        notes: &[TokenNote],
        finish: Option<Finish>,
    ) -> Result<News, TokenizerError> {
        let mut news = News::default();
        if self.ended() {
            return Ok(news);
        }
        let mut stopped = false;
        for (at, id) in tokens.iter().enumerate() {
            self.tokens += 1;
            let last = at + 1 == tokens.len();
            if last && finish == Some(Finish::Stop) && loaded.stops().contains(id) {
                // It says that the completion ends, and is no part of it.
                break;
            }
            if let Some(note) = notes.get(at).filter(|_| self.noted) {
                news.tokens.push(NotedToken { id: *id, note: note.clone() });
            }
            stopped = self.writing.push(loaded.tokenizer(), *id)?;
            if stopped {
                break;
            }
        }
        let ended = if stopped { Some(Finish::Stop) } else { finish };
        if ended.is_some() {
            self.writing.end(loaded.tokenizer())?;
        }
        news.deltas = match &self.reading {
            Reading::Plain => self.plain(ended.is_some()),
            Reading::Calls { forced, parallel } => {
                let (forced, parallel) = (forced.clone(), *parallel);
                self.read(&forced, parallel, ended.is_some())
            }
        };
        self.finish = ended.map(|ended| match ended {
            Finish::Length => FinishReason::Length,
            Finish::Stop if self.calls > 0 => FinishReason::ToolCalls,
            Finish::Stop => FinishReason::Stop,
        });
        news.finish = self.finish;
        Ok(news)
    }

    fn plain(&mut self, ended: bool) -> Vec<Delta> {
        let text = if ended { self.writing.text() } else { self.writing.settled() };
        let new = text.get(self.content..).unwrap_or_default().to_owned();
        self.content = text.len();
        if new.is_empty() { Vec::new() } else { vec![Delta::Content(new)] }
    }

    fn read(&mut self, forced: &str, parallel: bool, ended: bool) -> Vec<Delta> {
        let written = if ended { self.writing.text() } else { self.writing.settled() };
        let whole = format!("{forced}{written}");
        let mut deltas = Vec::new();
        if ended {
            let parsed = parse(&whole);
            let content = content(&parsed, &whole);
            self.say(&content, &mut deltas);
            self.call(parsed, parallel, &mut deltas);
            return deltas;
        }
        let calm = calm(&whole);
        self.say(whole[..calm].trim(), &mut deltas);
        // What lies before the end of a block is read alike whatever follows.
        let from = self.searched.saturating_sub(CLOSE.len());
        let from = (0..=from).rev().find(|at| whole.is_char_boundary(*at)).unwrap_or(0);
        if let Some(at) = whole[from..].rfind(CLOSE) {
            let end = from + at + CLOSE.len();
            if end > self.searched {
                self.call(parse(&whole[..end]), parallel, &mut deltas);
            }
        }
        self.searched = whole.len();
        deltas
    }

    /// Gives out what is new of the content.
    fn say(&mut self, content: &str, deltas: &mut Vec<Delta>) {
        let new = content.get(self.content..).unwrap_or_default();
        if !new.is_empty() {
            deltas.push(Delta::Content(new.to_owned()));
            self.content = content.len();
        }
    }

    /// Gives out the calls that are new.
    fn call(&mut self, parsed: Parsed, parallel: bool, deltas: &mut Vec<Delta>) {
        let most = if parallel { usize::MAX } else { 1 };
        for call in parsed.calls.into_iter().take(most).skip(self.calls) {
            deltas.push(Delta::Call(call));
            self.calls += 1;
        }
    }
}

/// The text that is not calls: what the parser keeps, and behind it what it rejected, as it was written.
fn content(parsed: &Parsed, whole: &str) -> String {
    let mut content = parsed.text_outside.clone();
    for rejection in &parsed.rejected {
        if !content.is_empty() {
            content.push('\n');
        }
        content.push_str(whole.get(rejection.span.clone()).unwrap_or_default().trim());
    }
    content
}

/// Up to where a text is content whatever follows: nothing in it begins a call, a fence, or thinking.
fn calm(text: &str) -> usize {
    let lead = text.len() - text.trim_start().len();
    if THINK.starts_with(&text[lead..]) || text[lead..].starts_with(THINK) {
        return lead;
    }
    let bracket = text.find(['{', '[', '`']).unwrap_or(text.len());
    let block = text.find(OPEN).unwrap_or(text.len() - held(text, OPEN));
    bracket.min(block)
}

/// The text of one token by itself.
pub(crate) fn token_text(loaded: &Loaded, id: u32) -> Result<String, TokenizerError> {
    loaded.tokenizer().decode(&[id], SpecialTokens::Keep)
}

#[cfg(test)]
mod tests;
