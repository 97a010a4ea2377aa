//! What the page says, all in texts and places: the template only sets it.
//!
//! Invariant: every number is one that the run wrote down, or follows from such numbers by arithmetic.

use super::chart::{Level, Mark};
use super::compare::Comparison;
use super::curves::{Curves, draw};
use super::groups::Groups;
use super::pairs::{HeldOut, Kind, Pair};
use super::source::{Revision, Source};
use super::text::{self, MOST_NAME, MOST_TEXT, count, duration, number, percent, reward, shown};
use crate::train::summary::Speed;
use crate::train::trivial::Earned;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;

/// The page.
#[derive(Debug, Serialize)]
pub struct View {
    name: String,
    over: bool,
    done: String,
    total: String,
    /// Steps done and all, for the bar.
    progress: [u64; 2],
    tiles: Vec<Tile>,
    missing: Vec<String>,
    comparison: Option<Comparison>,
    /// How an accuracy is drawn: the axis of [`Comparison`].
    shares: Vec<(f64, String)>,
    held_out: Option<HeldOut>,
    curves: Curves,
    levels: bool,
    revisions: Vec<Revision>,
    trivial: Option<TrivialTable>,
    speeds: Vec<SpeedRow>,
    groups: Option<Groups>,
    facts: Vec<(&'static str, String)>,
    config: String,
    octet: &'static str,
}

/// A number at the top of the page.
#[derive(Debug, Serialize)]
struct Tile {
    label: &'static str,
    value: String,
    note: String,
    /// `up`, `down` or `even`.
    direction: &'static str,
}

/// What trivial policies earn, as a table.
#[derive(Debug, Serialize)]
struct TrivialTable {
    function: String,
    behaviours: Vec<String>,
    rows: Vec<TrivialRow>,
}

#[derive(Debug, Serialize)]
struct TrivialRow {
    letter: char,
    policy: String,
    /// Mean reward on the training rows: all, then each behaviour.
    train: Vec<String>,
    /// Accuracy on the held-out rows.
    held_out: Option<String>,
}

#[derive(Debug, Serialize)]
struct SpeedRow {
    name: &'static str,
    tokens: String,
    gflops: String,
    share: String,
    machine: String,
}

/// Most characters of the recipe.
const MOST_CONFIG: usize = 20_000;
const LETTERS: [char; 8] = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];

impl View {
    /// Of what was read.
    pub fn new(source: Source) -> Self {
        let levels: Vec<Level> = source.trivial.iter().flat_map(|t| levels(&t.train)).collect();
        let marks: Vec<Mark> = source.revisions.iter().filter_map(mark).collect();
        let curves = draw(&source.steps, &levels, &marks);
        let held_out = source.trivial.as_ref().map(|trivial| trivial.held_out.as_slice());
        let comparison = source.before.as_ref().map(|before| {
            let (pairs, seed) = (source.pairs.as_deref(), source.recipe.run.seed);
            Comparison::new(before, source.after(), held_out.unwrap_or_default(), pairs, seed)
        });
        let (done, total) = (source.steps.len() as u64, source.identity.total_steps);
        Self {
            tiles: tiles(&source, comparison.as_ref()),
            facts: facts(&source),
            speeds: speeds(&source),
            trivial: trivial(&source),
            name: shown(&source.name, MOST_NAME),
            over: source.summary.is_some(),
            done: count(done),
            total: count(total),
            progress: [done, total.max(1)],
            missing: source.missing.iter().map(|text| shown(text, MOST_TEXT)).collect(),
            shares: (0..=5).map(|i| f64::from(i) / 5.0).map(axis).collect(),
            comparison,
            held_out: source.pairs.as_deref().filter(|p| !p.is_empty()).map(HeldOut::new),
            levels: !levels.is_empty(),
            curves,
            revisions: source.revisions.into_iter().map(named).collect(),
            groups: source.groups,
            config: shown(&source.config, MOST_CONFIG),
            octet: env!("CARGO_PKG_VERSION"),
        }
    }
}

fn axis(share: f64) -> (f64, String) {
    (super::compare::place(share), format!("{:.0} %", 100.0 * share))
}

fn levels(trivial: &[Earned]) -> Vec<Level> {
    let level = |(letter, earned): (char, &Earned)| Level {
        letter,
        name: earned.policy.clone(),
        value: earned.all.reward,
    };
    LETTERS.into_iter().zip(trivial).map(level).collect()
}

/// A reward that took over while the run went on.
fn mark(revision: &Revision) -> Option<Mark> {
    (revision.from > 1).then(|| Mark {
        step: revision.from,
        label: format!("r{}", revision.number),
        name: revision.name.clone(),
    })
}

fn named(revision: Revision) -> Revision {
    Revision {
        name: shown(&revision.name, MOST_NAME),
        digest: shown(&revision.digest, MOST_NAME),
        ..revision
    }
}

