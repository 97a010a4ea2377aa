//! An evaluation that answers questions: one or several models on the same rows, in groups, side by side.
//!
//! Invariant: every number is a ratio of sums over rows, with an interval from resampled rows; models are compared
//! on the same rows in the same order, each with the first.

use std::collections::{BTreeMap, BTreeSet};

use octet_dataset::{Behaviour, Example, Tool};
use octet_reward_service::measure::{Deed, Measures, measure, wanted};
use serde::Serialize;

use super::Outcome;
use super::facets::{FACETS, Row};
use super::interval::{Difference, Estimate, Part, difference, estimates, holm, mcnemar, pass_at};
use super::suite::{SuiteScore, scores};

/// What was done, for whoever reads the report later.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// The data set.
    pub data: String,
    /// The suite that its rows are from, if it was asked for.
    pub suite: Option<String>,
    /// The reward function.
    pub function: String,
    /// How many rows.
    pub rows: usize,
    /// Completions of each row.
    pub samples: usize,
    /// Sampling temperature; 0 takes the likeliest token.
    pub temperature: f32,
    /// Seed of the sampling and of the intervals.
    pub seed: u64,
}

/// The numbers of a group of rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Numbers {
    /// How many rows.
    pub rows: usize,
    /// Share of completions with the full reward.
    pub accuracy: Option<Estimate>,
    /// Mean reward.
    pub reward: Option<Estimate>,
    /// Share of completions that `tool-call` gives 1.0, whatever the reward function.
    pub exact: Option<Estimate>,
    /// Share that calls the tools wanted, as often as wanted, where calls are wanted.
    pub tool_names: Option<Estimate>,
    /// F1 of arguments, where calls are wanted.
    pub argument_f1: Option<Estimate>,
}

/// The groups of one facet.
#[derive(Clone, Debug, Serialize)]
pub struct Facet {
    /// Its key.
    pub key: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// Its groups in order.
    pub groups: Vec<(String, Numbers)>,
}

/// A chance that one of `k` completions is right.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PassAt {
    /// How many.
    pub k: usize,
    /// The chance.
    pub chance: Estimate,
}

/// What was done where something was wanted, in completions.
#[derive(Clone, Debug, Serialize)]
pub struct Confusion {
    /// Wanted, then how often each [`Deed`] was done, in their order.
    pub wanted: Vec<(&'static str, [usize; 6])>,
}

/// Calls by the place of the tool among those offered, where one call is wanted and several tools are offered.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Place {
    /// The place, from 1.
    pub place: usize,
    /// Completions whose row wants the tool there.
    pub wanted: usize,
    /// Completions that call it first.
    pub called: usize,
}

/// One model's results.
#[derive(Clone, Debug, Serialize)]
pub struct ModelStudy {
    /// The model.
    pub model: String,
    /// All rows.
    pub all: Numbers,
    /// The suite's own totals.
    pub suite: Vec<SuiteScore>,
    /// pass@k, for k = 1, 2, 4 … up to the completions of a row.
    pub pass_at: Vec<PassAt>,
    /// Rows in groups.
    pub facets: Vec<Facet>,
    /// Share of wanted arguments that are right, by their type, and how many were wanted.
    pub argument_types: Vec<(String, usize, Estimate)>,
    /// What was wanted against what was done.
    pub confusion: Confusion,
    /// The places of tools.
    pub places: Vec<Place>,
}

/// One model against the first.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The model.
    pub model: String,
    /// Change in accuracy.
    pub accuracy: Option<Difference>,
    /// Change in mean reward.
    pub reward: Option<Difference>,
    /// Rows right in the first model alone, and in this one alone; with one completion a row.
    pub only_right: Option<[usize; 2]>,
    /// McNemar's exact p of that split.
    pub mcnemar: Option<f64>,
    /// The p-value to read one by one: McNemar's, or the bootstrap's of accuracy, after Holm.
    pub p: Option<f64>,
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Study {
    /// What was done.
    pub setting: Setting,
    /// The models in the order given.
    pub models: Vec<ModelStudy>,
    /// Each but the first, against the first.
    pub comparisons: Vec<Comparison>,
}

/// A completion of a row, measured.
struct Done {
    reward: f64,
    measures: Measures,
}

/// The indices of a row's parts.
const ACCURACY: usize = 0;
const REWARD: usize = 1;
const RATIOS: usize = 5;

