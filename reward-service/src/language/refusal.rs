//! Does an answer refuse?
//!
//! A sentence refuses when the speaker says `can't`, `won't`, `unable to` and the like before a verb of
//! doing, declines, lacks a tool, or calls the request out of scope. Only the first person counts: "if you
//! can't come" is no refusal. Nor are verbs of knowing: "I can't tell which city you mean" asks.
//!
//! Some sentences refuse only when nothing is asked beside them: "I can't book this without a date" before
//! a question is part of the question. Those are *weak*; a weak refusal in an answer that asks is none.
//!
//! Invariant: an apology alone is never a refusal.

use super::{
    question,
    words::{Sentence, sentences},
};

const INABILITY: [&[&str]; 12] = [
    &["can't"],
    &["couldn't"],
    &["won't"],
    &["unable", "to"],
    &["not", "able", "to"],
    &["not", "allowed", "to"],
    &["not", "permitted", "to"],
    &["not", "going", "to"],
    &["not", "willing", "to"],
    &["not", "equipped", "to"],
    &["not", "designed", "to"],
    &["not", "comfortable"],
];

/// What may stand before an inability for it to be the speaker's; the start of a sentence may, too.
const SPEAKER: [&str; 16] = [
    "i",
    "we",
    "i'm",
    "we're",
    "sorry",
    "but",
    "so",
    "and",
    "afraid",
    "unfortunately",
    "regrettably",
    "apologies",
    "no",
    "that",
    "am",
    "this",
];
const FILLERS: [&str; 12] = [
    "simply",
    "just",
    "really",
    "currently",
    "also",
    "still",
    "actually",
    "definitely",
    "therefore",
    "directly",
    "personally",
    "be",
];
/// Not being able to do these is a gap in knowledge, or a manner of speaking.
const KNOWING: [&str; 20] = [
    "tell",
    "determine",
    "see",
    "know",
    "identify",
    "figure",
    "understand",
    "guess",
    "infer",
    "decide",
    "wait",
    "but",
    "say",
    "thank",
    "imagine",
    "think",
    "hear",
    "recall",
    "find",
    "sure",
];
const DECLINING: [&str; 10] = [
    "i decline",
    "i must decline",
    "i have to decline",
    "i need to decline",
    "i'll have to decline",
    "i refuse",
    "i must refuse",
    "we decline",
    "i respectfully decline",
    "i'll decline",
];
const LACKING: [&str; 9] = [
    "i don't have",
    "i have no",
    "we don't have",
    "i lack",
    "there is no",
    "there isn't",
    "there's no",
    "can't find",
    "couldn't find",
];
const LACKED: [&str; 10] = [
    "tool",
    "tools",
    "function",
    "functions",
    "ability",
    "capability",
    "capabilities",
    "permission",
    "feature",
    "authority",
];
const NO_TOOL: [&str; 14] = [
    "no tool",
    "no tools",
    "none of the tools",
    "none of my tools",
    "none of the available tools",
    "none of these tools",
    "none of the functions",
    "none of the available functions",
    "tools don't",
    "tools can't",
    "tools won't",
    "tool can't do that",
    "not covered by",
    "no function",
];
const SCOPE: [&str; 32] = [
    "outside my",
    "outside of my",
    "outside the scope",
    "outside what i",
    "outside of what i",
    "outside the tools",
    "beyond my",
    "beyond the scope",
    "beyond what i",
    "out of scope",
    "out of my",
    "not within my",
    "isn't within my",
    "not something i",
    "isn't something i",
    "against my",
    "not possible for me",
    "isn't possible for me",
    "don't support",
    "not supported",
    "isn't supported",
    "i don't do",
    "i don't help",
    "i don't provide",
    "i don't assist",
    "i don't give",
    "not appropriate",
    "isn't appropriate",
    "request is harmful",
    "would be illegal",
    "is illegal",
    "i'd rather not",
];
const WEAK: [&str; 9] = [
    "i don't have access",
    "i have no access",
    "i can only",
    "i'm only able",
    "we can only",
    "no way for me",
    "i have no way",
    "i don't have a way",
    "i'm not aware of a",
];
/// Words that make a refusal depend on what the user says next.
const CONDITIONS: [&str; 12] = [
    "without", "until", "unless", "before", "yet", "missing", "once", "need", "needs", "if",
    "because", "since",
];

/// How firmly a sentence refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Firmness {
    Not,
    Weak,
    Firm,
}

/// Whether an answer refuses.
pub fn refuses(answer: &str) -> bool {
    let sentences = sentences(answer);
    match sentences.iter().map(firmness).max() {
        Some(Firmness::Firm) => true,
        Some(Firmness::Weak) => !question::asks_in(&sentences),
        _ => false,
    }
}

fn firmness(sentence: &Sentence) -> Firmness {
    if sentence.has_any(&DECLINING) {
        return Firmness::Firm;
    }
    let lacks = sentence.has_any(&LACKING)
        && sentence.words.iter().any(|word| LACKED.contains(&word.as_str()));
    let refuses =
        inability(sentence) || lacks || sentence.has_any(&NO_TOOL) || sentence.has_any(&SCOPE);
    let conditional = sentence.words.iter().any(|word| CONDITIONS.contains(&word.as_str()));
    match (refuses, conditional || sentence.asked) {
        (true, false) => Firmness::Firm,
        (true, true) => Firmness::Weak,
        (false, _) if sentence.has_any(&WEAK) => Firmness::Weak,
        (false, _) => Firmness::Not,
    }
}

/// The speaker is not able or willing to do something.
fn inability(sentence: &Sentence) -> bool {
    let words: Vec<&str> = sentence.words.iter().map(String::as_str).collect();
    (0..words.len()).any(|at| {
        INABILITY.iter().any(|marker| {
            let (before, rest) = words.split_at(at);
            let Some(after) = rest.strip_prefix(*marker) else { return false };
            let speaker = before.iter().rev().find(|word| !FILLERS.contains(word));
            let verb = after.iter().find(|word| !FILLERS.contains(word));
            speaker.is_none_or(|word| SPEAKER.contains(word))
                && verb.is_some_and(|word| !KNOWING.contains(word))
        })
    })
}
