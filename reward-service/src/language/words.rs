//! Sentences and words, in the one form that the rules compare.
//!
//! Invariant: words are lower case, NFKC, without punctuation but the apostrophe of a contraction;
//! `cannot`, `can not`, `do not` and the like are their contractions, so that a rule is written once.

use unicode_normalization::UnicodeNormalization;

/// A sentence: its words, and whether it ended in a question mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sentence {
    /// Its words, in order.
    pub words: Vec<String>,
    /// Whether a question mark ends it.
    pub asked: bool,
}

impl Sentence {
    /// Whether these words stand in it, in a row.
    pub fn has(&self, phrase: &str) -> bool {
        let phrase: Vec<&str> = phrase.split(' ').collect();
        self.words.windows(phrase.len()).any(|window| window == phrase)
    }

    /// Whether any of these phrases stands in it.
    pub fn has_any(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.has(phrase))
    }
}

/// How much of an answer is read. What it says after this many characters does not count.
pub const MAX_CHARS: usize = 16 << 10;

/// The sentences of a text. A full stop inside a word (`3.5`, `example.org`) ends none, a line end does.
pub fn sentences(text: &str) -> Vec<Sentence> {
    let text: String = text.chars().take(MAX_CHARS).nfkc().collect();
    let mut sentences = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (end, mark) = sentence_end(rest);
        let words = words(&rest[..end]);
        if !words.is_empty() {
            sentences.push(Sentence { words, asked: matches!(mark, '?' | '؟') });
        }
        rest = &rest[end + mark.len_utf8().min(rest.len() - end)..];
    }
    sentences
}

fn sentence_end(text: &str) -> (usize, char) {
    let mut chars = text.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        let ends = match char {
            '\n' | '?' | '؟' | '。' | ';' => true,
            '.' | '!' => chars.peek().is_none_or(|(_, next)| !next.is_alphanumeric()),
            _ => false,
        };
        if ends {
            return (at, char);
        }
    }
    (text.len(), ' ')
}

/// The words of a text; `snake_case`, `kebab-case` and `camelCase` are split.
pub fn words(text: &str) -> Vec<String> {
    let mut split = Vec::new();
    let mut word = String::new();
    let mut before = ' ';
    for char in text.chars() {
        let char = if matches!(char, '’' | 'ʼ' | '＇') { '\'' } else { char };
        let camel = before.is_lowercase() && char.is_uppercase();
        let digit = before.is_alphabetic() && char.is_numeric();
        let part = char.is_alphanumeric() || (char == '\'' && before.is_alphanumeric());
        if (!part || camel || digit) && !word.is_empty() {
            split.push(std::mem::take(&mut word));
        }
        if part {
            word.extend(char.to_lowercase());
        }
        before = char;
    }
    if !word.is_empty() {
        split.push(word);
    }
    contract(split)
}

fn contract(split: Vec<String>) -> Vec<String> {
    let mut words: Vec<String> = Vec::with_capacity(split.len());
    for word in split {
        let word = word.trim_end_matches('\'');
        let short = match (words.last().map(String::as_str), word) {
            (_, "cannot" | "cant") => {
                words.push("can't".to_owned());
                continue;
            }
            (Some("can"), "not") => "can't",
            (Some("could"), "not") => "couldn't",
            (Some("will" | "i'll" | "we'll"), "not") => "won't",
            (Some("do"), "not") => "don't",
            (Some("is"), "not") => "isn't",
            (Some("i"), "am") => "i'm",
            (Some("we"), "are") => "we're",
            (Some("i"), "will") => "i'll",
            (Some("i"), "would") => "i'd",
            _ => {
                words.push(word.to_owned());
                continue;
            }
        };
        words.pop();
        words.push(short.to_owned());
    }
    words
}
