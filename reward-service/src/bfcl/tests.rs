#![allow(clippy::unwrap_used)]

use octet_dataset::Example;
use serde_json::{Value, json};

use super::{Bfcl, check};
use crate::{RewardFunction, labels, measure::wanted, parse::ParsedCall};

fn row(truth: Value) -> Example {
    let tool = json!({"name": "f", "parameters": {"properties": {
        "n": {"type": "integer"}, "x": {"type": "number"}, "s": {"type": "string"},
        "l": {"type": "array", "items": {"type": "string"}},
        "d": {"type": "object"}, "ld": {"type": "array", "items": {"type": "object"}}},
        "required": []}});
    let prompt = json!([{"role": "user", "content": "x"}]);
    Example::from_value(
        json!({"prompt": prompt, "tools": [tool], "reward_model": {"ground_truth": truth}}),
    )
    .unwrap()
}

/// The kind of the fault, or `valid`.
fn kind(accepted: Value, arguments: Value) -> String {
    let example = row(json!({"possible_calls": [{"name": "f", "parameters": accepted}]}));
    let call = ParsedCall { name: "f".into(), arguments: arguments.as_object().unwrap().clone() };
    let possible = wanted(&example.ground_truth).unwrap();
    check(&example.tools, &possible, &[call])
        .map_or_else(|fault| fault.kind.into(), |()| "valid".into())
}

/// The expectations were found by running bfcl-eval 2026.3.23 on the same values; `tests/bfcl_parity.rs` runs it.
#[test]
fn verdicts_are_the_leaderboards() {
    for (accepted, arguments, verdict) in [
        (json!({"s": ["April 1, 2024"]}), json!({"s": "april 1 2024"}), "valid"),
        (json!({"s": ["it's"]}), json!({"s": "it\"s"}), "valid"),
        (json!({"s": ["a"]}), json!({"s": "b"}), "value_error:string"),
        (json!({"s": ["a", ""]}), json!({}), "valid"),
        (json!({"s": ["a"]}), json!({}), "simple_function_checker:missing_optional"),
        (
            json!({"s": ["a"]}),
            json!({"s": "a", "n": 1}),
            "simple_function_checker:unexpected_param",
        ),
        (json!({"n": [5]}), json!({"n": 5.0}), "type_error:simple"),
        (json!({"n": [1]}), json!({"n": true}), "type_error:simple"),
        (json!({"x": [5.0]}), json!({"x": 5}), "valid"),
        (json!({"x": [5]}), json!({"x": 5.0}), "valid"),
        (json!({"n": [5]}), json!({"n": 6}), "value_error:others"),
        // A variable: the accepted value's type is not the parameter's.
        (json!({"n": ["", "dontcare"]}), json!({"n": "dontcare"}), "valid"),
        (json!({"n": ["", "dontcare"]}), json!({"n": "DontCare"}), "value_error:others"),
        (json!({"l": [["a", "b"]]}), json!({"l": ["A", "b "]}), "valid"),
        (json!({"l": [["a", "b"]]}), json!({"l": ["b", "a"]}), "value_error:list/tuple"),
        (json!({"l": [["a"]]}), json!({"l": [1]}), "type_error:nested"),
        (json!({"l": [["a"], ""]}), json!({"l": []}), "valid"),
        (json!({"d": [{"a": [1, 2], "b": ["x", ""]}]}), json!({"d": {"a": 2}}), "valid"),
        (json!({"d": [{"a": [1]}]}), json!({"d": {"a": 1, "c": 1}}), "value_error:dict_key"),
        (json!({"d": [{"a": [1]}]}), json!({"d": {"a": 2}}), "value_error:dict_value"),
        (json!({"d": [{"a": [1]}]}), json!({"d": {"a": true}}), "valid"),
        (json!({"ld": [[{"a": [1]}]]}), json!({"ld": [{"a": 1}]}), "valid"),
        (json!({"ld": [[{"a": [1]}]]}), json!({"ld": []}), "value_error:list_dict_count"),
    ] {
        assert_eq!(kind(accepted.clone(), arguments.clone()), verdict, "{accepted} {arguments}");
    }
}

#[test]
fn parallel_calls_match_in_turn() {
    let call = |n: i32| ParsedCall {
        name: "f".into(),
        arguments: json!({"n": n}).as_object().unwrap().clone(),
    };
    let truth = |one: Value, two: Value| {
        row(json!({"possible_calls": [
            {"name": "f", "parameters": {"n": one}}, {"name": "f", "parameters": {"n": two}}]}))
    };
    let verdict = |example: &Example, calls: &[ParsedCall]| {
        check(&example.tools, &wanted(&example.ground_truth).unwrap(), calls).is_ok()
    };
    let narrow_first = truth(json!([1]), json!([1, 2]));
    assert!(verdict(&narrow_first, &[call(2), call(1)]));
    assert!(!verdict(&narrow_first, &[call(1)]));
    // The leaderboard never goes back on a match.
    let wide_first = truth(json!([1, 2]), json!([1]));
    assert!(verdict(&wide_first, &[call(2), call(1)]));
    assert!(!verdict(&wide_first, &[call(1), call(2)]));
}

#[test]
fn no_call_is_right_where_none_is_wanted() {
    let refuse = row(json!({"behavior": "refuse"}));
    let call = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
    for (completion, reward, label) in [
        ("It is sunny.", 1.0, labels::NOT_CALLED),
        ("", 1.0, labels::NOT_CALLED),
        ("<tool_call>{\"name\":", 1.0, labels::NOT_CALLED),
        (call, 0.0, labels::NEEDLESS_CALL),
    ] {
        let verdict = Bfcl.score(&refuse, completion).unwrap();
        assert_eq!((verdict.reward, verdict.label.as_ref()), (reward, label), "{completion}");
    }
    let execute = row(json!({"tool_call": {"name": "f", "parameters": {"s": "A.b"}}}));
    let right = "<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": \"ab\"}}</tool_call>";
    assert_eq!(Bfcl.score(&execute, right).unwrap().reward, 1.0);
    assert_eq!(Bfcl.score(&execute, call).unwrap().label, labels::MISSING_PARAMETERS);
    assert_eq!(Bfcl.score(&execute, "no").unwrap().label, labels::NO_CALL);
}
