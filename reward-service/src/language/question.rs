//! Does an answer ask for something, and what does it name?
//!
//! An answer asks with a question mark, or with a request such as "please provide", "let me know" or
//! "I need". Offers ("Anything else?") ask for nothing. What an answer asks for is all that stands from
//! its first asking sentence on, so that a list after the question counts and a summary of the request
//! before it does not.
//!
//! A parameter is named when all the words of its name occur there, in any order: `departure_date`,
//! `departureDate` and `departure-date` by "on which date is the departure?". Singular and plural are
//! one, written apart or together too (`zip_code`, `zipcode`). Words like `of` and digits are not needed.
//!
//! Known blind spot: a question that lists every parameter there is names the missing ones, too.

use super::words::{Sentence, sentences, words};

const REQUESTS: [&str; 30] = [
    "please provide",
    "please specify",
    "please tell",
    "please share",
    "please give",
    "please confirm",
    "please clarify",
    "please supply",
    "please enter",
    "please indicate",
    "please choose",
    "please state",
    "please name",
    "please let me know",
    "please include",
    "let me know",
    "tell me",
    "i need the",
    "i need a",
    "i need your",
    "i need to know",
    "i'll need",
    "i'd need",
    "i still need",
    "i also need",
    "need to know",
    "is missing",
    "are missing",
    "is needed",
    "are needed",
];
const OFFERS: [&str; 10] = [
    "anything else",
    "something else",
    "let me know if",
    "help you with",
    "assist you with",
    "can i help",
    "may i help",
    "how else",
    "what else can i",
    "something different",
];
const SMALL_WORDS: [&str; 12] =
    ["of", "the", "a", "an", "to", "in", "for", "is", "on", "at", "and", "or"];
/// How many words of a question may be one word of a parameter's name.
const LONGEST_RUN: usize = 3;

/// Whether an answer asks the user for something.
pub fn asks(answer: &str) -> bool {
    asks_in(&sentences(answer))
}

pub(super) fn asks_in(sentences: &[Sentence]) -> bool {
    sentences.iter().any(asking)
}

fn asking(sentence: &Sentence) -> bool {
    (sentence.asked || sentence.has_any(&REQUESTS)) && !sentence.has_any(&OFFERS)
}

/// Which of these parameters the answer's question does not name.
pub fn unnamed<'a>(answer: &str, parameters: &'a [String]) -> Vec<&'a str> {
    let sentences = sentences(answer);
    let asked: Vec<&str> = sentences
        .iter()
        .skip_while(|sentence| !asking(sentence))
        .flat_map(|sentence| sentence.words.iter().map(String::as_str))
        .collect();
    let unnamed = parameters.iter().map(String::as_str);
    unnamed.filter(|parameter| !names(&asked, parameter)).collect()
}

fn names(asked: &[&str], parameter: &str) -> bool {
    let parts = words(parameter);
    let whole: String = parts.concat();
    let in_one = !whole.is_empty()
        && (1..=LONGEST_RUN)
            .any(|length| asked.windows(length).any(|window| same_word(&window.concat(), &whole)));
    let mut needed = parts.iter().filter(|part| {
        !SMALL_WORDS.contains(&part.as_str()) && !part.chars().all(char::is_numeric)
    });
    let mut any = false;
    let all = needed.all(|part| {
        any = true;
        asked.iter().any(|word| same_word(word, part))
    });
    in_one || (any && all)
}

/// Equal, or one the plural or the genitive of the other.
fn same_word(left: &str, right: &str) -> bool {
    let left = left.strip_suffix("'s").unwrap_or(left);
    left == right || plural(left, right) || plural(right, left)
}

fn plural(singular: &str, plural: &str) -> bool {
    let Some(stem) = plural.strip_suffix('s') else { return false };
    if stem == singular || stem.strip_suffix('e') == Some(singular) {
        return true;
    }
    let ending_in_y = singular.strip_suffix('y');
    ending_in_y.is_some() && stem.strip_suffix("ie") == ending_in_y
}
