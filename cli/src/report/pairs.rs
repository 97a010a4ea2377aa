//! The held-out rows, before and after, side by side: the worst regressions first.
//!
//! Invariant: a row is compared with itself alone. Rows that were right before and are wrong now come first, then
//! rows whose reward fell; where the page is full, what comes later is left out. What is not shown is counted.

use super::text::{MOST_DETAIL, MOST_NAME, MOST_TEXT, class, count, reward, shown};
use crate::evaluation::record::{Answer, RowRecord};
use serde::Serialize;
use std::collections::BTreeMap;

/// A row of both evaluations.
#[derive(Clone, Debug)]
pub struct Pair {
    before: RowRecord,
    after: RowRecord,
}

/// What became of a row, in the order of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Fewer completions are right than before: of one completion, it was right and is wrong.
    Lost,
    /// As many are right, and the reward is less.
    Fell,
    /// Nothing changed, and it is not right.
    Wrong,
    /// The reward is more, and as many are right.
    Rose,
    /// More completions are right than before.
    Won,
    /// Right, as before.
    Right,
}

/// All kinds, with what each is called on the page, and how many rows of it are shown at most.
pub const KINDS: [(Kind, &str, usize); 6] = [
    (Kind::Lost, "right before, wrong now", 200),
    (Kind::Fell, "reward fell", 100),
    (Kind::Wrong, "wrong, as before", 60),
    (Kind::Rose, "reward rose", 20),
    (Kind::Won, "wrong before, right now", 40),
    (Kind::Right, "right, as before", 20),
];

impl Pair {
    /// What the row wants.
    pub fn behaviour(&self) -> &str {
        &self.before.behavior
    }

    /// Whether each evaluation has one completion of it.
    pub fn is_single(&self) -> bool {
        self.before.completions.len() == 1 && self.after.completions.len() == 1
    }

    /// Right completions, and all: before and after.
    pub fn right(&self) -> [[usize; 2]; 2] {
        let of = |record: &RowRecord| {
            let right = record.completions.iter().filter(|answer| answer.reward >= 1.0).count();
            [right, record.completions.len()]
        };
        [of(&self.before), of(&self.after)]
    }

    /// Change of the share that is right, and of the mean reward.
    fn change(&self) -> (f64, f64) {
        let [before, after] = self.right().map(|[right, of]| right as f64 / of.max(1) as f64);
        (after - before, mean(&self.after) - mean(&self.before))
    }

    /// What became of it.
    pub fn kind(&self) -> Kind {
        let [[_, _], [right, of]] = self.right();
        match self.change() {
            (right, _) if right < 0.0 => Kind::Lost,
            (right, _) if right > 0.0 => Kind::Won,
            (_, reward) if reward < 0.0 => Kind::Fell,
            (_, reward) if reward > 0.0 => Kind::Rose,
            _ if right == of => Kind::Right,
            _ => Kind::Wrong,
        }
    }
}

fn mean(record: &RowRecord) -> f64 {
    let sum: f64 = record.completions.iter().map(|answer| answer.reward).sum();
    sum / record.completions.len().max(1) as f64
}

/// Pairs rows that are the same in both; gives back how many are in one alone, too.
pub fn pair(before: Vec<RowRecord>, after: Vec<RowRecord>) -> (Vec<Pair>, usize) {
    let key = |record: &RowRecord| (record.row, record.example.clone());
    let all = before.len().max(after.len());
    let mut first: BTreeMap<_, _> =
        before.into_iter().map(|record| (key(&record), record)).collect();
    let pairs = after.into_iter().filter_map(|after| {
        let before = first.remove(&key(&after))?;
        Some(Pair { before, after })
    });
    let pairs: Vec<Pair> = pairs.collect();
    let alone = all - pairs.len();
    (pairs, alone)
}

/// The held-out rows, as the page shows them.
#[derive(Clone, Debug, Serialize)]
pub struct HeldOut {
    /// How many rows of each kind there are, and how many are shown.
    pub kinds: Vec<KindCount>,
    /// The behaviours.
    pub behaviours: Vec<String>,
    /// The rows.
    pub items: Vec<Item>,
}

/// How many there are of a kind.
#[derive(Clone, Debug, Serialize)]
pub struct KindCount {
    /// The kind.
    pub kind: Kind,
    /// What it is called.
    pub name: &'static str,
    /// Rows.
    pub rows: String,
    /// Rows that are shown.
    pub shown: String,
}

/// A row, shown.
#[derive(Clone, Debug, Serialize)]
pub struct Item {
    /// The row of the data set, from 1.
    pub row: usize,
    /// What became of it.
    pub kind: Kind,
    /// The same for people.
    pub kind_name: &'static str,
    /// What it wants.
    pub behaviour: String,
    /// What was asked.
    pub request: String,
    /// The tools offered.
    pub tools: String,
    /// The ground truth.
    pub wanted: String,
    /// Change of the mean reward.
    pub change: String,
    /// The completions before and after.
    pub before: Vec<Shown>,
    /// As above.
    pub after: Vec<Shown>,
}

/// A completion, shown.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// The text.
    pub text: String,
    /// Its reward.
    pub reward: String,
    /// The reward's class.
    pub class: &'static str,
    /// The verdict.
    pub verdict: String,
    /// Its detail.
    pub detail: String,
}

/// Completions of a row that are shown.
const MOST_ANSWERS: usize = 8;
/// Most characters of all rows.
const MOST_CHARACTERS: usize = 3_000_000;

