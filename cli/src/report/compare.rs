//! Before and after: by behaviour, with intervals, beside what trivial policies earn.
//!
//! Invariant: the numbers are those of `summary.json`; what is added is arithmetic on the rows of the two
//! evaluations, paired row by row.

use super::pairs::{Kind, Pair};
use super::text::{percent, reward};
use crate::evaluation::interval::{Part, difference, mcnemar};
use crate::evaluation::markdown::p_value;
use crate::evaluation::table::{Report, Score};
use crate::train::trivial::{Earned, Earning};
use serde::Serialize;
use std::collections::BTreeSet;

/// The table of before and after with its drawing.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// All rows together, then each behaviour.
    pub rows: Vec<Compared>,
    /// Height of the drawing.
    pub height: f64,
    /// Whether any row knows of a run's end.
    pub has_after: bool,
    /// Whether rows were paired.
    pub paired: bool,
    /// Verdicts by behaviour.
    pub verdicts: Vec<VerdictRow>,
}

/// A behaviour, before and after.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// The behaviour.
    pub name: String,
    /// How many completions.
    pub completions: usize,
    /// Where it is drawn.
    pub y: f64,
    /// Before the run.
    pub before: Option<Share>,
    /// After it.
    pub after: Option<Share>,
    /// Change in accuracy, in points.
    pub change: Option<String>,
    /// `up`, `down` or `even`.
    pub direction: &'static str,
    /// Mean rewards.
    pub reward: [Option<String>; 2],
    /// The trivial policy that does best here.
    pub trivial: Option<Best>,
    /// Rows right before alone, and after alone.
    pub only_right: Option<[usize; 2]>,
    /// How likely such a change is by chance.
    pub p: Option<String>,
}

/// An accuracy with its interval, placed.
#[derive(Clone, Debug, Serialize)]
pub struct Share {
    /// In percent.
    pub text: String,
    /// The interval.
    pub interval: String,
    /// Where it is drawn.
    pub at: f64,
    /// The interval's ends.
    pub ends: [f64; 2],
}

/// The best of the trivial policies.
#[derive(Clone, Debug, Serialize)]
pub struct Best {
    /// What it does.
    pub policy: String,
    /// Its accuracy in percent.
    pub text: String,
    /// Where it is drawn.
    pub at: f64,
}

/// How often a verdict was given.
#[derive(Clone, Debug, Serialize)]
pub struct VerdictRow {
    /// What the rows want.
    pub behaviour: String,
    /// The verdict.
    pub verdict: String,
    /// Before the run.
    pub before: usize,
    /// After it.
    pub after: Option<usize>,
}

/// The drawing's left and right edges, in its units.
const EDGES: (f64, f64) = (78.0, 600.0);
/// A row's height.
const ROW: f64 = 50.0;

impl Comparison {
    /// Of an evaluation before a run, and of one after it where there is one.
    pub fn new(
        before: &Report,
        after: Option<&Report>,
        trivial: &[Earned],
        pairs: Option<&[Pair]>,
        seed: u64,
    ) -> Self {
        let names: Vec<&str> =
            std::iter::once("all").chain(before.by_behavior.keys().map(String::as_str)).collect();
        let of = |report: &Report, name: &str| match name {
            "all" => Some(report.all.clone()),
            name => report.by_behavior.get(name).cloned(),
        };
        let row = |(at, name): (usize, &&str)| {
            let (first, second) = (of(before, name)?, after.and_then(|report| of(report, name)));
            let change = second.as_ref().map(|second| second.accuracy - first.accuracy);
            let paired = pairs.map(|pairs| paired(pairs, name, seed));
            Some(Compared {
                name: (*name).to_owned(),
                completions: first.completions,
                y: ROW * (at as f64 + 0.5) + 8.0,
                change: change.map(|change| format!("{:+.1} points", 100.0 * change)),
                direction: match change {
                    Some(change) if change > 0.0 => "up",
                    Some(change) if change < 0.0 => "down",
                    _ => "even",
                },
                reward: [Some(reward(first.reward)), second.as_ref().map(|s| reward(s.reward))],
                before: Some(share(&first)),
                after: second.as_ref().map(share),
                trivial: best(trivial, name),
                only_right: paired.as_ref().and_then(|paired| paired.only_right),
                p: paired.and_then(|paired| paired.p),
            })
        };
        Self {
            rows: names.iter().enumerate().filter_map(row).collect(),
            height: ROW * names.len() as f64 + 34.0,
            has_after: after.is_some(),
            paired: pairs.is_some_and(|pairs| !pairs.is_empty()),
            verdicts: verdicts(before, after),
        }
    }
}

/// Where a share is drawn.
pub fn place(share: f64) -> f64 {
    let at = EDGES.0 + share.clamp(0.0, 1.0) * (EDGES.1 - EDGES.0);
    (at * 10.0).round() / 10.0
}

fn share(score: &Score) -> Share {
    let [low, high] = score.accuracy_interval;
    Share {
        text: percent(score.accuracy),
        interval: format!("{:.1} to {:.1}", 100.0 * low, 100.0 * high),
        at: place(score.accuracy),
        ends: [place(low), place(high)],
    }
}

