//! How people work a value into a sentence: "of the pet {}", "on the {} side", "with a tip of {}".
//!
//! Invariant: a cue holds a word of its parameter's name, unless no other parameter of the tool has
//! values of this kind.

use crate::draw::Draw;
use crate::value::{Class, Kind};

const BEFORE: [&str; 14] = [
    "for", "of", "on", "in", "at", "with", "by", "to", "from", "under", "about", "over", "within",
    "using",
];
const NAMING: [&str; 7] = ["called", "named", "namely", "like", "as", "being", "titled"];

/// A fragment with `{}` for the value of a parameter whose name, in words, is `label`.
pub(super) fn cue(kind: Kind, label: &str, alone: bool, draw: &mut Draw) -> String {
    let words: Vec<&str> = label.split(' ').collect();
    let said = if alone && draw.chance(50) { *draw.pick(&words) } else { label };
    let before = *draw.pick(&BEFORE);
    if alone && draw.chance(25) {
        return match draw.below(4) {
            0 => "{}".to_owned(),
            1 => format!("{} {{}}", draw.pick(&NAMING)),
            2 if kind == Kind::Choice => "which is a {}".to_owned(),
            _ => format!("{before} {{}}"),
        };
    }
    let article = *draw.pick(&["the ", "the ", "", "a ", "my "]);
    if kind == Kind::Choice {
        return match draw.below(3) {
            0 => format!("{before} the {said} {{}}"),
            _ => format!("{before} {article}{{}} {said}"),
        };
    }
    match draw.below(8) {
        0 | 1 => format!("{before} the {said} {{}}"),
        2 => format!("{before} {said} {{}}"),
        3 => format!("{before} a {said} of {{}}"),
        4 if kind.class() == Class::Number => format!("{before} {{}} {said}"),
        4 => format!("and the {said} {{}}"),
        5 if kind.class() == Class::Number => format!("namely {{}} {said}"),
        5 => format!("{before} the {said} {} {{}}", draw.pick(&["at", "called", "named"])),
        6 => format!("and {said} {{}}"),
        _ => format!("with the {said} {{}}"),
    }
}
