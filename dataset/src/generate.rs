//! The generated data set: exact shares of behaviours and phrasings, repeatable by seed.
//!
//! Invariant: the rows are a pure function of the [`Spec`], to the byte; a row's draws are keyed by
//! its index, so a longer set does not begin with other draws for the same plan.

use std::collections::HashSet;

use serde_json::Map;

use crate::catalogue::Catalogue;
use crate::cold_start::invented_tools;
use crate::compose::compose;
use crate::draw::{Draw, Purpose};
use crate::example::Example;
use crate::phrase::Style;
use crate::truth::Behaviour;

/// Which tools the rows use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// The training tools.
    Train,
    /// The tools that training never sees.
    HeldOut,
    /// Tools that are invented for each row, as the cold start's are: none is a held-out one. What is refused in them is
    /// what is refused in training.
    Invented,
}

impl Split {
    /// The name used in `extra_info.split`.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::HeldOut => "held_out",
            Split::Invented => "invented",
        }
    }

    fn key(self) -> u64 {
        match self {
            Split::Train => 0,
            Split::HeldOut => 1,
            Split::Invented => 2,
        }
    }
}

/// What to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// The seed.
    pub seed: u64,
    /// How many rows.
    pub rows: usize,
    /// Which tools.
    pub split: Split,
}

/// Generates the rows: execute 60 %, clarify 25 %, refuse 15 %, each phrased formally, casually and
/// tersely in equal shares; no request occurs twice.
pub fn generate(spec: &Spec) -> Vec<Example> {
    let mut seen = HashSet::new();
    let plan = plan(spec);
    plan.into_iter()
        .enumerate()
        .map(|(index, (behaviour, style))| {
            let mut attempt = 0;
            loop {
                let row = row(spec, index, attempt, behaviour, style);
                if seen.insert(row.request().to_owned()) {
                    break row;
                }
                attempt += 1;
            }
        })
        .collect()
}

fn row(spec: &Spec, index: usize, attempt: u64, behaviour: Behaviour, style: Style) -> Example {
    let stream = (attempt << 8) | spec.split.key();
    let mut draw = Draw::keyed(Purpose::Row, spec.seed, stream, index as u64);
    let mut extra = Map::new();
    extra.insert("split".into(), spec.split.name().into());
    extra.insert("index".into(), index.into());
    let (catalogue, invented) = match spec.split {
        Split::Train => (Catalogue::training(), None),
        Split::HeldOut => (Catalogue::held_out(), None),
        Split::Invented => (Catalogue::training(), Some(invented_tools(&mut draw))),
    };
    let tools = invented.as_ref().unwrap_or(&catalogue.tools);
    compose(tools, catalogue, behaviour, style, &mut draw).example(extra)
}

/// Behaviour and style by index: exact shares in random order.
fn plan(spec: &Spec) -> Vec<(Behaviour, Style)> {
    let shares = [(Behaviour::Execute, 60), (Behaviour::Clarify, 25), (Behaviour::Refuse, 15)];
    let mut plan: Vec<(Behaviour, Style)> = Vec::with_capacity(spec.rows);
    for (behaviour, count) in quotas(&shares, spec.rows) {
        for _ in 0..count {
            plan.push((behaviour, Style::ALL[plan.len() % Style::ALL.len()]));
        }
    }
    Draw::keyed(Purpose::Plan, spec.seed, spec.split.key(), 0).shuffle(&mut plan);
    plan
}

/// Splits `rows` by per cent; what rounding leaves over goes to the largest remainders.
fn quotas(shares: &[(Behaviour, usize)], rows: usize) -> Vec<(Behaviour, usize)> {
    let mut quotas: Vec<(Behaviour, usize)> =
        shares.iter().map(|&(behaviour, share)| (behaviour, rows * share / 100)).collect();
    let left = rows - quotas.iter().map(|(_, count)| count).sum::<usize>();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(rows * shares[i].1 % 100));
    for &i in order.iter().take(left) {
        quotas[i].1 += 1;
    }
    quotas
}
