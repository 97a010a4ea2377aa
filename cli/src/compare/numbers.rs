//! What the runs of a comparison came to: each recipe over its seeds, and each two recipes on the same rows.
//!
//! Invariants: pure, but for reading a run's own files. A recipe's completions of a row are those of all its seeds, and
//! are drawn together; so intervals and p-values are about rows, and the spread over seeds stands beside them.

use super::held_out::Setting;
use super::plan::{Entry, Plan};
use crate::evaluation::Outcome;
use crate::evaluation::interval::{
    Difference, Estimate, Part, difference, estimates, holm, mcnemar,
};
use anyhow::{Context, Result};
use octet_learner::metrics::{StepMetrics, read};
use serde::Serialize;
use std::collections::BTreeSet;

/// A complete run.
#[derive(Clone, Debug)]
pub struct RunNumbers {
    /// The recipe's name.
    pub method: String,
    /// The seed.
    pub seed: u64,
    /// What it learned by.
    pub objective: String,
    /// Digest of the final weights.
    pub weights_digest: String,
    /// Outcomes of the policy that it began with.
    pub start: Vec<Outcome>,
    /// Outcomes of the policy that it made.
    pub after: Vec<Outcome>,
    /// What it cost.
    pub cost: Cost,
    /// Mean reward of the sampled completions, step by step.
    pub curve: Vec<(f64, f64)>,
}

/// What a run cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Steps.
    pub steps: u64,
    /// Seconds of its steps, evaluations not counted.
    pub seconds: f64,
    /// Completion tokens sampled.
    pub sampled_tokens: u64,
    /// Tokens that went through forward and backward.
    pub learned_tokens: u64,
}

/// A number of each seed's run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Their mean.
    pub mean: f64,
    /// Their sample standard deviation; none of a single one.
    pub std: Option<f64>,
    /// In the order of the seeds.
    pub each: Vec<f64>,
}

/// The numbers of the rows that want one behaviour, or of all.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// The behaviour, or `all`.
    pub name: String,
    /// How many rows.
    pub rows: usize,
    /// Accuracy of the policy that the runs began with.
    pub before: f64,
    /// Its mean reward.
    pub reward_before: f64,
    /// Share of full rewards, by run.
    pub accuracy: Spread,
    /// Mean reward, by run.
    pub reward: Spread,
    /// Accuracy of all runs together, with its interval from resampled rows.
    pub estimate: Option<Estimate>,
}

/// A recipe over its seeds.
#[derive(Clone, Debug, Serialize)]
pub struct Method {
    /// Its name.
    pub name: String,
    /// What it learns by.
    pub objective: String,
    /// By behaviour, and all rows at last.
    pub groups: Vec<Group>,
    /// Accuracy after against accuracy before, on the same rows.
    pub change: Option<Difference>,
    /// What its runs cost, each.
    pub costs: Vec<Cost>,
    /// Digests of the final weights, by seed.
    pub weights: Vec<String>,
    /// Mean reward of the sampled completions by step, over the seeds.
    #[serde(skip)]
    pub curve: Vec<(f64, f64)>,
}

/// One recipe against another, on the same rows.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The recipe.
    pub method: String,
    /// The one that it is compared with.
    pub with: String,
    /// How its accuracy differs.
    pub accuracy: Option<Difference>,
    /// How its mean reward differs.
    pub reward: Option<Difference>,
    /// How its accuracy differs, seed by seed.
    pub by_seed: Vec<f64>,
    /// Rows right under the other alone, and under it alone; where there is one completion a row.
    pub only_right: Option<[usize; 2]>,
    /// The p-value to read one by one: McNemar's exact one, or the paired bootstrap's of accuracy, after Holm.
    pub p: Option<f64>,
}

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Contest {
    /// How policies were scored.
    pub setting: Setting,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The recipes, in the order given.
    pub methods: Vec<Method>,
    /// Each two of them.
    pub comparisons: Vec<Comparison>,
}

