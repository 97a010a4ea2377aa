#![allow(clippy::unwrap_used)]

use octet_dataset::{Spec, Split, generate};

use super::*;
use crate::{AwsCompat, ToolCall};

fn row(truth: Value) -> Example {
    let tool = |name: &str, properties: Value, required: Value| {
        json!({"type": "function", "function": {"name": name, "parameters": {
            "type": "object", "properties": properties, "required": required}}})
    };
    Example::from_value(json!({
        "prompt": [{"role": "user", "content": "Do it."}],
        "tools": [
            tool("first", json!({"unit": {"type": "string", "enum": ["C", "F"]}, "days": {"type": "integer"}}),
                 json!(["unit"])),
            tool("second", json!({"departure_date": {"type": "string"}}), json!(["departure_date"])),
        ],
        "reward_model": {"ground_truth": truth},
    }))
    .unwrap()
}

/// Two rows where the first tool is right, one to ask, one to refuse.
fn rows() -> Vec<Example> {
    vec![
        row(json!({"tool_call": {"name": "first", "parameters": {"unit": "C"}}})),
        row(json!({"tool_call": {"name": "second", "parameters": {"departure_date": "x"}}})),
        row(json!({"behavior": "clarify", "missing": ["departure_date"]})),
        row(json!({"behavior": "refuse"})),
    ]
}

fn rewards(table: &TrivialTable) -> Vec<(f64, f64)> {
    table.rows.iter().map(|row| (row.mean_reward, row.accuracy)).collect()
}

#[test]
fn what_they_earn_by_hand() {
    let earned = rewards(&table(&rows(), &ToolCall));
    let asks = (0.5 / 4.0, 0.0);
    // never, first, first guessed, asks, asks for all, refuses
    assert_eq!(earned, [(0.0, 0.0), (0.125, 0.0), (0.25, 0.25), asks, (0.25, 0.25), (0.25, 0.25)]);
    let earned = rewards(&table(&rows(), &AwsCompat));
    let silent = (0.5, 0.5);
    assert_eq!(earned, [silent, (0.125, 0.0), (0.25, 0.25), silent, silent, silent]);
}

#[test]
fn silence_pays_on_the_recipes_mix_only_under_the_published_function() {
    let examples = generate(&Spec { seed: 3, rows: 1500, split: Split::Train });
    let (ours, aws) = (table(&examples, &ToolCall), table(&examples, &AwsCompat));
    assert_eq!(ours.rows[0].mean_reward, 0.0);
    assert!((aws.rows[0].mean_reward - 0.40).abs() < 0.02, "{aws}");
    let best = ours.rows.iter().map(|row| row.mean_reward).fold(0.0, f64::max);
    assert!(best < 0.30, "{ours}");
}

#[test]
fn the_table_prints_each_policy_and_each_behaviour() {
    let printed = table(&rows(), &ToolCall).to_string();
    assert_eq!(printed.lines().count(), 2 + TrivialPolicy::ALL.len(), "{printed}");
    for word in
        ["tool-call", "execute", "clarify", "refuse", "never calls", "always refuses", "100.0%"]
    {
        assert!(printed.contains(word), "{word} in\n{printed}");
    }
}

#[test]
fn no_rows_and_no_tools_are_no_trouble() {
    assert_eq!(table(&[], &ToolCall).rows[0].mean_reward, 0.0);
    for policy in TrivialPolicy::ALL {
        policy.answer(&[]);
        policy.answer(&[json!(null), json!({"name": 3})]);
    }
    assert_eq!(TrivialPolicy::FirstTool.answer(&[]), "");
}
