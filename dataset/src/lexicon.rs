//! Words: lists for half of what is drawn, syllables for the rest.
//!
//! Invariant: the lexicon is open. Every name can be a word that no list has, so a policy can get
//! it right only by reading it in the prompt.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::draw::Draw;

static LISTS: LazyLock<BTreeMap<String, Vec<String>>> = LazyLock::new(|| {
    let lists: BTreeMap<String, String> =
        crate::catalogue::embedded("lexicon.toml", include_str!("../catalogue/lexicon.toml"));
    let words = |text: String| text.split_whitespace().map(str::to_owned).collect();
    lists.into_iter().map(|(name, text)| (name, words(text))).collect()
});

/// The word list of this name. Panics on a name that lexicon.toml lacks; a test names them all.
pub(crate) fn list(name: &str) -> &'static [String] {
    &LISTS[name]
}

/// A word of a list.
pub(crate) fn listed(name: &str, draw: &mut Draw) -> String {
    draw.pick(list(name)).clone()
}

/// A word made of `syllables` syllables, in lower case.
pub(crate) fn pseudo(syllables: usize, draw: &mut Draw) -> String {
    let mut word = String::new();
    for _ in 0..syllables {
        word.push_str(&listed("onsets", draw));
        word.push_str(&listed("vowels", draw));
    }
    if draw.chance(60) {
        word.push_str(&listed("codas", draw));
    }
    word
}

/// A made-up word, short enough that a small tokenizer needs few tokens for it.
pub(crate) fn made_up(draw: &mut Draw) -> String {
    let syllables = draw.weighted(&[0, 15, 70, 15]);
    let mut word = pseudo(syllables, draw);
    if syllables == 1 {
        word.push_str(&listed("codas", draw));
        word.push_str(&listed("endings", draw));
    }
    word
}

/// A word of the list or, as often, a made-up one, in lower case.
pub(crate) fn open(name: &str, draw: &mut Draw) -> String {
    if draw.chance(50) { listed(name, draw) } else { made_up(draw) }
}

/// The same with a capital letter.
pub(crate) fn open_name(name: &str, draw: &mut Draw) -> String {
    capital(&open(name, draw))
}

/// The word with its first letter in upper case.
pub(crate) fn capital(word: &str) -> String {
    let mut letters = word.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// This many digits.
pub(crate) fn digits(count: usize, draw: &mut Draw) -> String {
    (0..count).map(|_| char::from(b'0' + draw.below(10) as u8)).collect()
}

/// This many letters, the first one being `a` or `A`.
pub(crate) fn letters(count: usize, first: u8, draw: &mut Draw) -> String {
    (0..count).map(|_| char::from(first + draw.below(26) as u8)).collect()
}

/// "a, b and c".
pub(crate) fn enumeration(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// "is" for one thing, "are" for several or a plural.
pub(crate) fn be(things: &[String]) -> &'static str {
    match things {
        [one] if !one.ends_with('s') || one.ends_with("ss") => "is",
        _ => "are",
    }
}