impl RunNumbers {
    /// Of a run that is complete.
    ///
    /// # Errors
    /// A file of the run cannot be read.
    pub fn read(entry: &Entry, start: Vec<Outcome>, after: Vec<Outcome>) -> Result<Self> {
        let summary: crate::train::summary::Summary = entry
            .directory
            .read("summary.json")?
            .with_context(|| format!("{}: no summary.json", entry.directory.path().display()))?;
        let steps = read(&entry.directory.join("metrics.jsonl"))?;
        Ok(Self {
            method: entry.method.clone(),
            seed: entry.seed,
            objective: entry.recipe.learner.objective.name().to_owned(),
            weights_digest: summary.weights_digest,
            start,
            after,
            cost: Cost::of(&steps),
            curve: steps.iter().map(|step| (step.step as f64, step.rollout.reward_mean)).collect(),
        })
    }
}

impl Cost {
    fn of(steps: &[StepMetrics]) -> Self {
        steps.iter().fold(Self::default(), |sum, step| {
            let timing = &step.timing;
            let after =
                timing.commit_seconds.unwrap_or(0.0) + timing.publish_seconds.unwrap_or(0.0);
            // The speed is a quotient with the tokens above the line.
            let learned = (timing.tokens_per_second * timing.learn_seconds).round() as u64;
            Self {
                steps: sum.steps + 1,
                seconds: sum.seconds + timing.sample_wait_seconds + timing.learn_seconds + after,
                sampled_tokens: sum.sampled_tokens + step.rollout.completion_tokens,
                learned_tokens: sum.learned_tokens + learned,
            }
        })
    }
}

impl Spread {
    /// Of some numbers; there is at least one.
    pub fn new(each: Vec<f64>) -> Self {
        let n = each.len().max(1) as f64;
        let mean = each.iter().sum::<f64>() / n;
        let squares: f64 = each.iter().map(|value| (value - mean).powi(2)).sum();
        Self { mean, std: (each.len() > 1).then(|| (squares / (n - 1.0)).sqrt()), each }
    }
}

impl Contest {
    /// Of all runs of a plan.
    pub fn new(plan: &Plan, runs: Vec<RunNumbers>) -> Self {
        Self::of(plan.yardstick.setting.clone(), &plan.methods, &plan.seeds, &runs)
    }

    /// Of the runs of these recipes with these seeds.
    pub fn of(setting: Setting, methods: &[String], seeds: &[u64], runs: &[RunNumbers]) -> Self {
        let by_method: Vec<Vec<&RunNumbers>> = methods
            .iter()
            .map(|name| runs.iter().filter(|run| run.method == *name).collect())
            .collect();
        let found: Vec<Method> = methods
            .iter()
            .zip(&by_method)
            .map(|(name, runs)| method(name, runs, &setting))
            .collect();
        let mut comparisons = Vec::new();
        for (at, with) in methods.iter().enumerate() {
            for (other, name) in methods.iter().enumerate().skip(at + 1) {
                let pair = [&by_method[at], &by_method[other]];
                comparisons.push(comparison(name, with, pair, &setting));
            }
        }
        let p: Vec<f64> = comparisons.iter().filter_map(|found| found.p).collect();
        let mut raised = holm(&p).into_iter();
        for found in comparisons.iter_mut().filter(|found| found.p.is_some()) {
            found.p = raised.next();
        }
        Self { setting, seeds: seeds.to_vec(), methods: found, comparisons }
    }
}

fn method(name: &str, runs: &[&RunNumbers], setting: &Setting) -> Method {
    let behaviours: BTreeSet<_> =
        runs.iter().flat_map(|run| &run.after).map(|outcome| outcome.behaviour).collect();
    let of = |behaviour| group(runs, behaviour, setting);
    let mut groups: Vec<Group> = behaviours.into_iter().map(|found| of(Some(found))).collect();
    groups.push(of(None));
    let start: Vec<&[Outcome]> = runs.first().map(|run| run.start.as_slice()).into_iter().collect();
    let after = finals(runs);
    let curve = runs.first().map_or(0, |run| run.curve.len());
    let curve = (0..curve).filter_map(|at| {
        let points: Option<Vec<(f64, f64)>> =
            runs.iter().map(|run| run.curve.get(at).copied()).collect();
        let points = points?;
        let sum: f64 = points.iter().map(|point| point.1).sum();
        Some((points.first()?.0, sum / points.len() as f64))
    });
    Method {
        name: name.to_owned(),
        objective: runs.first().map(|run| run.objective.clone()).unwrap_or_default(),
        groups,
        change: difference(&parts(&start, right), &parts(&after, right), setting.seed),
        costs: runs.iter().map(|run| run.cost).collect(),
        weights: runs.iter().map(|run| run.weights_digest.clone()).collect(),
        curve: curve.collect(),
    }
}

