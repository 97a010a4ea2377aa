#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn wanted(name: &str, arguments: Value) -> Call {
    let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
    Call { name: name.to_owned(), arguments }
}

fn found(name: &str, arguments: Value) -> ParsedCall {
    let Call { name, arguments } = wanted(name, arguments);
    ParsedCall { name, arguments }
}

#[test]
fn equal_values() {
    for (left, right) in [
        ("1", "1.0"),
        ("1", "1e0"),
        ("0", "-0.0"),
        ("100", "1E2"),
        ("9007199254740992", "9007199254740992.0"),
        ("18446744073709551615", "18446744073709551615"),
        ("1e300", "1.0e300"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        (r#""Paris""#, r#""  Paris\n""#),
        (r#""New  York\tCity""#, r#""New\u00a0York City""#),
        (r#""Caf\u00e9""#, r#""Cafe\u0301""#),
        (r#"{"a": 1, "b": [2]}"#, r#"{"b": [2.0], "a": 1}"#),
    ] {
        assert!(same_value(&value(left), &value(right)), "{left} and {right}");
    }
}

#[test]
fn unequal_values() {
    for (left, right) in [
        (r#""4""#, "4"),
        ("true", "1"),
        ("true", r#""true""#),
        ("null", r#""""#),
        ("9007199254740993", "9007199254740992.0"),
        ("9007199254740993", "9007199254740992"),
        ("18446744073709551615", "18446744073709551614"),
        ("1", "1.5"),
        ("-1", "1"),
        ("[1, 2]", "[2, 1]"),
        ("[1]", "[1, 1]"),
        (r#"{"a": null}"#, "{}"),
        (r#"{"a": 1}"#, r#"{"A": 1}"#),
        (r#""Paris""#, r#""paris""#),
        (r#""10\u00b2""#, r#""102""#),
        (r#""NewYork""#, r#""New York""#),
    ] {
        assert!(!same_value(&value(left), &value(right)), "{left} and {right}");
    }
}

#[test]
fn calls_compare_as_multisets() {
    let (a, b) = (json!({"x": 1}), json!({"x": 2}));
    let both = [wanted("f", a.clone()), wanted("g", b.clone())];
    let turned = [found("g", json!({"x": 2.0})), found("f", a.clone())];
    assert_eq!(match_calls(&both, &turned), Matching::Same);
    let twice = [found("f", a.clone()), found("f", a.clone())];
    assert_eq!(
        match_calls(&[wanted("f", a.clone())], &twice),
        Matching::Needless { tools: vec!["f".to_owned()] }
    );
    assert_eq!(
        match_calls(&[wanted("f", a.clone()), wanted("f", a.clone())], &twice[..1]),
        Matching::TooFew { tools: vec!["f".to_owned()] }
    );
    assert_eq!(
        match_calls(&both, &[found("f", a.clone()), found("h", b)]),
        Matching::OtherTools { missing: vec!["g".to_owned()], instead: vec!["h".to_owned()] }
    );
    assert_eq!(
        match_calls(&both, &[]),
        Matching::TooFew { tools: vec!["f".to_owned(), "g".to_owned()] }
    );
}

#[test]
fn the_right_tools_with_other_arguments_say_what_differs() {
    let all = [wanted("f", json!({"x": 1, "y": "a"}))];
    for (arguments, missing, wanted_difference) in [
        (json!({"x": 1}), true, "f: expected y = \"a\", found none"),
        (json!({}), true, "f: expected x = 1, found none"),
        (json!({"x": 1, "y": "b"}), false, "f: expected y = \"a\", found \"b\""),
        (
            json!({"x": 1, "y": "a", "z": [1, 2, 3, 4]}),
            false,
            "f: expected no z, found z = [1, 2, 3 and 1 more]",
        ),
        (json!({"x": 1, "z": null}), false, "f: expected y = \"a\", found none"),
    ] {
        let matching = match_calls(&all, &[found("f", arguments)]);
        let Matching::SameTools { only_missing, difference } = matching else {
            panic!("{matching:?}")
        };
        assert_eq!((only_missing, difference.as_str()), (missing, wanted_difference));
    }
}

#[test]
fn one_of_two_calls_of_a_tool_that_is_right_leaves_the_other() {
    let two = [wanted("f", json!({"x": 1})), wanted("f", json!({"x": 2}))];
    let matching = match_calls(&two, &[found("f", json!({"x": 2})), found("f", json!({"x": 3}))]);
    let Matching::SameTools { difference, .. } = matching else { panic!("{matching:?}") };
    assert_eq!(difference, "f: expected x = 1, found 3");
}

#[test]
fn a_large_value_gives_a_short_difference() {
    let large = (0..9).fold(json!("x".repeat(999)), |value, _| json!([value, value, {"k": value}]));
    let matching = match_calls(&[wanted("f", json!({"x": 1}))], &[found("f", json!({"x": large}))]);
    let Matching::SameTools { difference, .. } = matching else { panic!("{matching:?}") };
    assert!(difference.len() < 300, "{difference}");
}

proptest! {
    #[test]
    fn order_never_matters(picks in prop::collection::vec((0..3_u8, 0..3_u8), 0..6), turn in 0..6_usize) {
        let calls: Vec<_> = picks.iter().map(|(n, x)| (format!("f{n}"), json!({"x": x}))).collect();
        let all: Vec<_> = calls.iter().map(|(n, a)| wanted(n, a.clone())).collect();
        let mut turned: Vec<_> = calls.iter().map(|(n, a)| found(n, a.clone())).collect();
        turned.reverse();
        let by = turn % turned.len().max(1);
        turned.rotate_left(by);
        prop_assert_eq!(match_calls(&all, &turned), Matching::Same);
        if let Some(dropped) = turned.pop() {
            prop_assert_eq!(
                match_calls(&all, &turned), Matching::TooFew { tools: vec![dropped.name.clone()] });
            turned.push(dropped.clone());
            turned.push(dropped.clone());
            prop_assert_eq!(
                match_calls(&all, &turned), Matching::Needless { tools: vec![dropped.name] });
        }
    }

    #[test]
    fn normalising_twice_is_normalising_once(text in "\\PC*[ \t\n\u{a0}\u{301}e]*\\PC*") {
        let once = normalise(&text);
        prop_assert_eq!(normalise(&once), once.clone());
    }

    #[test]
    fn whole_floats_equal_their_integers(whole in -(1_i64 << 53)..(1_i64 << 53)) {
        prop_assert!(same_value(&json!(whole), &json!(whole as f64)));
        prop_assert!(!same_value(&json!(whole), &json!(whole + 1)));
    }
}
