//! One row: tools offered, a request, and what the right answer is.
//!
//! Invariant: the request and the tools offered settle the ground truth. A tool that is asked for is
//! offered, or nothing offered is near it; a clarification lacks required values and nothing else.

use serde_json::{Map, Value, json};

use crate::catalogue::{Catalogue, ToolPlan};
use crate::draw::Draw;
use crate::example::Example;
use crate::phrase::{Given, Style, plain, request};
use crate::truth::{Behaviour, Call, GroundTruth};
use crate::value::Derivation;

/// The system message of every generated row.
pub const SYSTEM_MESSAGE: &str = "You call tools. If a required value is missing, ask for it. \
    If no tool fits or the request is harmful, refuse.";

/// The name in `data_source`.
const DATA_SOURCE: &str = "octet/generated";

/// How often 1, 2, … 6 tools are offered; the mean is 2.5.
const TOOLS_OFFERED: [usize; 6] = [25, 33, 22, 11, 6, 3];

/// A row's parts.
#[derive(Debug, Clone)]
pub(crate) struct Composed<'a> {
    pub tools: Vec<&'a ToolPlan>,
    pub request: String,
    pub truth: GroundTruth,
    pub style: Style,
    /// The domain of the tool that is asked for.
    pub domain: Option<&'a str>,
    /// Why the request is refused.
    pub refusal: Option<&'static str>,
    /// How many values were copied, converted and chosen.
    pub values: [usize; 3],
}

/// Composes a row out of these tools. `pool` must hold at least one tool.
pub(crate) fn compose<'a>(
    pool: &'a [ToolPlan],
    catalogue: &Catalogue,
    behaviour: Behaviour,
    style: Style,
    draw: &mut Draw,
) -> Composed<'a> {
    let offered = draw.weighted(&TOOLS_OFFERED) + 1;
    match behaviour {
        Behaviour::Clarify => clarify(pool, offered, style, draw),
        Behaviour::Refuse => refuse(pool, catalogue, offered, style, draw),
        Behaviour::Execute | Behaviour::Text => execute(pool, offered, style, draw),
    }
}

impl Composed<'_> {
    /// The row as an example; `extra` is more for its `extra_info`.
    pub fn example(&self, extra: Map<String, Value>) -> Example {
        match Example::from_value(self.row(extra)) {
            Ok(example) => example,
            Err(faults) => panic!("expected generated rows to follow the row format: {faults}"),
        }
    }

    /// The row in the documented format.
    fn row(&self, mut extra: Map<String, Value>) -> Value {
        extra.insert("behavior".into(), self.truth.behaviour().name().into());
        extra.insert("style".into(), self.style.name().into());
        if let Some(domain) = self.domain {
            extra.insert("domain".into(), domain.into());
        }
        if let Some(refusal) = self.refusal {
            extra.insert("refusal".into(), refusal.into());
        }
        let names = ["copied", "converted", "chosen"];
        let values: Map<String, Value> = names
            .iter()
            .zip(self.values)
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| ((*name).to_owned(), json!(count)))
            .collect();
        if !values.is_empty() {
            extra.insert("values".into(), Value::Object(values));
        }
        json!({
            "data_source": DATA_SOURCE,
            "prompt": [
                {"role": "system", "content": SYSTEM_MESSAGE},
                {"role": "user", "content": self.request},
            ],
            "tools": self.tools.iter().map(|tool| tool.schema()).collect::<Vec<_>>(),
            "ability": "tool_calling",
            "reward_model": {"ground_truth": self.truth.to_value(), "style": "rule"},
            "extra_info": extra,
        })
    }
}

fn execute<'a>(
    pool: &'a [ToolPlan],
    offered: usize,
    style: Style,
    draw: &mut Draw,
) -> Composed<'a> {
    let tool = draw.pick(pool);
    let given = full(tool, draw);
    Composed {
        tools: with_distractors(tool, pool, offered, draw),
        request: request(tool, &given, style, draw),
        truth: GroundTruth::Calls(vec![Call {
            name: tool.name.clone(),
            arguments: given
                .iter()
                .map(|(i, said)| (tool.params[*i].name.clone(), said.value.clone()))
                .collect(),
        }]),
        style,
        domain: Some(&tool.domain),
        refusal: None,
        values: derivations(&given),
    }
}

