//! Which curves a report has, and the table of numbers that they are drawn from.
//!
//! Invariant: every value that a curve shows is in the table, in a row of its own step or steps, so the page can be
//! read without eyes and without a script.

use super::chart::{Chart, Level, Line, MOST_POINTS, Mark, frame};
use super::text::{MOST_NAME, count, number, shown};
use octet_learner::metrics::StepMetrics;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A chart with what stands around it.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Its name in the page.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// What is shown, and in which unit.
    pub about: String,
    /// The same in words, for those who do not see it.
    pub words: String,
    /// Whether it takes two columns.
    pub wide: bool,
    /// The drawing.
    pub chart: Chart,
}

/// All numbers, a row for each step or for each few.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Numbers {
    /// The columns' heads; the first is that of the steps.
    pub head: Vec<String>,
    /// The rows.
    pub rows: Vec<NumberRow>,
    /// How many steps a row is the mean of.
    pub together: usize,
}

/// The numbers of a step, or the means of a few.
#[derive(Clone, Debug, Serialize)]
pub struct NumberRow {
    /// The last step of them.
    pub step: u64,
    /// All of them, for people.
    pub steps: String,
    /// The values; a dash where there is none.
    pub cells: Vec<String>,
}

/// What a report draws of a run's steps.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Curves {
    /// What was learned.
    pub learning: Vec<Figure>,
    /// How fast.
    pub speed: Vec<Figure>,
    /// Charts whose lines are 0 at every step, which are not drawn.
    pub zero: Vec<String>,
    /// The numbers behind all of them.
    pub numbers: Numbers,
}

type Value<'a> = Box<dyn Fn(&StepMetrics) -> Option<f64> + 'a>;

/// A chart that may be there.
struct Plan<'a> {
    id: &'static str,
    title: &'static str,
    about: &'static str,
    wide: bool,
    range: Option<(f64, f64)>,
    lines: Vec<(String, Value<'a>)>,
}

fn line<'a>(name: &str, value: impl Fn(&StepMetrics) -> f64 + 'a) -> (String, Value<'a>) {
    (name.to_owned(), Box::new(move |step| Some(value(step))))
}

fn maybe<'a>(name: &str, value: impl Fn(&StepMetrics) -> Option<f64> + 'a) -> (String, Value<'a>) {
    (name.to_owned(), Box::new(value))
}

const ONE: Option<(f64, f64)> = Some((0.0, 1.0));
const FROM_NOUGHT: Option<(f64, f64)> = Some((0.0, 0.0));

/// Draws the steps of a run. `levels` are rewards that the reward curve is held against.
pub fn draw(steps: &[StepMetrics], levels: &[Level], marks: &[Mark]) -> Curves {
    let together = steps.len().div_ceil(MOST_POINTS).max(1);
    let chunks: Vec<&[StepMetrics]> = steps.chunks(together).collect();
    let last_of = |chunk: &&[StepMetrics]| chunk.last().map_or(0, |step| step.step);
    let x: Vec<u64> = chunks.iter().map(last_of).collect();
    let mut curves = Curves::default();
    let mut columns: Vec<(String, Vec<Option<f64>>)> = Vec::new();
    let (learning, speed) = (learning(steps), speed());
    let learnings = learning.len();
    for (at, plan) in learning.into_iter().chain(speed).enumerate() {
        let mut lines = Vec::new();
        for (name, value) in &plan.lines {
            let values: Vec<Option<f64>> =
                chunks.iter().map(|chunk| mean(chunk.iter().filter_map(value))).collect();
            if values.iter().all(Option::is_none) {
                continue;
            }
            let head = head(plan.title, name);
            columns.push((head, values.clone()));
            lines.push(Line { name: name.clone(), column: columns.len(), values });
        }
        if lines.is_empty() {
            continue;
        }
        let mut values = lines.iter().flat_map(|line| line.values.iter().flatten());
        // A reward of 0 is something to see.
        if plan.id != "reward" && values.all(|value| *value == 0.0) {
            curves.zero.push(plan.title.into());
            continue;
        }
        let levels = if plan.id == "reward" { levels } else { &[] };
        let frame = frame(plan.wide, !levels.is_empty());
        let figure = Figure {
            id: plan.id.into(),
            title: plan.title.into(),
            about: plan.about.into(),
            words: words(&lines, &x),
            wide: plan.wide,
            chart: Chart::new(frame, &x, &lines, levels, marks, plan.range),
        };
        if at < learnings { curves.learning.push(figure) } else { curves.speed.push(figure) }
    }
    curves.numbers = numbers(&chunks, columns, together);
    curves
}