impl HeldOut {
    /// Chooses and orders what is shown.
    pub fn new(pairs: &[Pair]) -> Self {
        let mut order: Vec<(&Pair, Kind, (f64, f64))> =
            pairs.iter().map(|pair| (pair, pair.kind(), pair.change())).collect();
        order.sort_by(|(one, kind, change), (other, other_kind, other_change)| {
            let by_change =
                change.0.total_cmp(&other_change.0).then(change.1.total_cmp(&other_change.1));
            kind.cmp(other_kind).then(by_change).then(one.before.row.cmp(&other.before.row))
        });
        let (mut items, mut room) = (Vec::new(), MOST_CHARACTERS);
        let mut kinds = Vec::new();
        for (kind, name, most) in KINDS {
            let of_kind = || order.iter().filter(|(_, k, _)| *k == kind);
            let before = items.len();
            for (pair, _, change) in of_kind().take(most) {
                let item = Item::new(pair, kind, name, change.1);
                match room.checked_sub(item.size()) {
                    Some(left) => room = left,
                    None => {
                        room = 0;
                        break;
                    }
                }
                items.push(item);
            }
            kinds.push(KindCount {
                kind,
                name,
                rows: count(of_kind().count() as u64),
                shown: count((items.len() - before) as u64),
            });
        }
        let mut behaviours: Vec<String> = items.iter().map(|item| item.behaviour.clone()).collect();
        behaviours.sort_unstable();
        behaviours.dedup();
        Self { kinds, behaviours, items }
    }
}

impl Item {
    fn new(pair: &Pair, kind: Kind, kind_name: &'static str, change: f64) -> Self {
        let answers = |record: &RowRecord| {
            record.completions.iter().take(MOST_ANSWERS).map(Shown::new).collect()
        };
        let record = &pair.before;
        Self {
            row: record.row + 1,
            kind,
            kind_name,
            behaviour: shown(&record.behavior, MOST_NAME),
            request: shown(&record.request, MOST_TEXT),
            tools: shown(&record.tools.join(", "), MOST_TEXT),
            wanted: shown(&as_text(&record.wanted), MOST_TEXT),
            change: format!("{change:+.2}"),
            before: answers(record),
            after: answers(&pair.after),
        }
    }

    fn size(&self) -> usize {
        let answers = self.before.iter().chain(&self.after);
        let answers: usize = answers.map(|a| a.text.len() + a.detail.len() + 200).sum();
        answers + self.request.len() + self.tools.len() + self.wanted.len() + 500
    }
}

impl Shown {
    fn new(answer: &Answer) -> Self {
        Self {
            text: shown(&answer.text, MOST_TEXT),
            reward: reward(answer.reward),
            class: class(answer.reward),
            verdict: shown(&answer.verdict, MOST_NAME),
            detail: shown(&answer.detail, MOST_DETAIL),
        }
    }
}

/// A ground truth for people: text as it is, anything else as JSON.
pub fn as_text(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(row: usize, rewards: &[f64]) -> RowRecord {
        RowRecord {
            row,
            example: format!("digest of {row}"),
            behavior: "execute".into(),
            request: format!("request {row}"),
            tools: vec!["f".into()],
            wanted: serde_json::json!({"behavior": "refuse"}),
            completions: rewards
                .iter()
                .map(|reward| Answer {
                    text: "text".into(),
                    reward: *reward,
                    verdict: "verdict".into(),
                    detail: String::new(),
                })
                .collect(),
        }
    }

    fn pairs(rewards: &[(f64, f64)]) -> Vec<Pair> {
        let records = |of: fn(&(f64, f64)) -> f64| {
            rewards.iter().enumerate().map(|(row, both)| record(row, &[of(both)])).collect()
        };
        pair(records(|both| both.0), records(|both| both.1)).0
    }

    #[test]
    fn the_worst_regressions_come_first() {
        let both = [
            (1.0, 1.0),
            (0.5, 0.0),
            (1.0, 0.5),
            (0.0, 1.0),
            (1.0, 0.0),
            (0.5, 0.5),
            (0.0, 0.5),
            (0.8, 0.0),
        ];
        let held_out = HeldOut::new(&pairs(&both));
        let rows: Vec<usize> = held_out.items.iter().map(|item| item.row - 1).collect();
        assert_eq!(rows, [4, 2, 7, 1, 5, 6, 3, 0]);
        let counts: Vec<&str> = held_out.kinds.iter().map(|kind| kind.rows.as_str()).collect();
        assert_eq!(counts, ["2", "2", "1", "1", "1", "1"]);
    }

    #[test]
    fn of_several_completions_the_share_that_is_right_counts() {
        let before = vec![record(0, &[1.0, 1.0, 0.0]), record(1, &[1.0, 0.0])];
        let after = vec![record(0, &[1.0, 0.5, 0.5]), record(1, &[0.5, 1.0])];
        let (pairs, alone) = pair(before, after);
        assert_eq!((pairs[0].kind(), pairs[1].kind(), alone), (Kind::Lost, Kind::Rose, 0));
        assert!(!pairs[0].is_single());
    }

    #[test]
    fn a_row_that_is_another_now_is_compared_with_nothing() {
        let mut after = vec![record(0, &[1.0]), record(1, &[0.0])];
        after[1].example = "another".into();
        let (pairs, alone) = pair(vec![record(0, &[0.0]), record(1, &[1.0])], after);
        assert_eq!((pairs.len(), alone), (1, 1));
    }

    #[test]
    fn what_is_not_shown_is_counted() {
        let held_out = HeldOut::new(&pairs(&[(1.0, 1.0); 50]));
        assert_eq!(
            (held_out.kinds[5].rows.as_str(), held_out.kinds[5].shown.as_str()),
            ("50", "20")
        );
    }
}
