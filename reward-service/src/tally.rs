//! Mean reward and accuracy, by behaviour and over all.
//!
//! Invariant: an answer without a reward (its function failed) counts as reward 0.0 and not right, and is
//! counted as failed.

use std::{collections::BTreeMap, fmt};

use octet_dataset::Behaviour;

use crate::function::{RewardFunction, ScoreError, Verdict};

/// Scores of some answers taken together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// How many answers.
    pub count: usize,
    /// How many earned the most that the function gives.
    pub right: usize,
    /// How many the function failed on.
    pub failed: usize,
    /// The sum of the rewards.
    pub total: f64,
}

impl Score {
    /// The mean reward; 0 of nothing.
    pub fn mean_reward(&self) -> f64 {
        self.total / self.count.max(1) as f64
    }

    /// The share that earned the most; 0 of nothing.
    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.count.max(1) as f64
    }

    /// Takes one more answer in.
    pub fn add(&mut self, function: &dyn RewardFunction, verdict: &Result<Verdict, ScoreError>) {
        self.count += 1;
        match verdict {
            Ok(verdict) => {
                self.total += verdict.reward;
                self.right += usize::from(verdict.reward >= function.range().max);
            }
            Err(_) => self.failed += 1,
        }
    }
}

/// Scores over all, by behaviour, and by label.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// All answers.
    pub overall: Score,
    /// The answers to examples of each behaviour.
    pub by_behaviour: BTreeMap<Behaviour, Score>,
    /// How often each label, or kind of failure, was given.
    pub by_label: BTreeMap<String, usize>,
}

impl Tally {
    /// Takes one more answer in.
    pub fn add(
        &mut self,
        function: &dyn RewardFunction,
        behaviour: Behaviour,
        verdict: &Result<Verdict, ScoreError>,
    ) {
        self.overall.add(function, verdict);
        self.by_behaviour.entry(behaviour).or_default().add(function, verdict);
        let label = match verdict {
            Ok(verdict) => verdict.label.to_string(),
            Err(error) => error.kind().to_owned(),
        };
        *self.by_label.entry(label).or_default() += 1;
    }
}

/// Writes rows of tallies as a table: reward and accuracy over all, then by each behaviour there is.
pub(crate) fn write_table<'a>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    rows: impl Iterator<Item = (&'a str, &'a Tally)> + Clone,
) -> fmt::Result {
    let width = rows.clone().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let width = width.max(title.chars().count());
    let mut behaviours: Vec<_> =
        rows.clone().flat_map(|(_, tally)| tally.by_behaviour.keys().copied()).collect();
    behaviours.sort_unstable();
    behaviours.dedup();
    write!(f, "{title:width$}  {:>14}", "all")?;
    for behaviour in &behaviours {
        write!(f, "  {:>14}", behaviour.name())?;
    }
    write!(f, "\n{:width$}", "")?;
    for _ in 0..=behaviours.len() {
        write!(f, "  {:>14}", "reward   right")?;
    }
    for (name, tally) in rows {
        write!(f, "\n{name:width$}")?;
        write_score(f, &tally.overall)?;
        for behaviour in &behaviours {
            write_score(f, &tally.by_behaviour.get(behaviour).copied().unwrap_or_default())?;
        }
    }
    Ok(())
}

fn write_score(f: &mut fmt::Formatter<'_>, score: &Score) -> fmt::Result {
    if score.count == 0 {
        return write!(f, "  {:>14}", "–");
    }
    write!(f, "  {:6.3}  {:5.1}%", score.mean_reward(), 100.0 * score.accuracy())
}
