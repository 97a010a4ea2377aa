//! From tokens to text as they come, up to a string that ends the completion.
//!
//! Invariants: the pieces joined are the text of all tokens decoded together; no piece ends inside a character,
//! and none holds a part of a stop string. How many tokens come at a time changes nothing.

use octet_policy::tokenizer::{SpecialTokens, Tokenizer, TokenizerError};

/// A completion's text in the making.
#[derive(Debug)]
pub(crate) struct Writing {
    ids: Vec<u32>,
    /// Tokens from here are decoded together with the new ones: the first may look different at the beginning
    /// of a text.
    from: usize,
    /// Tokens before here are in the text.
    read: usize,
    text: String,
    stops: Vec<String>,
    stopped: bool,
}

impl Writing {
    /// Nothing yet. `stops` are not empty strings.
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { ids: Vec::new(), from: 0, read: 0, text: String::new(), stops, stopped: false }
    }

    /// Adds a token; true when it completed a stop string, which ends the text before it.
    pub(crate) fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<bool, TokenizerError> {
        if self.stopped {
            return Ok(true);
        }
        self.ids.push(id);
        let decode = |ids: &[u32]| tokenizer.decode(ids, SpecialTokens::Keep);
        let before = decode(&self.ids[self.from..self.read])?;
        let after = decode(&self.ids[self.from..])?;
        // A character whose bytes are not all there yet is a replacement character until they are.
        if !after.ends_with('\u{fffd}') && after.len() > before.len() {
            let known = self.text.len();
            self.text.push_str(after.get(before.len()..).unwrap_or_default());
            (self.from, self.read) = (self.read, self.ids.len());
            self.stop(known);
        }
        Ok(self.stopped)
    }

    /// No more tokens: what was held for want of bytes is given out as it is.
    pub(crate) fn end(&mut self, tokenizer: &Tokenizer) -> Result<(), TokenizerError> {
        if self.stopped || self.read == self.ids.len() {
            return Ok(());
        }
        let known = self.text.len();
        let before = tokenizer.decode(&self.ids[self.from..self.read], SpecialTokens::Keep)?;
        let after = tokenizer.decode(&self.ids[self.from..], SpecialTokens::Keep)?;
        self.text.push_str(after.get(before.len()..).unwrap_or_default());
        self.read = self.ids.len();
        self.stop(known);
        Ok(())
    }

    /// All of it so far.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// What stays whatever comes: without an end that may become a stop string.
    pub(crate) fn settled(&self) -> &str {
        if self.stopped {
            return &self.text;
        }
        let held = self.stops.iter().map(|stop| held(&self.text, stop)).max().unwrap_or(0);
        &self.text[..self.text.len() - held]
    }

    /// Looks for a stop string that ends behind `known`.
    fn stop(&mut self, known: usize) {
        let found = self.stops.iter().filter_map(|stop| {
            let mut from = known.saturating_sub(stop.len());
            while !self.text.is_char_boundary(from) {
                from -= 1;
            }
            self.text[from..].find(stop.as_str()).map(|at| from + at)
        });
        if let Some(first) = found.min() {
            self.text.truncate(first);
            self.stopped = true;
        }
    }
}

/// How many bytes at the end of `text` begin `stop` without completing it.
pub(crate) fn held(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest).rev().find(|n| stop.as_bytes().starts_with(tail(text, *n))).unwrap_or(0)
}

fn tail(text: &str, bytes: usize) -> &[u8] {
    &text.as_bytes()[text.len() - bytes..]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn bundled() -> Tokenizer {
        Tokenizer::from_dir(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/policy")))
            .unwrap()
    }

    /// The pieces that a reader sees, joined, and the whole.
    fn read(tokenizer: &Tokenizer, ids: &[u32], stops: &[&str]) -> (String, usize) {
        let mut writing = Writing::new(stops.iter().map(|s| (*s).to_owned()).collect());
        let (mut seen, mut used) = (String::new(), 0);
        for id in ids {
            used += 1;
            let ended = writing.push(tokenizer, *id).unwrap();
            let settled = writing.settled();
            assert!(settled.starts_with(&seen), "{settled:?} takes back {seen:?}");
            seen = settled.to_owned();
            if ended {
                return (seen, used);
            }
        }
        writing.end(tokenizer).unwrap();
        assert!(writing.text().starts_with(&seen));
        (writing.text().to_owned(), used)
    }

    #[test]
    fn a_stop_string_ends_the_text_before_it() {
        let tokenizer = bundled();
        let ids = tokenizer.encode("Paris, then Rome; then Oslo").unwrap();
        assert_eq!(read(&tokenizer, &ids, &["then R"]).0, "Paris, ");
        assert_eq!(read(&tokenizer, &ids, &[";", "then Ro"]).0, "Paris, ");
        assert_eq!(read(&tokenizer, &ids, &["thenX"]).0, "Paris, then Rome; then Oslo");
        let (_, used) = read(&tokenizer, &ids, &["Rome"]);
        assert!(used < ids.len(), "what comes behind it is not needed");
    }

    #[test]
    fn a_character_comes_whole() {
        let tokenizer = bundled();
        let text = "Grüße aus 東京 🚀!";
        let ids = tokenizer.encode(text).unwrap();
        assert!(ids.len() > text.chars().count(), "some characters take several tokens");
        assert_eq!(read(&tokenizer, &ids, &[]).0, text);
        assert_eq!(read(&tokenizer, &ids, &["東"]).0, "Grüße aus ");
    }

    #[test]
    fn what_may_become_a_stop_string_is_held() {
        assert_eq!(held("a then", "the end"), 0);
        assert_eq!(held("a the", "the end"), 3);
        assert_eq!(held("the end", "the end"), 0, "all of it is found, not held");
        assert_eq!(held("ab", "b"), 0);
    }

    proptest! {
        #[test]
        fn pieces_are_the_whole(ids in prop::collection::vec(0u32..2048, 0..60)) {
            let tokenizer = bundled();
            let whole = tokenizer.decode(&ids, SpecialTokens::Keep).unwrap();
            prop_assert_eq!(read(&tokenizer, &ids, &[]).0, whole.clone());
            // Cut where the whole is cut, wherever the tokens end.
            for stop in ["e", "in", "{\"", "\u{fffd}"] {
                let expected = whole.find(stop).map_or(&*whole, |at| &whole[..at]);
                prop_assert_eq!(read(&tokenizer, &ids, &[stop]).0, expected);
            }
        }
    }
}
