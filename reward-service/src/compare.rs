//! When two calls are the same: as multisets, numbers by value, strings after normalisation.
//!
//! - Calls are a multiset: their order does not matter, how often each occurs does.
//! - Numbers compare by value: `1`, `1.0` and `1e0` are equal. Whole numbers of up to 64 bits compare
//!   exactly; longer ones, and fractions, as the nearest `f64`, which is how a data set's row is read.
//! - Strings compare after Unicode NFC, trimmed, with each run of white space as one space. NFC and not
//!   NFKC, which makes `10²` into `102`. Case counts.
//! - Lists compare in order, objects without. Keys and tool names compare exactly.
//! - Types count: the string `"4"` is not the number `4`, nor is `null` a missing key.
//!
//! Invariant: equality here is an equivalence, because it is equality of [`Canonical`] forms; so no pairing
//! of calls is better than another, and comparing needs no search.

use std::collections::BTreeMap;

use octet_dataset::Call;
use serde_json::{Map, Number, Value};
use unicode_normalization::UnicodeNormalization;

use crate::parse::{ParsedCall, excerpt};

#[cfg(test)]
mod tests;

/// A value such that two are equal exactly if they are equal by the rules of this module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Canonical {
    /// `null`.
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Whole(i128),
    /// The bits of a number that is not whole, or too large for [`Canonical::Whole`].
    Real(u64),
    /// A string, normalised.
    Text(String),
    /// A list.
    List(Vec<Canonical>),
    /// An object.
    Object(BTreeMap<String, Canonical>),
}

impl Canonical {
    /// The canonical form of a value.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Number(number) => Self::of_number(number),
            Value::String(text) => Self::Text(normalise(text)),
            Value::Array(items) => Self::List(items.iter().map(Self::of).collect()),
            Value::Object(object) => Self::Object(of_object(object)),
        }
    }

    fn of_number(number: &Number) -> Self {
        // Beyond this a whole f64 is kept by its bits: equal values still have equal bits.
        const WHOLE: f64 = (1_u128 << 126) as f64;
        if let Some(whole) = number.as_i128() {
            return Self::Whole(whole);
        }
        match number.as_f64() {
            Some(real) if real.fract() == 0.0 && real.abs() < WHOLE => Self::Whole(real as i128),
            Some(real) => Self::Real(real.to_bits()),
            None => Self::Null,
        }
    }
}

fn of_object(object: &Map<String, Value>) -> BTreeMap<String, Canonical> {
    object.iter().map(|(key, value)| (key.clone(), Canonical::of(value))).collect()
}

/// A string as it is compared: NFC, trimmed, each run of white space one space.
pub fn normalise(text: &str) -> String {
    let composed: String = text.nfc().collect();
    composed.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether two values are the same by the rules of this module.
pub fn same_value(left: &Value, right: &Value) -> bool {
    Canonical::of(left) == Canonical::of(right)
}

/// A call in canonical form. Its order puts calls of one tool together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CanonicalCall {
    /// The tool's name.
    pub name: String,
    /// Its arguments.
    pub arguments: BTreeMap<String, Canonical>,
}

impl From<&Call> for CanonicalCall {
    fn from(call: &Call) -> Self {
        Self { name: call.name.clone(), arguments: of_object(&call.arguments) }
    }
}

impl From<&ParsedCall> for CanonicalCall {
    fn from(call: &ParsedCall) -> Self {
        Self { name: call.name.clone(), arguments: of_object(&call.arguments) }
    }
}

/// How the calls of a completion relate to those wanted.
#[derive(Clone, Debug, PartialEq)]
pub enum Matching {
    /// The same multiset.
    Same,
    /// The same tools as often, with other arguments.
    SameTools {
        /// Every wrong argument is one that is left out.
        only_missing: bool,
        /// The first difference, for a person.
        difference: String,
    },
    /// Wanted calls are there, and others too.
    Needless {
        /// The tools that were called too often.
        tools: Vec<String>,
    },
    /// Only some of the wanted calls' tools are called.
    TooFew {
        /// The tools that were called too seldom.
        tools: Vec<String>,
    },
    /// Another tool stands in for a wanted one.
    OtherTools {
        /// The tools that should have been called.
        missing: Vec<String>,
        /// The tools called instead.
        instead: Vec<String>,
    },
}

/// Compares the calls found with those wanted.
pub fn match_calls(wanted: &[Call], found: &[ParsedCall]) -> Matching {
    let wanted = sorted(wanted.iter().map(CanonicalCall::from));
    let found = sorted(found.iter().map(CanonicalCall::from));
    if wanted == found {
        return Matching::Same;
    }
    let names = |calls: &[CanonicalCall]| calls.iter().map(|call| call.name.clone()).collect();
    other_tools(names(&wanted), names(&found)).unwrap_or_else(|| same_tools(&wanted, &found))
}

