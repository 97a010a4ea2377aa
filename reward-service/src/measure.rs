//! What a completion does, and how much of it is right: the numbers of an evaluation beside the reward.
//!
//! They are the same whatever the reward function is: a completion is exact if `tool-call` gives it 1.0, and its
//! arguments compare as `tool-call` compares them.
//!
//! Invariant: measures depend on the example and the completion's text alone.

use octet_dataset::{Example, GroundTruth, PossibleCall, Tool, may_be_left_out};
use serde_json::Value;

use crate::{
    alternatives::accepts,
    compare::other_tools,
    function::RewardFunction,
    language::{question, refusal},
    parse::{Parsed, ParsedCall, parse},
    tool_call::ToolCall,
};

/// What a completion does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// Calls at least one tool, and nothing in it is a broken call.
    Execute,
    /// Asks, and does not refuse.
    Clarify,
    /// Refuses.
    Refuse,
    /// Holds something meant as a call that is none.
    Malformed,
    /// Says something else.
    Text,
    /// Says nothing.
    Silent,
}

impl Deed {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 6] =
        [Self::Execute, Self::Clarify, Self::Refuse, Self::Malformed, Self::Text, Self::Silent];

    /// The name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Clarify => "clarify",
            Self::Refuse => "refuse",
            Self::Malformed => "malformed call",
            Self::Text => "other text",
            Self::Silent => "nothing",
        }
    }

    fn of(parsed: &Parsed) -> Self {
        let text = &parsed.text_outside;
        if !parsed.rejected.is_empty() {
            Self::Malformed
        } else if !parsed.calls.is_empty() {
            Self::Execute
        } else if refusal::refuses(text) {
            Self::Refuse
        } else if question::asks(text) {
            Self::Clarify
        } else if text.is_empty() {
            Self::Silent
        } else {
            Self::Text
        }
    }
}

/// Arguments, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Wanted ones that are given with an accepted value.
    pub right: usize,
    /// Wanted ones. One that may be left out counts where it is given with an accepted value.
    pub wanted: usize,
    /// Those given, to whatever tool.
    pub given: usize,
}

/// A wanted argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its type in the tool's schema; `enum` where that lists the choices, `any` where it says nothing.
    pub kind: String,
    /// Whether it is given with an accepted value.
    pub right: bool,
}

/// The calls of a completion, where calls are wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct CallMeasures {
    /// The tools called are those wanted, as often.
    pub same_tools: bool,
    /// All arguments, counted.
    pub arguments: Counts,
    /// Each wanted argument.
    pub each: Vec<Argument>,
}

/// What can be said of a completion without a reward.
#[derive(Clone, Debug, PartialEq)]
pub struct Measures {
    /// What it does.
    pub deed: Deed,
    /// `tool-call` gives it 1.0.
    pub exact: bool,
    /// Its calls; none where no call is wanted.
    pub calls: Option<CallMeasures>,
    /// Which of the tools offered it calls first, from 0.
    pub position: Option<usize>,
}

/// Measures a completion.
pub fn measure(example: &Example, completion: &str) -> Measures {
    let parsed = parse(completion);
    let exact = ToolCall.score(example, completion).is_ok_and(|verdict| verdict.reward >= 1.0);
    let tools: Vec<Tool> =
        example.tools.iter().filter_map(|tool| Tool::from_value(tool, "tools").ok()).collect();
    let first = parsed.calls.first();
    let position = first.and_then(|call| tools.iter().position(|tool| tool.name == call.name));
    let calls = wanted(&example.ground_truth).map(|wanted| calls(&wanted, &parsed.calls, &tools));
    Measures { deed: Deed::of(&parsed), exact, calls, position }
}

/// The calls that a ground truth wants; none where it wants something else.
pub fn wanted(truth: &GroundTruth) -> Option<Vec<PossibleCall>> {
    match truth {
        GroundTruth::Calls(calls) => Some(calls.iter().map(PossibleCall::from).collect()),
        GroundTruth::Possible(calls) => Some(calls.clone()),
        GroundTruth::Clarify { .. } | GroundTruth::Refuse | GroundTruth::Text(_) => None,
    }
}

fn calls(wanted: &[PossibleCall], found: &[ParsedCall], tools: &[Tool]) -> CallMeasures {
    let names = (
        wanted.iter().map(|call| call.name.clone()).collect(),
        found.iter().map(|call| call.name.clone()).collect(),
    );
    let partner = pairing(wanted, found);
    let mut each = Vec::new();
    for (wanted, partner) in wanted.iter().zip(partner) {
        let tool = tools.iter().find(|tool| tool.name == wanted.name);
        for (name, accepted) in wanted.parameters() {
            let given = partner.and_then(|at: usize| found[at].arguments.get(name));
            let right = given.is_some_and(|value| accepts(accepted, value));
            if right || !may_be_left_out(accepted) {
                each.push(Argument { kind: kind_of(tool, name), right });
            }
        }
    }
    let arguments = Counts {
        right: each.iter().filter(|argument| argument.right).count(),
        wanted: each.len(),
        given: found.iter().map(|call| call.arguments.len()).sum(),
    };
    CallMeasures { same_tools: other_tools(names.0, names.1).is_none(), arguments, each }
}

