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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Purpose;
    use std::collections::HashSet;

    #[test]
    fn a_value_that_could_be_anothers_stands_beside_its_name() {
        let mut draw = Draw::keyed(Purpose::Drill, 1, 0, 0);
        for kind in [Kind::Choice, Kind::Word, Kind::Count] {
            let cues = |alone: bool, draw: &mut Draw| -> HashSet<String> {
                (0..500).map(|_| cue(kind, "pet name", alone, draw)).collect()
            };
            let beside = cues(false, &mut draw);
            assert!(beside.iter().all(|c| c.contains("pet name") && c.matches("{}").count() == 1));
            let alone = cues(true, &mut draw);
            assert!(alone.iter().all(|c| c.matches("{}").count() == 1));
            assert!(alone.contains("called {}") && alone.iter().any(|c| c.contains("the pet {}")));
            assert!(beside.len() > 10 && alone.len() > 40, "{} {}", beside.len(), alone.len());
        }
    }
}