fn learning(steps: &[StepMetrics]) -> Vec<Plan<'_>> {
    let behaviours: BTreeSet<&String> =
        steps.iter().flat_map(|step| step.rollout.reward_by_behavior.keys()).collect();
    let by_behaviour = behaviours.into_iter().take(6).map(|name| {
        maybe(&shown(name, MOST_NAME), move |s| s.rollout.reward_by_behavior.get(name).copied())
    });
    let rewards = std::iter::once(line("all", |s| s.rollout.reward_mean)).chain(by_behaviour);
    let small =
        |id, title, about, range, lines| Plan { id, title, about, wide: false, range, lines };
    vec![
        Plan {
            id: "reward",
            title: "Mean reward",
            about: "of the completions that each step sampled, by what the prompt wants",
            wide: true,
            range: ONE,
            lines: rewards.collect(),
        },
        small("verdicts", "Verdicts", "share of the completions", ONE, verdicts(steps)),
        small(
            "entropy",
            "Entropy",
            "nats per sampled token",
            FROM_NOUGHT,
            vec![
                line("estimated from samples", |s| s.rollout.entropy_estimate),
                maybe("of the whole distribution", |s| s.loss.entropy),
            ],
        ),
        small(
            "groups",
            "Groups that taught nothing",
            "share of the groups whose rewards are all equal",
            ONE,
            vec![line("all equal", |s| s.rollout.zero_variance_fraction)],
        ),
        small(
            "length",
            "Completion length",
            "tokens",
            FROM_NOUGHT,
            vec![
                line("mean", |s| s.rollout.completion_length_mean),
                line("longest", |s| s.rollout.completion_length_max as f64),
            ],
        ),
        small(
            "truncated",
            "Cut off",
            "share of the completions that ended at the token limit",
            FROM_NOUGHT,
            vec![line("cut off", |s| s.rollout.truncated_fraction)],
        ),
        small(
            "gradient",
            "Gradient norm",
            "before clipping",
            FROM_NOUGHT,
            vec![line("norm", |s| s.gradient_norm)],
        ),
        small("loss", "Loss", "of the step", None, vec![line("loss", |s| s.loss.loss)]),
        small(
            "kl",
            "KL to the reference",
            "nats per token, k3 estimate",
            FROM_NOUGHT,
            vec![maybe("KL", |s| s.loss.kl)],
        ),
        small(
            "clipped",
            "Clipped ratios",
            "share of the ratios",
            FROM_NOUGHT,
            vec![
                line("from below", |s| s.loss.clip_fraction_low),
                line("from above", |s| s.loss.clip_fraction_high),
            ],
        ),
        small(
            "gap",
            "Log-probability gap",
            "largest between sampler and learner, nats",
            FROM_NOUGHT,
            vec![line("gap", |s| s.logprob_gap_max)],
        ),
        small(
            "rate",
            "Learning rate",
            "of the step",
            FROM_NOUGHT,
            vec![line("rate", |s| s.learning_rate)],
        ),
    ]
}