impl Study {
    /// Studies the outcomes of each model on `rows`, of whose prompts the lengths in tokens are given.
    pub fn new(
        setting: Setting,
        rows: &[Example],
        prompt_tokens: &[usize],
        outcomes: &[(String, Vec<Outcome>)],
    ) -> Self {
        let of_rows: Vec<Row> =
            rows.iter().zip(prompt_tokens).map(|(row, tokens)| Row::new(row, *tokens)).collect();
        let (mut models, mut parts) = (Vec::new(), Vec::new());
        for (model, outcomes) in outcomes {
            let done = by_row(rows, outcomes);
            let of_model: Vec<Vec<Part>> = done.iter().map(|done| row_parts(done)).collect();
            let study = Samples { rows, of_rows: &of_rows, done: &done, parts: &of_model };
            models.push(study.model(model, &setting));
            parts.push(of_model);
        }
        let comparisons = match parts.split_first() {
            Some((first, others)) => {
                let names = outcomes.iter().skip(1).map(|(model, _)| model);
                let one = |(model, other): (&String, &Vec<Vec<Part>>)| {
                    compare(model, first, other, &setting)
                };
                adjusted(names.zip(others).map(one).collect())
            }
            None => Vec::new(),
        };
        Self { setting, models, comparisons }
    }
}

fn by_row(rows: &[Example], outcomes: &[Outcome]) -> Vec<Vec<Done>> {
    let mut done: Vec<Vec<Done>> = rows.iter().map(|_| Vec::new()).collect();
    for outcome in outcomes {
        let measures = measure(&rows[outcome.row], &outcome.completion);
        done[outcome.row].push(Done { reward: outcome.reward, measures });
    }
    done
}

/// A row's part in each ratio of [`Numbers`].
fn row_parts(done: &[Done]) -> Vec<Part> {
    let n = done.len() as f64;
    let count = |fits: &dyn Fn(&Done) -> bool| done.iter().filter(|done| fits(done)).count() as f64;
    let calls = || done.iter().filter_map(|done| done.measures.calls.as_ref());
    let sum = |of: &dyn Fn(&octet_reward_service::measure::Counts) -> usize| {
        calls().map(|calls| of(&calls.arguments)).sum::<usize>() as f64
    };
    let same = calls().filter(|calls| calls.same_tools).count() as f64;
    vec![
        Part::new(count(&|done| done.reward >= 1.0), n),
        Part::new(done.iter().map(|done| done.reward).sum(), n),
        Part::new(count(&|done| done.measures.exact), n),
        Part::new(same, calls().count() as f64),
        Part::new(2.0 * sum(&|counts| counts.right), sum(&|counts| counts.wanted + counts.given)),
    ]
}

/// One model's completions on all rows.
struct Samples<'a> {
    rows: &'a [Example],
    of_rows: &'a [Row<'a>],
    done: &'a [Vec<Done>],
    parts: &'a [Vec<Part>],
}

