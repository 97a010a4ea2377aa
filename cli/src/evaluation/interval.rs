//! How sure a number is: bootstrap intervals over rows, paired differences, McNemar's exact test, and pass@k.
//!
//! Everything measured is a ratio of two sums over rows, so one resampling of rows serves every number of a group,
//! and the completions of a row are drawn together: they are not independent.
//!
//! Invariant: the same rows and seed give the same intervals, on every machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;

/// Resamples behind an interval. Few enough for a second's work on thousands of rows; the ends of an interval are
/// then known to about a tenth of its width.
pub const RESAMPLES: usize = 2000;

/// One row's part in a ratio: what is added above the line, and below it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Part {
    /// Above.
    pub of: f64,
    /// Below.
    pub among: f64,
}

impl Part {
    /// `of` among `among`.
    pub fn new(of: f64, among: f64) -> Self {
        Self { of, among }
    }
}

/// A number with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// The interval's ends.
    pub interval: [f64; 2],
}

/// Estimates each ratio of these rows, of which each has as many parts. A ratio with nothing below its line has none.
pub fn estimates(rows: &[&[Part]], seed: u64) -> Vec<Option<Estimate>> {
    let width = rows.first().map_or(0, |row| row.len());
    let all: Vec<usize> = (0..rows.len()).collect();
    let values = ratios(rows, &all, width);
    let mut draws: Vec<Vec<f64>> = vec![Vec::with_capacity(RESAMPLES); width];
    resample(rows.len(), seed, |picked| {
        for (draws, ratio) in draws.iter_mut().zip(ratios(rows, picked, width)) {
            draws.extend(ratio);
        }
    });
    let finish = |(value, mut draws): (Option<f64>, Vec<f64>)| {
        Some(Estimate { value: value?, interval: interval(&mut draws)? })
    };
    values.into_iter().zip(draws).map(finish).collect()
}

/// How one ratio differs between two models on the same rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The second model's ratio less the first's.
    pub change: Estimate,
    /// Two-sided: twice the smaller share of resamples in which the change has either sign.
    pub p: f64,
}

/// Compares a ratio of two models, row by row; `first` and `second` are of the same rows in the same order.
pub fn difference(first: &[Part], second: &[Part], seed: u64) -> Option<Difference> {
    let ratio = |parts: &[Part], picked: &[usize]| {
        let sum = picked.iter().fold(Part::default(), |sum, &at| add(sum, parts[at]));
        (sum.among > 0.0).then(|| sum.of / sum.among)
    };
    let change = |picked: &[usize]| Some(ratio(second, picked)? - ratio(first, picked)?);
    let all: Vec<usize> = (0..first.len().min(second.len())).collect();
    let value = change(&all)?;
    let mut draws = Vec::with_capacity(RESAMPLES);
    resample(all.len(), seed, |picked| draws.extend(change(picked)));
    let share = |sign: &dyn Fn(f64) -> bool| {
        // One more of each than was drawn, since what was measured is a draw, too.
        (draws.iter().filter(|draw| sign(**draw)).count() + 1) as f64 / (draws.len() + 1) as f64
    };
    let p = 2.0 * share(&|draw| draw <= 0.0).min(share(&|draw| draw >= 0.0));
    let interval = interval(&mut draws)?;
    Some(Difference { change: Estimate { value, interval }, p: p.min(1.0) })
}

/// McNemar's exact test: the chance of a split at least as uneven if both models were as good, where `only_first`
/// rows are right in the first model alone, and `only_second` in the second alone.
pub fn mcnemar(only_first: usize, only_second: usize) -> f64 {
    let n = only_first + only_second;
    let fewer = only_first.min(only_second);
    // Terms of the binomial distribution in logarithms, since 2^n leaves the range of f64.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    for k in 0..=fewer {
        tail += log_term.exp();
        log_term += ((n - k) as f64).ln() - ((k + 1) as f64).ln();
    }
    (2.0 * tail).min(1.0)
}

/// The chance that at least one of `k` completions drawn without replacement is right, where `right` of `n` are.
/// None if there are fewer than `k`.
pub fn pass_at(k: usize, right: usize, n: usize) -> Option<f64> {
    if k == 0 || k > n {
        return None;
    }
    let wrong = n.saturating_sub(right);
    // C(wrong, k) / C(n, k), factor by factor.
    let all_wrong: f64 = (0..k).map(|i| wrong.saturating_sub(i) as f64 / (n - i) as f64).product();
    Some(1.0 - all_wrong)
}

