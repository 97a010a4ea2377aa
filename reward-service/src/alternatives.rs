//! When a call is one of those that a ground truth with accepted values allows.
//!
//! Values compare as in [`crate::compare`]: numbers by value, strings after normalisation, types count. An accepted
//! object, or an object in an accepted list, lists accepted values for each of its keys; `""` among them means that
//! it may be left out.
//!
//! Invariant: calls are paired with what is wanted such that as many as possible fit, so the order in which either
//! is written changes nothing. Pairing takes time linear in the calls for each call wanted.

use octet_dataset::{PossibleCall, may_be_left_out};
use serde_json::{Map, Value};

use crate::{
    compare::{Matching, other_tools, same_value},
    parse::{ParsedCall, excerpt},
};

/// Whether a value is accepted.
pub fn accepts(accepted: &[Value], value: &Value) -> bool {
    accepted.iter().any(|accepted| fits(accepted, value))
}

fn fits(accepted: &Value, value: &Value) -> bool {
    match (accepted, value) {
        (Value::Object(accepted), Value::Object(value)) => keys_fit(accepted, value),
        (Value::Array(accepted), Value::Array(value)) => {
            let pair = |(accepted, value): (&Value, &Value)| match (accepted, value) {
                (Value::Object(accepted), Value::Object(value)) => keys_fit(accepted, value),
                _ => same_value(accepted, value),
            };
            accepted.len() == value.len() && accepted.iter().zip(value).all(pair)
        }
        _ => same_value(accepted, value),
    }
}

fn keys_fit(accepted: &Map<String, Value>, value: &Map<String, Value>) -> bool {
    let listed = |key: &str| accepted.get(key).and_then(Value::as_array);
    value.iter().all(|(key, value)| {
        listed(key).is_some_and(|accepted| accepted.iter().any(|one| same_value(one, value)))
    }) && accepted.keys().all(|key| {
        value.contains_key(key) || listed(key).is_some_and(|accepted| may_be_left_out(accepted))
    })
}

/// How a call's arguments relate to those wanted.
#[derive(Clone, Debug, PartialEq)]
pub enum Fit {
    /// Every argument is accepted, and none is missing.
    Right,
    /// Every argument is accepted, and the one named is missing.
    Missing(String),
    /// The argument named is not accepted, or not wanted at all.
    Wrong(String),
}

/// Compares the arguments of a call with those accepted.
pub fn fit(wanted: &PossibleCall, found: &ParsedCall) -> Fit {
    let accepted =
        |name: &str, value: &Value| wanted.accepted(name).is_some_and(|list| accepts(list, value));
    if let Some((name, _)) = found.arguments.iter().find(|(name, value)| !accepted(name, value)) {
        return Fit::Wrong(name.clone());
    }
    let mut missing = wanted
        .parameters()
        .filter(|(name, list)| !found.arguments.contains_key(*name) && !may_be_left_out(list));
    missing.next().map_or(Fit::Right, |(name, _)| Fit::Missing(name.to_owned()))
}

/// Compares the calls found with the possible ones wanted.
pub fn match_possible(wanted: &[PossibleCall], found: &[ParsedCall]) -> Matching {
    let wanted_names = wanted.iter().map(|call| call.name.clone()).collect();
    let found_names = found.iter().map(|call| call.name.clone()).collect();
    if let Some(matching) = other_tools(wanted_names, found_names) {
        return matching;
    }
    let partner = pairing(wanted, found);
    if partner.iter().all(Option::is_some) {
        return Matching::Same;
    }
    let mut free: Vec<&ParsedCall> =
        (0..found.len()).filter(|at| !partner.contains(&Some(*at))).map(|at| &found[at]).collect();
    let (mut only_missing, mut difference) = (true, None);
    for wanted in wanted.iter().zip(&partner).filter(|(_, at)| at.is_none()).map(|(w, _)| w) {
        // The names are the same multisets, so each call without a partner has one of its name left.
        let Some(at) = free.iter().position(|call| call.name == wanted.name) else { continue };
        let tool = excerpt(&wanted.name);
        let text = match fit(wanted, free.remove(at)) {
            Fit::Missing(name) => format!("{tool}: expected {}, found none", excerpt(&name)),
            Fit::Wrong(name) => {
                only_missing = false;
                format!("{tool}: {} is not accepted", excerpt(&name))
            }
            Fit::Right => continue,
        };
        difference.get_or_insert(text);
    }
    Matching::SameTools { only_missing, difference: difference.unwrap_or_default() }
}

