#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::score;

fn check(ground_truth: Value, cases: &[(&str, f64, &str)]) {
    let row = json!({
        "prompt": [{"role": "user", "content": "Do it."}],
        "reward_model": {"ground_truth": ground_truth},
    });
    let example = Example::from_value(row).unwrap();
    for (answer, reward, label) in cases {
        let verdict = score(&AwsCompat, &example, answer).unwrap();
        assert_eq!((verdict.reward, verdict.label.as_ref()), (*reward, *label), "{answer}");
        assert!(labels::ALL.contains(label), "{label}");
    }
}

#[test]
fn the_published_tiers_of_calls() {
    check(
        json!([{"name": "a", "arguments": {"x": 1}}, {"name": "b", "arguments": {}}]),
        &[
            (r#"[{"name": "b"}, {"name": "a", "arguments": {"x": 1}}]"#, 1.0, "right-call"),
            (r#"[{"name": "b"}, {"name": "a", "arguments": {"x": 2}}]"#, 0.5, "wrong-parameters"),
            (r#"{"name": "a", "arguments": {"x": 1}}"#, 0.5, "some-tools"),
            (r#"[{"name": "a"}, {"name": "c"}]"#, 0.5, "some-tools"),
            (r#"{"name": "c"}"#, 0.0, "wrong-tool"),
            ("", 0.0, "no-call"),
        ],
    );
}

#[test]
fn how_often_a_tool_is_called_is_not_seen() {
    let right = r#"{"name": "a", "arguments": {"x": 1}}"#;
    check(
        json!([{"name": "a", "arguments": {"x": 1}}]),
        &[
            (&format!("[{right}, {right}, {right}]"), 1.0, "right-call"),
            (&format!("[{right}, {{\"name\": \"a\"}}]"), 0.5, "wrong-parameters"),
        ],
    );
}

#[test]
fn where_no_call_is_wanted_anything_but_a_call_earns_everything() {
    for truth in [
        json!({"behavior": "refuse"}),
        json!({"behavior": "clarify", "missing": ["city"]}),
        json!("The answer is 4."),
    ] {
        check(
            truth,
            &[
                ("", 1.0, "not-called"),
                ("Certainly!", 1.0, "not-called"),
                ("<tool_call>{broken", 1.0, "not-called"),
                (r#"{"name": "a"}"#, 0.0, "needless-call"),
            ],
        );
    }
}