/// Raises the p-values of several comparisons to what Holm's procedure allows to be read one by one.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut least = 0.0_f64;
    for (rank, &at) in order.iter().enumerate() {
        least = least.max(p[at] * (p.len() - rank) as f64).min(1.0);
        adjusted[at] = least;
    }
    adjusted
}

fn add(sum: Part, part: Part) -> Part {
    Part { of: sum.of + part.of, among: sum.among + part.among }
}

fn ratios(rows: &[&[Part]], picked: &[usize], width: usize) -> Vec<Option<f64>> {
    let mut sums = vec![Part::default(); width];
    for &at in picked {
        for (sum, part) in sums.iter_mut().zip(rows[at]) {
            *sum = add(*sum, *part);
        }
    }
    sums.iter().map(|sum| (sum.among > 0.0).then(|| sum.of / sum.among)).collect()
}

/// Hands out [`RESAMPLES`] choices of `n` rows with replacement.
fn resample(n: usize, seed: u64, mut visit: impl FnMut(&[usize])) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut picked = vec![0; n];
    for _ in 0..RESAMPLES {
        for at in &mut picked {
            *at = ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize;
        }
        visit(&picked);
    }
}

/// The middle 95 % of some draws.
fn interval(draws: &mut [f64]) -> Option<[f64; 2]> {
    draws.sort_by(f64::total_cmp);
    let at =
        |share: f64| draws.get((share * (draws.len().checked_sub(1)?) as f64).round() as usize);
    Some([*at(0.025)?, *at(0.975)?])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn close(found: f64, wanted: f64, by: f64) {
        assert!((found - wanted).abs() < by, "expected {wanted}, found {found}");
    }

    #[test]
    fn mcnemar_is_that_of_the_binomial_table() {
        // Two-sided exact: 2 · (C(10,0) + C(10,1)) / 2^10, and the textbook's 2 · P(X ≤ 5 | 25, ½).
        close(mcnemar(1, 9), 2.0 * 11.0 / 1024.0, 1e-12);
        close(mcnemar(5, 20), 0.004_077_315_330_505_371, 1e-12);
        assert_eq!(mcnemar(0, 0), 1.0);
        assert_eq!(mcnemar(7, 7), 1.0);
        assert!(mcnemar(0, 3000) < 1e-300);
    }

    #[test]
    fn pass_at_k_counts_draws_without_replacement() {
        // 1 − C(3,2)/C(5,2).
        close(pass_at(2, 2, 5).unwrap(), 1.0 - 3.0 / 10.0, 1e-12);
        close(pass_at(1, 2, 5).unwrap(), 0.4, 1e-12);
        assert_eq!(pass_at(4, 2, 5), Some(1.0));
        assert_eq!(pass_at(3, 0, 5), Some(0.0));
        assert_eq!(pass_at(6, 1, 5), None);
    }

    #[test]
    fn intervals_are_those_of_the_normal_approximation() {
        // A share of 0.3 over 400 rows: ± 1.96 · √(0.3 · 0.7 / 400) = ± 0.0449.
        let parts: Vec<[Part; 2]> = (0..400)
            .map(|i| [Part::new(f64::from(u8::from(i % 10 < 3)), 1.0), Part::new(0.0, 0.0)])
            .collect();
        let rows: Vec<&[Part]> = parts.iter().map(|row| row.as_slice()).collect();
        let found = estimates(&rows, 7);
        let share = found[0].unwrap();
        close(share.value, 0.3, 1e-12);
        close(share.interval[0], 0.3 - 0.0449, 0.006);
        close(share.interval[1], 0.3 + 0.0449, 0.006);
        assert_eq!(found[1], None);
        assert_eq!(found, estimates(&rows, 7));
    }

    #[test]
    fn a_paired_difference_sees_what_unpaired_intervals_hide() {
        // The second model is right where the first is, and on 7 of 400 rows more.
        let part = |right: bool| Part::new(f64::from(u8::from(right)), 1.0);
        let first: Vec<Part> = (0..400).map(|i| part(i % 2 == 0)).collect();
        let second: Vec<Part> = (0..400).map(|i| part(i % 2 == 0 || i % 33 == 1)).collect();
        let found = difference(&first, &second, 1).unwrap();
        assert!(found.change.interval[0] > 0.0 && found.p < 0.01, "{found:?}");
        let none = difference(&first, &first, 1).unwrap();
        assert_eq!((none.change.value, none.p), (0.0, 1.0));
    }

    #[test]
    fn holm_raises_and_keeps_the_order() {
        assert_eq!(holm(&[0.04, 0.01, 0.03]), [0.06, 0.03, 0.06]);
        assert_eq!(holm(&[0.5, 0.9]), [1.0, 1.0]);
    }
}