/// How two multisets of tools differ; none where they are the same.
pub(crate) fn other_tools(mut wanted: Vec<String>, mut found: Vec<String>) -> Option<Matching> {
    wanted.sort();
    found.sort();
    let (missing, instead) = left_over(&wanted, &found, Ord::cmp);
    let owned = |names: Vec<&String>| names.into_iter().cloned().collect();
    match (missing.is_empty(), instead.is_empty()) {
        (true, true) => None,
        (true, false) => Some(Matching::Needless { tools: owned(instead) }),
        (false, true) => Some(Matching::TooFew { tools: owned(missing) }),
        (false, false) => {
            Some(Matching::OtherTools { missing: owned(missing), instead: owned(instead) })
        }
    }
}

fn sorted(calls: impl Iterator<Item = CanonicalCall>) -> Vec<CanonicalCall> {
    let mut calls: Vec<_> = calls.collect();
    calls.sort();
    calls
}

/// What is left on either side when equal members of two sorted multisets cancel.
fn left_over<'a, T>(
    left: &'a [T],
    right: &'a [T],
    order: impl Fn(&T, &T) -> std::cmp::Ordering,
) -> (Vec<&'a T>, Vec<&'a T>) {
    let (mut only_left, mut only_right) = (Vec::new(), Vec::new());
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        match order(a, b) {
            std::cmp::Ordering::Less => only_left.extend(left.next()),
            std::cmp::Ordering::Greater => only_right.extend(right.next()),
            std::cmp::Ordering::Equal => {
                left.next();
                right.next();
            }
        }
    }
    only_left.extend(left);
    only_right.extend(right);
    (only_left, only_right)
}

fn same_tools(wanted: &[CanonicalCall], found: &[CanonicalCall]) -> Matching {
    // The names are the same multisets, so what is left over pairs up by name, in order.
    let (wanted, found) = left_over(wanted, found, Ord::cmp);
    let only_missing = wanted.iter().zip(&found).all(|(wanted, found)| {
        found.arguments.iter().all(|(key, value)| wanted.arguments.get(key) == Some(value))
    });
    let first = wanted.iter().zip(&found).find_map(|(wanted, found)| difference(wanted, found));
    Matching::SameTools { only_missing, difference: first.unwrap_or_default() }
}

fn difference(wanted: &CanonicalCall, found: &CanonicalCall) -> Option<String> {
    let name = excerpt(&wanted.name);
    for (key, value) in &wanted.arguments {
        let key_name = excerpt(key);
        match found.arguments.get(key) {
            None => {
                return Some(format!("{name}: expected {key_name} = {}, found none", show(value)));
            }
            Some(other) if other != value => {
                let (value, other) = (show(value), show(other));
                return Some(format!("{name}: expected {key_name} = {value}, found {other}"));
            }
            Some(_) => {}
        }
    }
    let extra = found.arguments.iter().find(|(key, _)| !wanted.arguments.contains_key(*key))?;
    let (key, value) = (excerpt(extra.0), show(extra.1));
    Some(format!("{name}: expected no {key}, found {key} = {value}"))
}

/// A value for a message, short however large the value is.
fn show(value: &Canonical) -> String {
    show_to(value, 2)
}

fn show_to(value: &Canonical, depth: usize) -> String {
    const SHOWN: usize = 3;
    match value {
        Canonical::Null => "null".to_owned(),
        Canonical::Bool(flag) => flag.to_string(),
        Canonical::Whole(whole) => whole.to_string(),
        Canonical::Real(bits) => f64::from_bits(*bits).to_string(),
        Canonical::Text(text) => format!("{:?}", excerpt(text)),
        Canonical::List(items) if depth == 0 => format!("a list of {}", items.len()),
        Canonical::Object(object) if depth == 0 => format!("an object of {}", object.len()),
        Canonical::List(items) => {
            let shown = items.iter().take(SHOWN).map(|item| show_to(item, depth - 1));
            format!("[{}{}]", shown.collect::<Vec<_>>().join(", "), more(items.len(), SHOWN))
        }
        Canonical::Object(object) => {
            let shown = object.iter().take(SHOWN);
            let shown = shown
                .map(|(key, value)| format!("{}: {}", excerpt(key), show_to(value, depth - 1)));
            format!("{{{}{}}}", shown.collect::<Vec<_>>().join(", "), more(object.len(), SHOWN))
        }
    }
}

fn more(count: usize, shown: usize) -> String {
    match count.saturating_sub(shown) {
        0 => String::new(),
        more => format!(" and {more} more"),
    }
}