fn clarify<'a>(
    pool: &'a [ToolPlan],
    offered: usize,
    style: Style,
    draw: &mut Draw,
) -> Composed<'a> {
    let tool = draw.pick(pool);
    let required: Vec<usize> =
        (0..tool.params.len()).filter(|&i| !tool.params[i].optional).collect();
    let count = if required.len() > 1 && draw.chance(20) { 2 } else { 1 };
    let mut missing: Vec<usize> =
        draw.some(required.len(), count).into_iter().map(|i| required[i]).collect();
    missing.sort_unstable();
    let mut given = full(tool, draw);
    given.retain(|(i, _)| !missing.contains(i));
    Composed {
        tools: with_distractors(tool, pool, offered, draw),
        request: request(tool, &given, style, draw),
        truth: GroundTruth::Clarify {
            missing: missing.iter().map(|&i| tool.params[i].name.clone()).collect(),
        },
        style,
        domain: Some(&tool.domain),
        refusal: None,
        values: derivations(&given),
    }
}

fn refuse<'a>(
    pool: &'a [ToolPlan],
    catalogue: &Catalogue,
    offered: usize,
    style: Style,
    draw: &mut Draw,
) -> Composed<'a> {
    let mut composed = Composed {
        tools: Vec::new(),
        request: String::new(),
        truth: GroundTruth::Refuse,
        style,
        domain: None,
        refusal: None,
        values: [0; 3],
    };
    let tool = draw.pick(pool);
    match draw.below(100) {
        0..38 => {
            composed.tools = with_distractors(tool, pool, offered, draw);
            composed.request = plain(&catalogue.harmful(draw), style, draw);
            composed.refusal = Some("harmful");
        }
        38..50 => {
            composed.tools = with_distractors(tool, pool, offered, draw);
            let wish = request(tool, &full(tool, draw), style, draw);
            composed.request = continued(&wish, &catalogue.harmful_end(draw));
            composed.refusal = Some("harmful_use");
            composed.domain = Some(&tool.domain);
        }
        50..70 => {
            composed.tools = with_distractors(tool, pool, offered, draw);
            composed.request = plain(&catalogue.unserved(draw), style, draw);
            composed.refusal = Some("unserved");
        }
        _ => {
            let far: Vec<&ToolPlan> = pool.iter().filter(|other| !tool.is_near(other)).collect();
            let chosen = draw.some(far.len(), offered);
            composed.tools = chosen.into_iter().map(|i| far[i]).collect();
            composed.request = request(tool, &full(tool, draw), style, draw);
            composed.refusal = Some("no_such_tool");
            composed.domain = Some(&tool.domain);
        }
    }
    composed
}

/// A value for every required parameter and for some of the optional ones, in schema order.
fn full(tool: &ToolPlan, draw: &mut Draw) -> Vec<Given> {
    let mut given: Vec<Given> = Vec::new();
    for (index, param) in tool.params.iter().enumerate() {
        if param.optional && draw.chance(50) {
            continue;
        }
        let mut said = param.draw(draw);
        // Two equal values would hide a swap of their parameters.
        while given.iter().any(|(_, other)| other.text == said.text)
            && said.derivation != Derivation::Chosen
        {
            said = param.draw(draw);
        }
        given.push((index, said));
    }
    given
}

fn derivations(given: &[Given]) -> [usize; 3] {
    let count = |kind| given.iter().filter(|(_, said)| said.derivation == kind).count();
    [Derivation::Copied, Derivation::Converted, Derivation::Chosen].map(count)
}

/// The tool among others, two in five of them from its own domain, in random order.
fn with_distractors<'a>(
    tool: &'a ToolPlan,
    pool: &'a [ToolPlan],
    offered: usize,
    draw: &mut Draw,
) -> Vec<&'a ToolPlan> {
    let mut order: Vec<&ToolPlan> = pool.iter().filter(|other| other.name != tool.name).collect();
    draw.shuffle(&mut order);
    let (mut near, mut far): (Vec<_>, Vec<_>) =
        order.into_iter().partition(|other| other.domain == tool.domain);
    let mut tools = vec![tool];
    while tools.len() < offered {
        let (first, second) =
            if draw.chance(40) { (&mut near, &mut far) } else { (&mut far, &mut near) };
        match first.pop().or_else(|| second.pop()) {
            Some(other) => tools.push(other),
            None => break,
        }
    }
    draw.shuffle(&mut tools);
    tools
}

/// The sentence with an end that changes what it is for, before its last sign.
fn continued(sentence: &str, end: &str) -> String {
    match sentence.strip_suffix(['.', '?']) {
        Some(stem) => format!("{stem} {end}{}", &sentence[stem.len()..]),
        None => format!("{sentence} {end}"),
    }
}
