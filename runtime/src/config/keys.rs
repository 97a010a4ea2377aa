//! Which keys exist, and which of them someone may have meant.
//!
//! Invariant: a key exists if the configuration, written out, has it.

use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::error::{ConfigError, Origin};

/// How many keys a hint lists when none is near.
const LISTED: usize = 12;

/// The first key of `given` that `known` lacks. Below a null nothing is known, so nothing is refused.
pub(super) fn first_unknown(given: &Value, known: &Value) -> Option<String> {
    fn walk(given: &Value, known: &Value, path: &str) -> Option<String> {
        match (given, known) {
            (Value::Object(given), Value::Object(known)) => {
                given.iter().find_map(|(key, value)| {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    match known.get(key) {
                        Some(known) => walk(value, known, &path),
                        None => Some(path),
                    }
                })
            }
            (Value::Array(given), Value::Array(known)) if given.len() == known.len() => given
                .iter()
                .zip(known)
                .enumerate()
                .find_map(|(at, (given, known))| walk(given, known, &format!("{path}[{at}]"))),
            _ => None,
        }
    }
    walk(given, known, "")
}

/// The error for a key that does not exist, with the best hint there is.
pub(super) fn unknown(key: &str, known: &Value, origin: Origin) -> ConfigError {
    let mut all = Vec::new();
    list(known, "", &mut all);
    let hint = match nearest(key, &all) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => {
            let parent = key.rfind('.').map_or("", |end| &key[..=end]);
            let mut there: Vec<&str> = all
                .iter()
                .filter_map(|other| other.strip_prefix(parent))
                .filter(|name| !name.contains('.'))
                .collect();
            let more = if there.len() > LISTED { ", …" } else { "" };
            there.truncate(LISTED);
            let place = parent.trim_end_matches('.');
            let place =
                if place.is_empty() { "at the top".into() } else { format!("in `{place}`") };
            match there.is_empty() {
                true => format!("there are no keys {place}"),
                false => format!("the keys {place} are {}{more}", there.join(", ")),
            }
        }
    };
    ConfigError::UnknownKey { key: key.to_owned(), origin, hint }
}

/// A path as it is written in a file: `optimizer.betas[1]`.
pub(super) fn path_text(path: &Path) -> String {
    path.iter().fold(String::new(), |text, segment| match segment {
        Segment::Seq { index } => format!("{text}[{index}]"),
        Segment::Map { key } | Segment::Enum { variant: key } if text.is_empty() => key.clone(),
        Segment::Map { key } | Segment::Enum { variant: key } => format!("{text}.{key}"),
        Segment::Unknown => text,
    })
}

fn list(known: &Value, path: &str, all: &mut Vec<String>) {
    if let Value::Object(entries) = known {
        for (key, value) in entries {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            list(value, &path, all);
            all.push(path);
        }
    }
}

/// The key that needs the fewest edits, if that is at most a third of it. The right name in the
/// wrong section is one edit away.
fn nearest<'a>(key: &str, all: &'a [String]) -> Option<&'a str> {
    let name = |key: &str| key.rsplit('.').next().unwrap_or(key).replace('-', "_");
    let edits = |other: &str| {
        let whole = strsim::damerau_levenshtein(&key.replace('-', "_"), other);
        let moved = 1 + strsim::damerau_levenshtein(&name(key), &name(other));
        whole.min(moved)
    };
    all.iter()
        .map(|other| (edits(other), other))
        .filter(|(edits, _)| *edits <= (name(key).chars().count() / 3).max(1))
        .min_by_key(|(edits, other)| (*edits, other.len()))
        .map(|(_, other)| other.as_str())
}