fn tiles(source: &Source, comparison: Option<&Comparison>) -> Vec<Tile> {
    let mut tiles = Vec::new();
    let even = |label, value, note| Tile { label, value, note, direction: "even" };
    if let (Some(before), after) = (&source.before, source.after()) {
        let all = comparison.and_then(|comparison| comparison.rows.first());
        let p = all.and_then(|all| all.p.as_ref());
        let p = p.map_or_else(String::new, |p| match p.starts_with('<') {
            true => format!(", p\u{a0}{}", p.replace(' ', "\u{a0}")),
            false => format!(", p\u{a0}=\u{a0}{p}"),
        });
        let (change, direction) = all.map_or((String::new(), "even"), |all| {
            (all.change.clone().unwrap_or_default(), all.direction)
        });
        tiles.push(match after {
            Some(after) => Tile {
                label: "held-out accuracy",
                value: format!(
                    "{} → {}",
                    percent(before.all.accuracy),
                    percent(after.all.accuracy)
                ),
                note: format!("{change}{p}"),
                direction,
            },
            None => {
                even("held-out accuracy", percent(before.all.accuracy), "before the run".into())
            }
        });
        if let Some(after) = after {
            let value = format!("{} → {}", reward(before.all.reward), reward(after.all.reward));
            let note = format!("{:+.3}", after.all.reward - before.all.reward);
            tiles.push(even("held-out mean reward", value, note));
        }
    }
    if let Some(pairs) = &source.pairs {
        let times = |kind| pairs.iter().filter(|pair: &&Pair| pair.kind() == kind).count() as u64;
        let (lost, won) = (times(Kind::Lost), times(Kind::Won));
        let note = format!("right before, wrong now; {} the other way", count(won));
        let direction = if lost > 0 { "down" } else { "even" };
        tiles.push(Tile { label: "prompts that got worse", value: count(lost), note, direction });
    }
    if let (Some(first), Some(last)) = (source.steps.first(), source.steps.last()) {
        let mean = |step: &octet_learner::metrics::StepMetrics| reward(step.rollout.reward_mean);
        let note = format!("of sampled completions, steps {} and {}", first.step, last.step);
        tiles.push(even("training reward", format!("{} → {}", mean(first), mean(last)), note));
        let learning: f64 = source.steps.iter().map(|step| step.timing.learn_seconds).sum();
        let waiting: f64 = source.steps.iter().map(|s| s.timing.sample_wait_seconds).sum();
        let (value, note) = match &source.summary {
            Some(summary) => (
                duration(summary.wall_seconds),
                format!(
                    "{} learning, {} waiting for groups",
                    duration(learning),
                    duration(waiting)
                ),
            ),
            None => (duration(learning + waiting), "learning, and waiting for groups".into()),
        };
        tiles.push(even("time", value, note));
        let gap = source.steps.iter().map(|step| step.logprob_gap_max).fold(0.0, f64::max);
        let note = "largest between sampler and learner, nats".into();
        tiles.push(even("log-probability gap", number(gap), note));
    }
    tiles
}

fn facts(source: &Source) -> Vec<(&'static str, String)> {
    let (recipe, learner) = (&source.recipe, &source.recipe.learner);
    let data = |path: &Path| file_name(path);
    let mut facts = vec![
        ("started from", file_name(&recipe.model.path)),
        ("training rows", data(&recipe.data.train)),
        ("held-out rows", data(&recipe.data.held_out)),
        ("reward", file_name(Path::new(&recipe.reward.function))),
        ("objective", learner.objective.name().to_owned()),
        (
            "a step",
            format!("{} prompts × {} completions", learner.batch, recipe.sampling.completions),
        ),
        ("lag", format!("{} versions", learner.lag)),
        ("learning rate", number(learner.learning_rate)),
        ("sampling temperature", recipe.sampling.temperature.to_string()),
        ("seed", recipe.run.seed.to_string()),
        ("run", source.identity.run_id.clone()),
        ("configuration digest", source.identity.config_digest.to_string()),
    ];
    if let Some(summary) = &source.summary {
        facts.push(("weights digest", summary.weights_digest.clone()));
        facts.push(("policy", file_name(Path::new(&summary.policy))));
    }
    facts.push(("begun by octet", source.identity.octet.clone()));
    facts.into_iter().map(|(name, text)| (name, shown(&text, MOST_TEXT))).collect()
}

/// The last part of a path: a page that is passed on does not tell where things lay on a machine.
fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn speeds(source: &Source) -> Vec<SpeedRow> {
    let row = |name, speed: Option<Speed>| {
        let speed = speed?;
        Some(SpeedRow {
            name,
            tokens: number(speed.tokens_per_second),
            gflops: number(speed.gflops),
            share: percent(speed.gflops / speed.machine_gflops),
            machine: number(speed.machine_gflops),
        })
    };
    let summary = source.summary.as_ref();
    let rows = [
        row("sampling", summary.and_then(|summary| summary.sampling)),
        row("learning", summary.and_then(|summary| summary.learning)),
    ];
    rows.into_iter().flatten().collect()
}

fn trivial(source: &Source) -> Option<TrivialTable> {
    let trivial = source.trivial.as_ref()?;
    let behaviours: BTreeSet<&String> =
        trivial.train.iter().flat_map(|earned| earned.by_behavior.keys()).collect();
    let row = |(letter, earned): (char, &Earned)| TrivialRow {
        letter,
        policy: earned.policy.clone(),
        train: std::iter::once(text::reward(earned.all.reward))
            .chain(behaviours.iter().map(|name| {
                let earning = earned.by_behavior.get(*name);
                earning.map_or_else(|| "–".into(), |earning| text::reward(earning.reward))
            }))
            .collect(),
        held_out: (trivial.held_out.iter())
            .find(|held_out| held_out.policy == earned.policy)
            .map(|held_out| percent(held_out.all.accuracy)),
    };
    Some(TrivialTable {
        function: shown(&trivial.function, MOST_NAME),
        rows: LETTERS.into_iter().zip(&trivial.train).map(row).collect(),
        behaviours: behaviours.into_iter().cloned().collect(),
    })
}