fn best(trivial: &[Earned], name: &str) -> Option<Best> {
    let earning = |earned: &Earned| -> Option<Earning> {
        match name {
            "all" => Some(earned.all),
            name => earned.by_behavior.get(name).copied(),
        }
    };
    let all = trivial.iter().filter_map(|earned| Some((earned, earning(earned)?.accuracy)));
    let (earned, accuracy) = all.max_by(|(_, one), (_, other)| one.total_cmp(other))?;
    Some(Best { policy: earned.policy.clone(), text: percent(accuracy), at: place(accuracy) })
}

struct Paired {
    only_right: Option<[usize; 2]>,
    p: Option<String>,
}

/// McNemar's exact test where each row has one completion; the paired bootstrap where it has more.
fn paired(pairs: &[Pair], name: &str, seed: u64) -> Paired {
    let pairs: Vec<&Pair> =
        pairs.iter().filter(|pair| name == "all" || pair.behaviour() == name).collect();
    if pairs.is_empty() {
        return Paired { only_right: None, p: None };
    }
    if pairs.iter().all(|pair| pair.is_single()) {
        let times = |kind| pairs.iter().filter(|pair| pair.kind() == kind).count();
        let only = [times(Kind::Lost), times(Kind::Won)];
        return Paired { only_right: Some(only), p: Some(p_value(mcnemar(only[0], only[1]))) };
    }
    let part = |[right, of]: [usize; 2]| Part::new(right as f64, of as f64);
    let (before, after): (Vec<Part>, Vec<Part>) =
        pairs.iter().map(|pair| (part(pair.right()[0]), part(pair.right()[1]))).unzip();
    let found = difference(&before, &after, seed);
    Paired { only_right: None, p: found.map(|found| p_value(found.p)) }
}

fn verdicts(before: &Report, after: Option<&Report>) -> Vec<VerdictRow> {
    let mut names = BTreeSet::new();
    for report in std::iter::once(before).chain(after) {
        for (behaviour, verdicts) in &report.verdicts {
            names.extend(verdicts.keys().map(|verdict| (behaviour, verdict)));
        }
    }
    let times = |report: &Report, (behaviour, verdict): (&String, &String)| {
        let of = report.verdicts.get(behaviour).and_then(|verdicts| verdicts.get(verdict));
        of.copied().unwrap_or_default()
    };
    let row = |name: (&String, &String)| VerdictRow {
        behaviour: name.0.clone(),
        verdict: super::text::shown(name.1, super::text::MOST_NAME),
        before: times(before, name),
        after: after.map(|report| times(report, name)),
    };
    names.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::super::pairs::pair;
    use super::*;
    use crate::evaluation::record::{Answer, RowRecord};

    fn record(row: usize, rewards: &[f64]) -> RowRecord {
        let answer = |reward: &f64| Answer {
            text: String::new(),
            reward: *reward,
            verdict: String::new(),
            detail: String::new(),
        };
        RowRecord {
            row,
            example: row.to_string(),
            behavior: if row.is_multiple_of(2) { "execute" } else { "refuse" }.into(),
            request: String::new(),
            tools: Vec::new(),
            wanted: serde_json::Value::Null,
            completions: rewards.iter().map(answer).collect(),
        }
    }

    fn report(right: usize, of: usize) -> Report {
        let accuracy = right as f64 / of as f64;
        let all = Score {
            completions: of,
            accuracy,
            accuracy_interval: [accuracy - 0.1, accuracy + 0.1],
            reward: accuracy,
            reward_interval: [0.0, 1.0],
        };
        Report { by_behavior: [("execute".into(), all.clone())].into(), all, verdicts: [].into() }
    }

    #[test]
    fn rows_are_paired_and_tested_by_behaviour() {
        // Of ten, the first is lost and the others are won; those that execute have an even row.
        let rows = |of: fn(usize) -> f64| (0..10).map(|row| record(row, &[of(row)])).collect();
        let before = rows(|row| f64::from(u8::from(row == 0)));
        let after = rows(|row| f64::from(u8::from(row != 0)));
        let (pairs, _) = pair(before, after);
        let found = Comparison::new(&report(1, 10), Some(&report(9, 10)), &[], Some(&pairs), 1);
        assert_eq!(found.rows[0].only_right, Some([1, 9]));
        // Two-sided exact binomial: 2 · (1 + 10) / 2^10.
        assert_eq!(found.rows[0].p.as_deref(), Some("0.021"));
        assert_eq!(found.rows[1].only_right, Some([1, 4]));
        assert_eq!(found.rows[0].change.as_deref(), Some("+80.0 points"));
        assert_eq!(found.rows[0].direction, "up");
    }

    #[test]
    fn of_several_completions_the_bootstrap_tells() {
        let rows = |reward: f64| (0..20).map(|row| record(row, &[reward, 0.0])).collect();
        let (pairs, _) = pair(rows(0.0), rows(1.0));
        let found = Comparison::new(&report(1, 40), Some(&report(20, 40)), &[], Some(&pairs), 1);
        assert_eq!((found.rows[0].only_right, found.rows[0].p.as_deref()), (None, Some("< 0.001")));
    }

    #[test]
    fn without_an_end_there_is_a_beginning() {
        let found = Comparison::new(&report(1, 2), None, &[], None, 1);
        let row = &found.rows[0];
        assert!(!found.has_after && !found.paired && row.after.is_none() && row.change.is_none());
        let before = row.before.as_ref().map(|share| share.at);
        assert_eq!(before, Some((EDGES.0 + EDGES.1) / 2.0));
    }
}
