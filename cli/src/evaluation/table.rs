//! What an evaluation found, with 95 % intervals, and two of them side by side.
//!
//! Invariant: intervals are computed from the rows alone, without randomness: Wilson's for shares,
//! the normal one for means.

use super::Outcome;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Standard deviations that 95 % of a normal distribution lie within.
const Z: f64 = 1.959_964;

/// Shares and means of some rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Completions scored.
    pub completions: usize,
    /// Share with the full reward.
    pub accuracy: f64,
    /// Its 95 % interval.
    pub accuracy_interval: [f64; 2],
    /// Mean reward.
    pub reward: f64,
    /// Its 95 % interval.
    pub reward_interval: [f64; 2],
}

/// An evaluation of one policy on one data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// All rows together.
    #[serde(flatten)]
    pub all: Score,
    /// By what the rows want.
    pub by_behavior: BTreeMap<String, Score>,
    /// How often each verdict was given, by behaviour.
    pub verdicts: BTreeMap<String, BTreeMap<String, usize>>,
}

impl Score {
    fn of<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
        let rewards: Vec<f64> = outcomes.map(|o| o.reward).collect();
        let n = rewards.len().max(1) as f64;
        let right = rewards.iter().filter(|&&r| r >= 1.0).count() as f64;
        let mean = rewards.iter().sum::<f64>() / n;
        let variance = rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        let half = Z * (variance / n).sqrt();
        Self {
            completions: rewards.len(),
            accuracy: right / n,
            accuracy_interval: wilson(right, n),
            reward: mean,
            reward_interval: [mean - half, mean + half],
        }
    }
}

/// Wilson's score interval of a share.
fn wilson(right: f64, n: f64) -> [f64; 2] {
    let (p, z2) = (right / n, Z * Z);
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    [(centre - half).max(0.0), (centre + half).min(1.0)]
}

impl Report {
    /// Counts outcomes.
    pub fn new(outcomes: &[Outcome]) -> Self {
        let mut verdicts: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
        for o in outcomes {
            let of = verdicts.entry(o.behaviour.name().to_owned()).or_default();
            *of.entry(o.verdict.clone()).or_default() += 1;
        }
        let by_behavior = verdicts
            .keys()
            .map(|b| (b.clone(), Score::of(outcomes.iter().filter(|o| o.behaviour.name() == b))))
            .collect();
        Self { all: Score::of(outcomes.iter()), by_behavior, verdicts }
    }

    fn rows(&self) -> impl Iterator<Item = (&str, &Score)> {
        let by = self.by_behavior.iter().map(|(name, score)| (name.as_str(), score));
        by.chain(std::iter::once(("all", &self.all)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:10}  {:>5}  {:>22}  {:>22}",
            "", "rows", "accuracy (95 %)", "reward (95 %)"
        )?;
        for (name, score) in self.rows() {
            writeln!(
                f,
                "{name:10}  {:>5}  {:>22}  {:>22}",
                score.completions,
                share(score),
                mean(score)
            )?;
        }
        Ok(())
    }
}

/// Before and after, side by side.
pub struct Comparison<'a> {
    /// The policy that the run began with.
    pub before: &'a Report,
    /// The policy that it made.
    pub after: &'a Report,
}

impl fmt::Display for Comparison<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:10}  {:>5}  {:>22}  {:>22}  {:>7}   {:>13}",
            "held out", "rows", "accuracy before", "after (95 %)", "change", "reward"
        )?;
        for (name, after) in self.after.rows() {
            let Some((_, before)) = self.before.rows().find(|(n, _)| *n == name) else { continue };
            writeln!(
                f,
                "{name:10}  {:>5}  {:>22}  {:>22}  {:>+6.1}%   {:.3} → {:.3}",
                after.completions,
                share(before),
                share(after),
                100.0 * (after.accuracy - before.accuracy),
                before.reward,
                after.reward
            )?;
        }
        Ok(())
    }
}

impl Comparison<'_> {
    /// The same table in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = "| held out | rows | accuracy before | after (95 %) | change | reward before | after |\n\
                        |---|---:|---:|---:|---:|---:|---:|\n"
            .to_owned();
        for (name, after) in self.after.rows() {
            let Some((_, before)) = self.before.rows().find(|(n, _)| *n == name) else { continue };
            text += &format!(
                "| {name} | {} | {} | {} | {:+.1} % | {:.3} | {:.3} |\n",
                after.completions,
                share(before),
                share(after),
                100.0 * (after.accuracy - before.accuracy),
                before.reward,
                after.reward
            );
        }
        text
    }
}

fn share(score: &Score) -> String {
    let [low, high] = score.accuracy_interval.map(|x| 100.0 * x);
    format!("{:.1}% [{low:.1}, {high:.1}]", 100.0 * score.accuracy)
}

fn mean(score: &Score) -> String {
    let [low, high] = score.reward_interval;
    format!("{:.3} [{low:.3}, {high:.3}]", score.reward)
}

#[cfg(test)]
mod tests {
    use super::*;
    use octet_dataset::Behaviour;

    fn outcome(row: usize, behaviour: Behaviour, reward: f64) -> Outcome {
        Outcome {
            row,
            behaviour,
            completion: String::new(),
            reward,
            verdict: "right-call".into(),
            detail: String::new(),
        }
    }

    #[test]
    fn wilson_is_that_of_the_textbook() {
        // 10 of 100: Wilson (1927), z = 1.96.
        let [low, high] = wilson(10.0, 100.0);
        assert!((low - 0.0552).abs() < 1e-4 && (high - 0.1744).abs() < 1e-4, "{low} {high}");
        assert_eq!(wilson(0.0, 20.0)[0], 0.0);
    }

    #[test]
    fn rows_are_counted_by_behaviour() {
        let outcomes = [
            outcome(0, Behaviour::Execute, 1.0),
            outcome(1, Behaviour::Execute, 0.5),
            outcome(2, Behaviour::Refuse, 0.0),
        ];
        let report = Report::new(&outcomes);
        assert_eq!(report.all.completions, 3);
        assert!((report.all.accuracy - 1.0 / 3.0).abs() < 1e-12);
        assert!((report.by_behavior["execute"].reward - 0.75).abs() < 1e-12);
        assert_eq!(report.verdicts["refuse"]["right-call"], 1);
        let text = Comparison { before: &report, after: &report }.to_string();
        assert!(text.contains("execute") && text.contains("+0.0%"), "{text}");
        let table = Comparison { before: &report, after: &report }.markdown();
        let cells: Vec<usize> = table.lines().map(|line| line.matches('|').count()).collect();
        assert_eq!(cells, [8; 5], "{table}");
        assert!(table.contains("| refuse | 1 | 0.0% ["), "{table}");
    }
}