impl Samples<'_> {
    fn model(&self, model: &str, setting: &Setting) -> ModelStudy {
        let everything: Vec<usize> = (0..self.rows.len()).collect();
        let suite = match setting.suite {
            Some(_) => scores(self.rows.iter().zip(self.parts).filter_map(|(row, parts)| {
                Some((row.extra_info.get("category")?.as_str()?, parts[ACCURACY]))
            })),
            None => Vec::new(),
        };
        ModelStudy {
            model: model.to_owned(),
            all: self.numbers(&everything, setting.seed),
            suite,
            pass_at: self.pass_at(setting),
            facets: self.facets(setting.seed),
            argument_types: self.argument_types(setting.seed),
            confusion: self.confusion(),
            places: self.places(),
        }
    }

    fn numbers(&self, rows: &[usize], seed: u64) -> Numbers {
        let parts: Vec<&[Part]> = rows.iter().map(|at| self.parts[*at].as_slice()).collect();
        let mut found = estimates(&parts, seed);
        found.resize(RATIOS, None);
        let [accuracy, reward, exact, tool_names, argument_f1] =
            [found[ACCURACY], found[REWARD], found[2], found[3], found[4]];
        Numbers { rows: rows.len(), accuracy, reward, exact, tool_names, argument_f1 }
    }

    fn facets(&self, seed: u64) -> Vec<Facet> {
        let facets = FACETS.iter().map(|facet| {
            let mut groups: BTreeMap<(usize, String), Vec<usize>> = BTreeMap::new();
            for (at, row) in self.of_rows.iter().enumerate() {
                if let Some(group) = facet.group(row) {
                    groups.entry(group).or_default().push(at);
                }
            }
            let numbers =
                groups.into_iter().map(|((_, name), rows)| (name, self.numbers(&rows, seed)));
            Facet { key: facet.key, title: facet.title, groups: numbers.collect() }
        });
        facets.filter(|facet| !facet.groups.is_empty()).collect()
    }

    fn pass_at(&self, setting: &Setting) -> Vec<PassAt> {
        let powers = std::iter::successors(Some(1), |k| Some(k * 2));
        let ks: BTreeSet<usize> = powers
            .take_while(|k| *k < setting.samples)
            .chain((setting.samples > 1).then_some(setting.samples))
            .collect();
        let rows: Vec<Vec<Part>> = self
            .done
            .iter()
            .map(|done| {
                let right = done.iter().filter(|done| done.reward >= 1.0).count();
                let chance = |k: &usize| pass_at(*k, right, done.len());
                ks.iter()
                    .map(|k| chance(k).map_or(Part::default(), |c| Part::new(c, 1.0)))
                    .collect()
            })
            .collect();
        let rows: Vec<&[Part]> = rows.iter().map(Vec::as_slice).collect();
        let found = estimates(&rows, setting.seed);
        ks.iter()
            .zip(found)
            .filter_map(|(k, chance)| Some(PassAt { k: *k, chance: chance? }))
            .collect()
    }

    fn argument_types(&self, seed: u64) -> Vec<(String, usize, Estimate)> {
        let arguments =
            |done: &'_ Done| done.measures.calls.as_ref().map(|calls| calls.each.clone());
        let each: Vec<_> = self
            .done
            .iter()
            .map(|done| done.iter().filter_map(arguments).flatten().collect::<Vec<_>>())
            .collect();
        let kinds: BTreeSet<&str> =
            each.iter().flatten().map(|argument| argument.kind.as_str()).collect();
        let rows: Vec<Vec<Part>> = each
            .iter()
            .map(|each| {
                let of_kind = |kind: &str| {
                    let of_kind = each.iter().filter(|argument| argument.kind == kind);
                    let right = of_kind.clone().filter(|argument| argument.right).count();
                    Part::new(right as f64, of_kind.count() as f64)
                };
                kinds.iter().map(|kind| of_kind(kind)).collect()
            })
            .collect();
        let rows: Vec<&[Part]> = rows.iter().map(Vec::as_slice).collect();
        let found = estimates(&rows, seed);
        let finish = |(at, (kind, share)): (usize, (&&str, Option<Estimate>))| {
            let wanted: f64 = rows.iter().map(|row| row[at].among).sum();
            Some(((*kind).to_owned(), wanted as usize, share?))
        };
        kinds.iter().zip(found).enumerate().filter_map(finish).collect()
    }

    fn confusion(&self) -> Confusion {
        let mut wanted: BTreeMap<Behaviour, [usize; 6]> = BTreeMap::new();
        for (row, done) in self.rows.iter().zip(self.done) {
            let counts = wanted.entry(row.behaviour()).or_default();
            for done in done {
                let at = Deed::ALL.iter().position(|deed| *deed == done.measures.deed);
                counts[at.unwrap_or_default()] += 1;
            }
        }
        let named = wanted.into_iter().map(|(behaviour, counts)| (behaviour.name(), counts));
        Confusion { wanted: named.collect() }
    }

    fn places(&self) -> Vec<Place> {
        let mut places: BTreeMap<usize, Place> = BTreeMap::new();
        for (row, done) in self.rows.iter().zip(self.done) {
            let Some(calls) = wanted(&row.ground_truth) else { continue };
            let [call] = calls.as_slice() else { continue };
            let named = |tool: &serde_json::Value| {
                Tool::from_value(tool, "tools").is_ok_and(|tool| tool.name == call.name)
            };
            let Some(there) = row.tools.iter().position(named) else { continue };
            if row.tools.len() < 2 {
                continue;
            }
            for done in done {
                at(&mut places, there).wanted += 1;
                if let Some(called) = done.measures.position {
                    at(&mut places, called).called += 1;
                }
            }
        }
        places.into_values().collect()
    }
}

/// The counts of a place, from 0.
fn at(places: &mut BTreeMap<usize, Place>, place: usize) -> &mut Place {
    places.entry(place).or_insert(Place { place: place + 1, wanted: 0, called: 0 })
}

fn compare(model: &str, first: &[Vec<Part>], other: &[Vec<Part>], setting: &Setting) -> Comparison {
    let column = |rows: &[Vec<Part>], at: usize| rows.iter().map(|row| row[at]).collect::<Vec<_>>();
    let change = |at| difference(&column(first, at), &column(other, at), setting.seed);
    // With several completions a row is right by degrees, and McNemar's test knows none.
    let only_right = (setting.samples == 1).then(|| {
        let right = |row: &Vec<Part>| row[ACCURACY].of >= 1.0;
        let pairs = || first.iter().map(right).zip(other.iter().map(right));
        [
            pairs().filter(|pair| *pair == (true, false)).count(),
            pairs().filter(|pair| *pair == (false, true)).count(),
        ]
    });
    let mcnemar = only_right.map(|[one, two]| mcnemar(one, two));
    let accuracy = change(ACCURACY);
    let p = mcnemar.or(accuracy.map(|change| change.p));
    Comparison { model: model.to_owned(), accuracy, reward: change(REWARD), only_right, mcnemar, p }
}

fn adjusted(mut comparisons: Vec<Comparison>) -> Vec<Comparison> {
    let p: Vec<f64> = comparisons.iter().filter_map(|comparison| comparison.p).collect();
    let mut raised = holm(&p).into_iter();
    for comparison in comparisons.iter_mut().filter(|comparison| comparison.p.is_some()) {
        comparison.p = raised.next();
    }
    comparisons
}

#[cfg(test)]
#[path = "study_tests.rs"]
mod tests;
