#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use octet_dataset::{Spec, Split, generate, reference_answer};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::score;

fn example(ground_truth: Value) -> Example {
    Example::from_value(json!({
        "prompt": [{"role": "user", "content": "Do it."}],
        "reward_model": {"ground_truth": ground_truth},
    }))
    .unwrap()
}

fn check(ground_truth: Value, cases: &[(&str, f64, &str)]) {
    let example = example(ground_truth);
    for (answer, reward, label) in cases {
        let verdict = score(&ToolCall, &example, answer).unwrap();
        let found = (verdict.reward, verdict.label.as_ref());
        assert_eq!(found, (*reward, *label), "{answer}: {}", verdict.detail);
        assert!(labels::ALL.contains(label), "{label}");
        assert!(!verdict.detail.is_empty() && !verdict.detail.contains('\n'), "{answer}");
    }
}

#[test]
fn the_tiers_of_a_call() {
    check(
        json!({"tool_call": {"name": "weather", "parameters": {"city": "Paris", "days": 3}}}),
        &[
            (
                r#"<tool_call>{"name": "weather", "arguments": {"city": "Paris", "days": 3}}</tool_call>"#,
                1.0,
                "right-call",
            ),
            (
                r#"{"name": "weather", "parameters": {"days": 3.0, "city": " Paris "}}"#,
                1.0,
                "right-call",
            ),
            (
                r#"Sure! {"name": "weather", "parameters": {"days": 3, "city": "Paris"}} Ok?"#,
                1.0,
                "right-call",
            ),
            (r#"{"name": "weather", "arguments": {"city": "Paris"}}"#, 0.5, "missing-parameters"),
            (r#"{"name": "weather"}"#, 0.5, "missing-parameters"),
            (
                r#"{"name": "weather", "arguments": {"city": "Rome", "days": 3}}"#,
                0.5,
                "wrong-parameters",
            ),
            (
                r#"{"name": "weather", "arguments": {"city": "Paris", "days": "3"}}"#,
                0.5,
                "wrong-parameters",
            ),
            (
                r#"{"name": "weather", "arguments": {"city": "Paris", "days": 3, "unit": "C"}}"#,
                0.5,
                "wrong-parameters",
            ),
            (
                r#"{"name": "forecast", "arguments": {"city": "Paris", "days": 3}}"#,
                0.0,
                "wrong-tool",
            ),
            (
                r#"{"name": "Weather", "arguments": {"city": "Paris", "days": 3}}"#,
                0.0,
                "wrong-tool",
            ),
            (
                r#"[{"name": "weather", "arguments": {"city": "Paris", "days": 3}}, {"name": "log"}]"#,
                0.0,
                "needless-call",
            ),
            (
                r#"[{"name": "weather", "arguments": {"city": "Paris", "days": 3}},
             {"name": "weather", "arguments": {"city": "Paris", "days": 3}}]"#,
                0.0,
                "needless-call",
            ),
            (
                r#"<tool_call>{"name": "weather", "arguments": {"city": "Paris", "days": 3}}</tool_call><tool_call>{</tool_call>"#,
                0.0,
                "malformed-call",
            ),
            (
                r#"<tool_call>{"name": "weather", "arguments": {"city": "Paris", "days": </tool_call>"#,
                0.0,
                "malformed-call",
            ),
            ("", 0.0, "no-call"),
            ("Which city?", 0.0, "no-call"),
            ("I can't help with that.", 0.0, "needless-refusal"),
        ],
    );
}

#[test]
fn the_tiers_of_several_calls() {
    check(
        json!([{"name": "a", "arguments": {"x": 1}}, {"name": "b", "arguments": {}}]),
        &[
            (r#"[{"name": "b"}, {"name": "a", "arguments": {"x": 1}}]"#, 1.0, "right-call"),
            (r#"[{"name": "b"}, {"name": "a", "arguments": {}}]"#, 0.5, "missing-parameters"),
            (r#"[{"name": "b"}, {"name": "a", "arguments": {"x": 2}}]"#, 0.5, "wrong-parameters"),
            (r#"[{"name": "a", "arguments": {"x": 1}}]"#, 0.0, "too-few-calls"),
            (r#"[{"name": "a", "arguments": {"x": 1}}, {"name": "c"}]"#, 0.0, "wrong-tool"),
            (
                r#"[{"name": "a", "arguments": {"x": 1}}, {"name": "b"}, {"name": "b"}]"#,
                0.0,
                "needless-call",
            ),
        ],
    );
}

#[test]
fn the_tiers_of_a_question() {
    check(
        json!({"behavior": "clarify", "missing": ["departure_date", "city"]}),
        &[
            ("Which city, and what departure date?", 1.0, "named-question"),
            ("Which city?", 0.5, "vague-question"),
            ("Could you tell me more?", 0.5, "vague-question"),
            ("I will use the city and the departure date you gave.", 0.0, "no-question"),
            ("", 0.0, "no-question"),
            ("I can't help with that.", 0.0, "needless-refusal"),
            (r#"{"name": "f"} Which city, and what departure date?"#, 0.0, "needless-call"),
            ("Which city, and what departure date? <tool_call>{", 0.0, "malformed-call"),
        ],
    );
}

#[test]
fn the_tiers_of_a_refusal() {
    check(
        json!({"behavior": "refuse"}),
        &[
            ("I can't help with that.", 1.0, "refused"),
            ("Sure!", 0.0, "not-refused"),
            ("Which city?", 0.0, "not-refused"),
            ("", 0.0, "not-refused"),
            (r#"I can't help with that. {"name": "f"}"#, 0.0, "needless-call"),
        ],
    );
}

#[test]
fn the_tiers_of_a_text() {
    check(
        json!("It is  4."),
        &[
            ("It is 4.\n", 1.0, "right-text"),
            ("it is 4.", 0.0, "wrong-text"),
            ("", 0.0, "wrong-text"),
            (r#"{"name": "f"} It is 4."#, 0.0, "needless-call"),
        ],
    );
}

#[test]
fn the_papers_own_row() {
    let row = r#"{"prompt": [{"role": "system", "content": "You are an intelligent assistant..."},
        {"role": "user", "content": "get_weather_forecast for San Francisco."}],
        "reward_model": {"ground_truth": {"tool_call": {"name": "get_weather_forecast",
        "parameters": {"location": "San Francisco"}}}}}"#;
    let example = Example::from_json(row).unwrap();
    let answer = r#"{"tool_call": {"name": "get_weather_forecast", "parameters": {"location": "San Francisco"}}}"#;
    assert_eq!(score(&ToolCall, &example, answer).unwrap().reward, 1.0);
}

#[test]
fn the_reference_answers_of_generated_rows_earn_everything_and_silence_nothing() {
    for (split, seed) in [(Split::Train, 7), (Split::HeldOut, 8)] {
        for (at, example) in generate(&Spec { seed, rows: 600, split }).iter().enumerate() {
            for draw in 0..4 {
                let answer = reference_answer(example, draw);
                let verdict = score(&ToolCall, example, &answer).unwrap();
                let truth = &example.ground_truth;
                assert_eq!(verdict.reward, 1.0, "row {at}: {answer} for {truth:?}: {verdict:?}");
            }
            assert_eq!(score(&ToolCall, example, "").unwrap().reward, 0.0);
        }
    }
}

fn truths() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"behavior": "refuse"})),
        Just(json!({"behavior": "clarify", "missing": ["city"]})),
        Just(json!([{"name": "f", "arguments": {"x": [1, {"y": "z"}]}}])),
        Just(json!("text")),
    ]
}

#[test]
fn a_megabyte_of_anything_is_scored_soon() {
    let truths = [
        json!({"behavior": "refuse"}),
        json!({"behavior": "clarify", "missing": ["departure_date", "x"]}),
        json!([{"name": "f", "arguments": {"x": 1}}]),
        json!("text"),
    ];
    for unit in [
        "a.\n",
        "I can't ",
        "city? ",
        "e\u{301}",
        "İ",
        "_a",
        "<tool_call>[",
        "{\"name\":\"f\"}",
        " ",
    ] {
        let answer = unit.repeat(1_000_000 / unit.len());
        for truth in &truths {
            let (example, start) = (example(truth.clone()), Instant::now());
            assert_eq!(score(&ToolCall, &example, &answer).unwrap().reward % 0.5, 0.0);
            assert!(start.elapsed() < Duration::from_secs(2), "{unit}: {:?}", start.elapsed());
        }
    }
}

proptest! {
    #[test]
    fn every_answer_has_a_reward_of_the_tiers(
        truth in truths(),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        text in "\\PC{0,60}",
    ) {
        let example = example(truth);
        for answer in [String::from_utf8_lossy(&bytes).into_owned(), text] {
            let verdict = score(&ToolCall, &example, &answer).unwrap();
            prop_assert!([0.0, 0.5, 1.0].contains(&verdict.reward));
            prop_assert!(labels::ALL.contains(&verdict.label.as_ref()));
            prop_assert!(verdict.detail.len() < 2000);
        }
    }
}