fn group(
    runs: &[&RunNumbers],
    behaviour: Option<octet_dataset::Behaviour>,
    setting: &Setting,
) -> Group {
    let chosen = |outcomes: &[Outcome]| -> Vec<Outcome> {
        let fits = |outcome: &&Outcome| behaviour.is_none_or(|wanted| outcome.behaviour == wanted);
        outcomes.iter().filter(fits).cloned().collect()
    };
    let after: Vec<Vec<Outcome>> = runs.iter().map(|run| chosen(&run.after)).collect();
    let start = runs.first().map(|run| chosen(&run.start)).unwrap_or_default();
    let each = |of: fn(&Outcome) -> f64| Spread::new(after.iter().map(|o| mean(o, of)).collect());
    let after_slices: Vec<&[Outcome]> = after.iter().map(Vec::as_slice).collect();
    let by_row: Vec<[Part; 1]> =
        parts(&after_slices, right).into_iter().map(|part| [part]).collect();
    let by_row: Vec<&[Part]> =
        by_row.iter().map(|part| part.as_slice()).filter(|part| part[0].among > 0.0).collect();
    Group {
        name: behaviour.map_or("all", octet_dataset::Behaviour::name).to_owned(),
        rows: by_row.len(),
        before: mean(&start, right),
        reward_before: mean(&start, reward),
        accuracy: each(right),
        reward: each(reward),
        estimate: estimates(&by_row, setting.seed).first().copied().flatten(),
    }
}

fn comparison(
    method: &str,
    with: &str,
    [first, second]: [&Vec<&RunNumbers>; 2],
    setting: &Setting,
) -> Comparison {
    let (one, two) = (finals(first), finals(second));
    let differ = |of| difference(&parts(&one, of), &parts(&two, of), setting.seed);
    let by_seed = first.iter().filter_map(|run| {
        let other = second.iter().find(|other| other.seed == run.seed)?;
        Some(mean(&other.after, right) - mean(&run.after, right))
    });
    // With several completions a row is right by degrees, and McNemar's test knows none.
    let single = setting.samples == 1 && first.len() == 1 && second.len() == 1;
    let only_right = single.then(|| {
        let (one, two) = (parts(&one, right), parts(&two, right));
        let pairs = || one.iter().zip(&two).map(|(one, two)| (one.of >= 1.0, two.of >= 1.0));
        [
            pairs().filter(|pair| *pair == (true, false)).count(),
            pairs().filter(|pair| *pair == (false, true)).count(),
        ]
    });
    let accuracy = differ(right);
    let exact = only_right.map(|[one, two]| mcnemar(one, two));
    Comparison {
        method: method.to_owned(),
        with: with.to_owned(),
        accuracy,
        reward: differ(reward),
        by_seed: by_seed.collect(),
        only_right,
        p: exact.or(accuracy.map(|found| found.p)),
    }
}

/// The outcomes of the final policies.
fn finals<'a>(runs: &[&'a RunNumbers]) -> Vec<&'a [Outcome]> {
    runs.iter().map(|run| run.after.as_slice()).collect()
}

fn right(outcome: &Outcome) -> f64 {
    f64::from(u8::from(outcome.reward >= 1.0))
}

fn reward(outcome: &Outcome) -> f64 {
    outcome.reward
}

fn mean(outcomes: &[Outcome], of: fn(&Outcome) -> f64) -> f64 {
    outcomes.iter().map(of).sum::<f64>() / outcomes.len().max(1) as f64
}

/// Each row's part in a mean over the completions of several runs.
fn parts(runs: &[&[Outcome]], of: fn(&Outcome) -> f64) -> Vec<Part> {
    let rows = runs.iter().flat_map(|run| run.iter()).map(|outcome| outcome.row + 1).max();
    let mut parts = vec![Part::default(); rows.unwrap_or(0)];
    for outcome in runs.iter().flat_map(|run| run.iter()) {
        let part = &mut parts[outcome.row];
        part.of += of(outcome);
        part.among += 1.0;
    }
    parts
}

#[cfg(test)]
mod tests;
