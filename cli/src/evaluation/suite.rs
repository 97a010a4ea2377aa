//! Suites: data, reward function and totals of a public benchmark under one name.
//!
//! Invariant: a total is there only if every category that it is made of is, or it would be another number under
//! the leaderboard's name.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use clap::ValueEnum;
use octet_dataset::{Example, import_bfcl, load};
use serde::Serialize;

use super::interval::Part;

/// A public benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// The Berkeley Function Calling Leaderboard: single-turn categories in Python, judged as its AST checker does.
    Bfcl,
}

impl Suite {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Suite::Bfcl => "bfcl",
        }
    }

    /// The reward function that gives its verdicts.
    pub fn function(self) -> &'static str {
        match self {
            Suite::Bfcl => "bfcl",
        }
    }

    /// Its rows: from the folder of the benchmark's own files, or from what `octet data import` wrote.
    ///
    /// # Errors
    /// Files that cannot be read, and rows that are none of the suite's.
    pub fn rows(self, data: &Path) -> Result<Vec<Example>> {
        let rows = if data.is_dir() {
            let imported = import_bfcl(data, &[]);
            match imported.faults {
                Some(faults) => return Err(faults.into()),
                None => imported.rows,
            }
        } else {
            load(data)?
        };
        if let Some(row) =
            rows.iter().position(|row| row.data_source.as_deref() != Some(self.name()))
        {
            bail!(
                "{} row {}: expected data_source \"{}\", found {:?}; give --data the folder of the benchmark's files, or what `octet data import {}` wrote",
                data.display(),
                row + 1,
                self.name(),
                rows[row].data_source.as_deref().unwrap_or("none"),
                self.name()
            );
        }
        Ok(rows)
    }
}

/// A total of several categories.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SuiteScore {
    /// What the leaderboard calls it.
    pub name: &'static str,
    /// The share of right answers.
    pub accuracy: f64,
}

const NON_LIVE: [&str; 4] = ["simple_python", "multiple", "parallel", "parallel_multiple"];
const LIVE: [&str; 4] = ["live_simple", "live_multiple", "live_parallel", "live_parallel_multiple"];
const IRRELEVANCE: [&str; 2] = ["irrelevance", "live_irrelevance"];

/// The leaderboard's totals, from each row's category and its part in the accuracy.
pub fn scores<'a>(rows: impl Iterator<Item = (&'a str, Part)>) -> Vec<SuiteScore> {
    let mut categories: BTreeMap<&str, Part> = BTreeMap::new();
    for (category, part) in rows {
        let sum = categories.entry(category).or_default();
        sum.of += part.of;
        sum.among += part.among;
    }
    let all = |names: &[&str]| -> Option<Vec<Part>> {
        names.iter().map(|name| categories.get(name).copied()).collect()
    };
    let mean = |parts: Vec<Part>| {
        parts.iter().map(|part| part.of / part.among).sum::<f64>() / parts.len() as f64
    };
    let pooled = |parts: Vec<Part>| {
        parts.iter().map(|part| part.of).sum::<f64>()
            / parts.iter().map(|part| part.among).sum::<f64>()
    };
    [
        ("Non-live AST (mean of categories)", all(&NON_LIVE).map(mean)),
        ("Live AST (all rows)", all(&LIVE).map(pooled)),
        ("Irrelevance (mean of categories)", all(&IRRELEVANCE).map(mean)),
    ]
    .into_iter()
    .filter_map(|(name, accuracy)| Some(SuiteScore { name, accuracy: accuracy? }))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_weighted_as_the_leaderboard_does() {
        let part = |of: f64, among: f64| Part::new(of, among);
        let rows = [
            ("simple_python", part(3.0, 4.0)),
            ("multiple", part(1.0, 2.0)),
            ("parallel", part(0.0, 2.0)),
            ("parallel_multiple", part(1.0, 1.0)),
            ("live_simple", part(1.0, 2.0)),
            ("live_multiple", part(5.0, 6.0)),
            ("live_parallel", part(0.0, 1.0)),
            ("live_parallel_multiple", part(0.0, 1.0)),
            ("irrelevance", part(1.0, 1.0)),
        ];
        let found = scores(rows.into_iter());
        assert_eq!(found.len(), 2, "half of the irrelevance categories is no total: {found:?}");
        assert!((found[0].accuracy - (0.75 + 0.5 + 0.0 + 1.0) / 4.0).abs() < 1e-12);
        assert!((found[1].accuracy - 6.0 / 10.0).abs() < 1e-12);
    }
}