/// For each call wanted the one found that fits it, as many as can be at once.
fn pairing(wanted: &[PossibleCall], found: &[ParsedCall]) -> Vec<Option<usize>> {
    let fits: Vec<Vec<usize>> = wanted
        .iter()
        .map(|wanted| {
            let right =
                |call: &ParsedCall| call.name == wanted.name && fit(wanted, call) == Fit::Right;
            (0..found.len()).filter(|at| right(&found[*at])).collect()
        })
        .collect();
    let mut holder: Vec<Option<usize>> = vec![None; found.len()];
    for seeker in 0..wanted.len() {
        seat(seeker, &fits, &mut holder, &mut vec![false; found.len()]);
    }
    let mut partner = vec![None; wanted.len()];
    for (at, holder) in holder.into_iter().enumerate() {
        if let Some(holder) = holder {
            partner[holder] = Some(at);
        }
    }
    partner
}

/// Finds a call for `seeker`, moving those who can take another (an augmenting path).
fn seat(
    seeker: usize,
    fits: &[Vec<usize>],
    holder: &mut [Option<usize>],
    tried: &mut [bool],
) -> bool {
    for &at in &fits[seeker] {
        if std::mem::replace(&mut tried[at], true) {
            continue;
        }
        let free = match holder[at] {
            None => true,
            Some(other) => seat(other, fits, holder, tried),
        };
        if free {
            holder[at] = Some(seeker);
            return true;
        }
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use octet_dataset::{Example, GroundTruth};
    use serde_json::json;

    use super::*;

    fn wanted(calls: Value) -> Vec<PossibleCall> {
        let prompt = json!([{"role": "user", "content": "x"}]);
        let truth = json!({"ground_truth": {"possible_calls": calls}});
        match Example::from_value(json!({"prompt": prompt, "reward_model": truth}))
            .unwrap()
            .ground_truth
        {
            GroundTruth::Possible(calls) => calls,
            other => panic!("{other:?}"),
        }
    }

    fn found(calls: &[(&str, Value)]) -> Vec<ParsedCall> {
        let call = |(name, arguments): &(&str, Value)| ParsedCall {
            name: (*name).to_owned(),
            arguments: arguments.as_object().unwrap().clone(),
        };
        calls.iter().map(call).collect()
    }

    #[test]
    fn alternatives_and_what_may_be_left_out() {
        let f = wanted(json!([{"name": "f", "parameters": {
            "city": ["Lyon", "lyon"], "unit": ["c", ""], "by": [{"rail": [1, 2], "road": ["a", ""]}]}}]));
        for (arguments, fits) in [
            (json!({"city": "lyon", "by": {"rail": 2.0}}), Fit::Right),
            (json!({"city": " Lyon", "unit": "c", "by": {"rail": 1, "road": "a"}}), Fit::Right),
            (json!({"city": "Lyon"}), Fit::Missing("by".into())),
            (json!({"city": "Paris", "by": {"rail": 1}}), Fit::Wrong("city".into())),
            (json!({"city": "Lyon", "by": {"rail": 3}}), Fit::Wrong("by".into())),
            (json!({"city": "Lyon", "by": {"road": "a"}}), Fit::Wrong("by".into())),
            (json!({"city": "Lyon", "by": {"rail": 1}, "x": 1}), Fit::Wrong("x".into())),
        ] {
            assert_eq!(fit(&f[0], &found(&[("f", arguments.clone())])[0]), fits, "{arguments}");
        }
    }

    #[test]
    fn calls_are_paired_whatever_their_order() {
        // Taking the first that fits would give the wide one the only call that the narrow one accepts.
        let calls = wanted(json!([
            {"name": "f", "parameters": {"n": [1, 2]}}, {"name": "f", "parameters": {"n": [1]}}]));
        for order in [[1, 2], [2, 1]] {
            let found = found(&order.map(|n| ("f", json!({"n": n}))));
            assert_eq!(match_possible(&calls, &found), Matching::Same);
        }
        let wrong = found(&[("f", json!({"n": 1})), ("f", json!({}))]);
        let matching = match_possible(&calls, &wrong);
        assert!(matches!(matching, Matching::SameTools { only_missing: true, .. }), "{matching:?}");
        assert_eq!(
            match_possible(&calls, &found(&[("f", json!({"n": 1}))])),
            Matching::TooFew { tools: vec!["f".into()] }
        );
    }
}
