//! The cold-start corpus: what a policy with random weights is taught before reinforcement learning.
//!
//! Invariant: a drill is a pure function of `(spec, index)`. No drill uses a held-out tool, parameter
//! name or domain, and none repeats a request that was excluded.

mod copying;
mod cues;
mod inventing;
mod words;

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::answer::reference_answer;
use crate::catalogue::{Catalogue, ToolPlan};
use crate::compose::compose;
use crate::draw::{Draw, Purpose};
use crate::example::{Example, Message, Role};
use crate::phrase::Style;
use crate::truth::Behaviour;

/// What the corpus consists of. Fractions are from 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct ColdStartSpec {
    /// The seed.
    pub seed: u64,
    /// The share of drills that only copy, look up or convert.
    pub copy_fraction: f64,
    /// Of the rest, the share that uses the training catalogue's tools, with values of its own.
    pub catalogue_fraction: f64,
    /// The weights of execute, clarify and refuse among calls; they need not add up to 1.
    pub behaviours: [f64; 3],
    /// From 0 (a small alphabet, short spans, few tools) to 1. A drill draws its own level from the
    /// upper half of this.
    pub difficulty: f64,
    /// The share of invented words among the words of invented tools.
    pub made_up: f64,
    /// The share of invented parameters whose values are worked in as people do it ("on the {} side").
    pub natural: f64,
    /// The share of invented tools whose first parameter has the name of the thing itself: `rate_song(song)`.
    pub namesakes: f64,
}

impl Default for ColdStartSpec {
    fn default() -> Self {
        ColdStartSpec {
            seed: 0,
            copy_fraction: 0.3,
            catalogue_fraction: 0.2,
            behaviours: [0.6, 0.25, 0.15],
            difficulty: 1.0,
            made_up: 0.6,
            natural: 0.0,
            namesakes: 0.0,
        }
    }
}

/// What a drill teaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DrillKind {
    /// To repeat a span.
    Repeat,
    /// To find values by their keys.
    LookUp,
    /// To read names out of tool schemas.
    ReadSchema,
    /// To write a call from a name and a list of arguments.
    WriteCall,
    /// To convert a value.
    Convert,
    /// To answer a row over invented tools.
    Invented(Behaviour),
    /// To answer a row over the training catalogue.
    Catalogue(Behaviour),
}

/// A conversation and the answer to be learned.
#[derive(Debug, Clone, PartialEq)]
pub struct Drill {
    /// What it teaches.
    pub kind: DrillKind,
    /// The messages before the answer.
    pub messages: Vec<Message>,
    /// The tools offered, in the OpenAI form; none for most copying drills.
    pub tools: Vec<Value>,
    /// The assistant's answer.
    pub answer: String,
}

/// The corpus, by random access.
#[derive(Debug, Clone)]
pub struct ColdStart {
    spec: ColdStartSpec,
    excluded: HashSet<String>,
}

/// The drill at this index of the corpus, nothing excluded.
pub fn drill(spec: &ColdStartSpec, index: u64) -> Drill {
    ColdStart::new(spec.clone()).drill(index)
}

impl ColdStart {
    /// The corpus of this specification.
    pub fn new(spec: ColdStartSpec) -> Self {
        ColdStart { spec, excluded: HashSet::new() }
    }

    /// Leaves out every drill whose request is one of these rows'.
    pub fn excluding(mut self, rows: &[Example]) -> Self {
        self.excluded.extend(rows.iter().map(|row| row.request().to_owned()));
        self
    }

    /// The drill at this index.
    pub fn drill(&self, index: u64) -> Drill {
        let mut attempt = 0;
        loop {
            let mut draw = Draw::keyed(Purpose::Drill, self.spec.seed, attempt, index);
            let drill = self.attempt(&mut draw);
            let request = drill.messages.last().and_then(|message| message.content.as_deref());
            if !request.is_some_and(|request| self.excluded.contains(request)) {
                return drill;
            }
            attempt += 1;
        }
    }

    fn attempt(&self, draw: &mut Draw) -> Drill {
        let spec = &self.spec;
        let level = spec.difficulty.clamp(0.0, 1.0) * (0.5 + 0.5 * draw.unit());
        if draw.fraction(spec.copy_fraction) {
            return copying::drill(level, spec.made_up, draw);
        }
        let style = *draw.pick(&Style::ALL);
        let behaviour = self.behaviour(draw);
        if draw.fraction(spec.catalogue_fraction) {
            let catalogue = Catalogue::training();
            let composed = compose(&catalogue.tools, catalogue, behaviour, style, draw);
            return call(DrillKind::Catalogue(behaviour), &composed.example(Map::new()), draw);
        }
        let ColdStartSpec { made_up, natural, namesakes, .. } = *spec;
        let shares = inventing::Shares { made_up, natural, namesakes };
        let pool = inventing::pool(level, shares, draw);
        let composed = compose(&pool, Catalogue::training(), behaviour, style, draw);
        call(DrillKind::Invented(behaviour), &composed.example(Map::new()), draw)
    }

    fn behaviour(&self, draw: &mut Draw) -> Behaviour {
        let [execute, clarify, refuse] = self.spec.behaviours.map(|weight| weight.max(0.0));
        let place = draw.unit() * (execute + clarify + refuse);
        if place >= execute + clarify && refuse > 0.0 {
            Behaviour::Refuse
        } else if place >= execute && clarify > 0.0 {
            Behaviour::Clarify
        } else {
            Behaviour::Execute
        }
    }
}

/// The tools that a generated row with invented tools chooses from: as hard as drills become, and most words known.
pub(crate) fn invented_tools(draw: &mut Draw) -> Vec<ToolPlan> {
    inventing::pool(1.0, inventing::Shares { made_up: 0.25, natural: 0.5, namesakes: 0.3 }, draw)
}

fn call(kind: DrillKind, example: &Example, draw: &mut Draw) -> Drill {
    Drill {
        kind,
        messages: example.prompt.clone(),
        tools: example.tools.clone(),
        answer: reference_answer(example, draw.below(usize::MAX) as u64),
    }
}

fn asked(kind: DrillKind, request: String, tools: Vec<Value>, answer: String) -> Drill {
    Drill { kind, messages: vec![Message::new(Role::User, request)], tools, answer }
}
