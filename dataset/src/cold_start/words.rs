//! The cold start's words: listed, made of syllables, or joined of the pieces of two listed ones.
//!
//! Invariant: the lexicon is open, and its pieces are those of English words: a policy that has learned
//! to copy these words copies any, since every entry of its vocabulary was copied many times.

use crate::draw::Draw;
use crate::lexicon::{listed, made_up};

const LISTS: [&str; 3] = ["cold_start_words", "nouns", "verbs"];

/// A word that no list has, most of the time.
pub(super) fn invented(draw: &mut Draw) -> String {
    if draw.chance(50) { made_up(draw) } else { joined(draw) }
}

/// A word of this list, or of the cold start's own.
pub(super) fn known(list: &str, draw: &mut Draw) -> String {
    if draw.chance(50) { listed(list, draw) } else { listed("cold_start_words", draw) }
}

/// A word in which a beginning comes again, as in "cucumber": whoever copies it has to know how far it is.
pub(super) fn recurring(draw: &mut Draw) -> String {
    let [front, back] = [(); 2].map(|()| {
        let list = *draw.pick(&LISTS);
        listed(list, draw)
    });
    let (front, back) = (&front[..front.len().min(4)], &back[1..back.len().min(6)]);
    format!("{front}{}{back}", &front[..1])
}

/// The beginning of one word and the end of another.
fn joined(draw: &mut Draw) -> String {
    let mut piece = |front: bool| {
        let list = *draw.pick(&LISTS);
        let word = listed(list, draw);
        // The lists are ASCII: every index is between two letters.
        let cut = draw.between(2.min(word.len()), word.len().min(6));
        if front { word[..cut].to_owned() } else { word[word.len() - cut..].to_owned() }
    };
    let (front, back) = (piece(true), piece(false));
    front + &back
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;
    use crate::draw::Purpose;
    use crate::lexicon::list;
    use std::collections::HashSet;

    #[test]
    fn no_listed_word_is_part_of_a_held_out_name() {
        let names: HashSet<&str> = Catalogue::held_out()
            .tools
            .iter()
            .flat_map(|tool| {
                let params = tool.params.iter().map(|param| param.name.as_str());
                params.chain([tool.name.as_str(), tool.domain.as_str()])
            })
            .flat_map(|name| name.split('_'))
            .collect();
        let known: Vec<&String> =
            list("cold_start_words").iter().filter(|w| names.contains(w.as_str())).collect();
        assert!(known.is_empty(), "{known:?}");
    }

    fn thousand(word: fn(&mut Draw) -> String) -> Vec<String> {
        let mut draw = Draw::keyed(Purpose::Drill, 1, 0, 0);
        (0..1000).map(|_| word(&mut draw)).collect()
    }

    #[test]
    fn a_recurring_word_begins_twice() {
        for word in thousand(recurring) {
            assert!((3..=10).contains(&word.len()), "{word}");
            assert!(word[1..].contains(&word[..1]), "{word}");
        }
    }

    #[test]
    fn joined_words_are_lower_case_and_of_ordinary_length() {
        for word in thousand(joined) {
            assert!((4..=12).contains(&word.len()), "{word}");
            assert!(word.bytes().all(|b| b.is_ascii_lowercase()), "{word}");
        }
    }
}