/// For each call wanted one found of the same tool: those with the most right arguments first.
fn pairing(wanted: &[PossibleCall], found: &[ParsedCall]) -> Vec<Option<usize>> {
    let right = |wanted: &PossibleCall, found: &ParsedCall| {
        let accepted = |(name, value): (&String, &Value)| {
            wanted.accepted(name).is_some_and(|accepted| accepts(accepted, value))
        };
        found.arguments.iter().filter(|argument| accepted(*argument)).count()
    };
    let mut pairs = Vec::new();
    for (w, call) in wanted.iter().enumerate() {
        for (f, other) in found.iter().enumerate().filter(|(_, other)| other.name == call.name) {
            pairs.push((usize::MAX - right(call, other), w, f));
        }
    }
    pairs.sort_unstable();
    let mut partner = vec![None; wanted.len()];
    let mut taken = vec![false; found.len()];
    for (_, w, f) in pairs {
        if partner[w].is_none() && !std::mem::replace(&mut taken[f], true) {
            partner[w] = Some(f);
        }
    }
    partner
}

/// What a schema says of a parameter's type, in one word.
pub fn kind_of(tool: Option<&Tool>, parameter: &str) -> String {
    let schema = tool.and_then(|tool| tool.properties().find(|(name, _)| *name == parameter));
    let Some((_, schema)) = schema else { return "any".to_owned() };
    match schema.get("type") {
        _ if schema.get("enum").is_some() => "enum".to_owned(),
        Some(Value::String(kind)) => kind.clone(),
        Some(Value::Array(kinds)) => {
            kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or ")
        }
        _ => "any".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(truth: Value) -> Example {
        let tool = |name: &str| {
            json!({"name": name, "parameters": {"properties": {
                "a": {"type": "integer"}, "b": {"type": "string"}, "c": {"enum": ["x", "y"]}}}})
        };
        let prompt = json!([{"role": "user", "content": "x"}]);
        let tools = [tool("f"), tool("g")];
        Example::from_value(
            json!({"prompt": prompt, "tools": tools, "reward_model": {"ground_truth": truth}}),
        )
        .unwrap()
    }

    fn call(name: &str, arguments: Value) -> String {
        format!("<tool_call>\n{}\n</tool_call>", json!({"name": name, "arguments": arguments}))
    }

    #[test]
    fn arguments_are_counted() {
        let example = row(json!([{"name": "g", "arguments": {"a": 1, "b": "s", "c": "x"}}]));
        let measured = measure(&example, &call("g", json!({"a": 1, "b": "t", "d": 0})));
        let calls = measured.calls.unwrap();
        assert_eq!(calls.arguments, Counts { right: 1, wanted: 3, given: 3 });
        assert!(calls.same_tools && !measured.exact);
        assert_eq!((measured.deed, measured.position), (Deed::Execute, Some(1)));
        let kinds: Vec<_> = calls.each.iter().map(|a| (a.kind.as_str(), a.right)).collect();
        assert_eq!(kinds, [("integer", true), ("string", false), ("enum", false)]);
        let other = measure(&example, &call("f", json!({"a": 1}))).calls.unwrap();
        assert_eq!(other.arguments, Counts { right: 0, wanted: 3, given: 1 });
        assert!(!other.same_tools);
    }

    #[test]
    fn the_best_pairs_are_counted() {
        let example = row(json!([
            {"name": "f", "arguments": {"a": 1, "b": "s"}}, {"name": "f", "arguments": {"a": 2, "b": "s"}}]));
        let swapped = call("f", json!({"a": 2, "b": "s"})) + &call("f", json!({"a": 1, "b": "s"}));
        let measured = measure(&example, &swapped);
        assert!(measured.exact);
        assert_eq!(measured.calls.unwrap().arguments, Counts { right: 4, wanted: 4, given: 4 });
    }

    #[test]
    fn what_may_be_left_out_counts_where_it_is_right() {
        let truth =
            json!({"possible_calls": [{"name": "f", "parameters": {"a": [1, 2], "b": ["s", ""]}}]});
        for (arguments, counts) in [
            (json!({"a": 2}), Counts { right: 1, wanted: 1, given: 1 }),
            (json!({"a": 2, "b": "s"}), Counts { right: 2, wanted: 2, given: 2 }),
            (json!({"a": 2, "b": "t"}), Counts { right: 1, wanted: 1, given: 2 }),
        ] {
            let measured = measure(&row(truth.clone()), &call("f", arguments));
            assert_eq!(measured.calls.unwrap().arguments, counts);
        }
    }

    #[test]
    fn deeds_have_names() {
        let example = row(json!({"behavior": "refuse"}));
        for (completion, deed) in [
            ("", Deed::Silent),
            ("Which city do you mean?", Deed::Clarify),
            ("Sorry, I can't help with that.", Deed::Refuse),
            ("It is sunny.", Deed::Text),
            ("<tool_call>{\"name\": </tool_call>", Deed::Malformed),
        ] {
            let measured = measure(&example, completion);
            assert_eq!((measured.deed, measured.calls), (deed, None), "{completion}");
        }
    }
}