/// The verdicts that were given most, over the whole run, and the others together.
fn verdicts(steps: &[StepMetrics]) -> Vec<(String, Value<'_>)> {
    let mut totals: BTreeMap<&String, u64> = BTreeMap::new();
    for (verdict, times) in steps.iter().flat_map(|step| &step.rollout.verdicts) {
        *totals.entry(verdict).or_default() += times;
    }
    let mut order: Vec<(&String, u64)> = totals.into_iter().collect();
    order.sort_by_key(|(name, times)| (std::cmp::Reverse(*times), *name));
    let share = |s: &StepMetrics, times: u64| times as f64 / s.rollout.completions.max(1) as f64;
    let most = if order.len() > 6 { 5 } else { 6 };
    let names: Vec<&String> = order.iter().take(most).map(|(name, _)| *name).collect();
    let mut lines: Vec<(String, Value<'_>)> = Vec::new();
    for name in names.clone() {
        lines.push(line(&shown(name, MOST_NAME), move |s| {
            share(s, s.rollout.verdicts.get(name).copied().unwrap_or_default())
        }));
    }
    if order.len() > most {
        lines.push(line("all others", move |s| {
            let others = s.rollout.verdicts.iter().filter(|(name, _)| !names.contains(name));
            share(s, others.map(|(_, times)| times).sum())
        }));
    }
    lines
}

fn speed() -> Vec<Plan<'static>> {
    let whole = |s: &StepMetrics| {
        let t = &s.timing;
        let rest = t.commit_seconds.unwrap_or_default() + t.publish_seconds.unwrap_or_default();
        t.sample_wait_seconds + t.learn_seconds + rest
    };
    vec![
        Plan {
            id: "tokens",
            title: "Tokens per second",
            about: "prompt and completion tokens; a whole step waits for its groups, learns, and commits",
            wide: false,
            range: FROM_NOUGHT,
            lines: vec![
                line("learning alone", |s| s.timing.tokens_per_second),
                maybe("a whole step", move |s| {
                    let tokens = s.rollout.prompt_tokens + s.rollout.completion_tokens;
                    (whole(s) > 0.0).then(|| tokens as f64 / whole(s))
                }),
            ],
        },
        Plan {
            id: "seconds",
            title: "Seconds a step",
            about: "what the learner spent them on",
            wide: false,
            range: FROM_NOUGHT,
            lines: vec![
                line("waiting for groups", |s| s.timing.sample_wait_seconds),
                line("learning", |s| s.timing.learn_seconds),
                maybe("commit", |s| s.timing.commit_seconds),
                maybe("publishing", |s| s.timing.publish_seconds),
            ],
        },
        Plan {
            id: "flops",
            title: "Arithmetic",
            about: "GFLOP per second of learning",
            wide: false,
            range: FROM_NOUGHT,
            lines: vec![line("learning", |s| s.timing.flops_per_second / 1e9)],
        },
    ]
}

fn head(title: &str, name: &str) -> String {
    if title.eq_ignore_ascii_case(name) { title.to_owned() } else { format!("{title}: {name}") }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, of) = values.fold((0.0, 0u32), |(sum, of), value| (sum + value, of + 1));
    (of > 0).then(|| sum / f64::from(of))
}

fn words(lines: &[Line], steps: &[u64]) -> String {
    let told = |line: &Line| {
        let known = || line.values.iter().zip(steps).filter_map(|(v, s)| Some((s, (*v)?)));
        let (first, last) = (known().next()?, known().next_back()?);
        Some(format!(
            "{}: {} at step {}, {} at step {}",
            line.name,
            number(first.1),
            first.0,
            number(last.1),
            last.0
        ))
    };
    lines.iter().filter_map(told).collect::<Vec<_>>().join("; ")
}

fn numbers(
    chunks: &[&[StepMetrics]],
    columns: Vec<(String, Vec<Option<f64>>)>,
    together: usize,
) -> Numbers {
    let row = |(at, chunk): (usize, &&[StepMetrics])| {
        let (first, last) = (chunk.first()?.step, chunk.last()?.step);
        let cell = |(_, values): &(String, Vec<Option<f64>>)| {
            values.get(at).copied().flatten().map_or_else(|| "–".to_owned(), number)
        };
        let steps = match last > first {
            true => format!("{} to {}", count(first), count(last)),
            false => count(last),
        };
        Some(NumberRow { step: last, steps, cells: columns.iter().map(cell).collect() })
    };
    let rows = chunks.iter().enumerate().filter_map(row).collect();
    let head = std::iter::once("step".to_owned()).chain(columns.into_iter().map(|(name, _)| name));
    Numbers { head: head.collect(), rows, together }
}

#[cfg(test)]
mod tests;
