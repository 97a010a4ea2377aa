//! Studies of answers that were made by hand: what is counted, grouped and compared.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::evaluation::markdown::markdown;
use serde_json::json;

fn row(truth: serde_json::Value) -> Example {
    let tool = |name: &str| json!({"name": name, "parameters": {"properties": {"a": {"type": "integer"}}}});
    Example::from_value(json!({
        "prompt": [{"role": "user", "content": "x"}],
        "tools": [tool("f"), tool("g")],
        "reward_model": {"ground_truth": truth}}))
    .unwrap()
}

fn outcome(rows: &[Example], row: usize, completion: &str, reward: f64) -> Outcome {
    Outcome {
        row,
        behaviour: rows[row].behaviour(),
        completion: completion.to_owned(),
        reward,
        verdict: String::new(),
        detail: String::new(),
    }
}

fn setting(rows: usize, samples: usize) -> Setting {
    Setting {
        data: "rows.jsonl".into(),
        suite: None,
        function: "tool-call".into(),
        rows,
        samples,
        temperature: 1.0,
        seed: 1,
    }
}

const RIGHT: &str = "<tool_call>{\"name\": \"g\", \"arguments\": {\"a\": 1}}</tool_call>";
const WRONG: &str = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>";

#[test]
fn a_study_counts_what_was_wanted_and_done() {
    let rows = [
        row(json!({"tool_call": {"name": "g", "parameters": {"a": 1}}})),
        row(json!({"behavior": "refuse"})),
    ];
    let outcomes = vec![
        outcome(&rows, 0, RIGHT, 1.0),
        outcome(&rows, 0, WRONG, 0.0),
        outcome(&rows, 1, "Sorry, I can't help with that.", 1.0),
        outcome(&rows, 1, "Which city do you mean?", 0.0),
    ];
    let study = Study::new(setting(2, 2), &rows, &[10, 200], &[("m".into(), outcomes)]);
    let model = &study.models[0];
    assert_eq!(model.all.accuracy.unwrap().value, 0.5);
    assert_eq!(model.all.exact.unwrap().value, 0.5);
    assert_eq!(model.all.tool_names.unwrap().value, 0.5);
    // One argument right, two wanted, two given.
    assert_eq!(model.all.argument_f1.unwrap().value, 0.5);
    let pass: Vec<_> = model.pass_at.iter().map(|pass| (pass.k, pass.chance.value)).collect();
    assert_eq!(pass, [(1, 0.5), (2, 1.0)]);
    assert_eq!(
        model.confusion.wanted,
        [("execute", [2, 0, 0, 0, 0, 0]), ("refuse", [0, 1, 1, 0, 0, 0])]
    );
    let places: Vec<_> = model.places.iter().map(|p| (p.place, p.wanted, p.called)).collect();
    assert_eq!(places, [(1, 0, 1), (2, 2, 1)]);
    assert_eq!(model.argument_types.len(), 1);
    assert_eq!((model.argument_types[0].0.as_str(), model.argument_types[0].1), ("integer", 2));
    let text = markdown(&study);
    for part in ["50.0%", "pass@k", "| refuse | 0 | 1 | 1 |", "### Tools offered", "| 128-255 |"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(serde_json::to_value(&study).unwrap()["models"][0]["confusion"].is_object());
}

#[test]
fn models_are_compared_row_by_row() {
    let rows: Vec<Example> =
        (0..30).map(|_| row(json!({"tool_call": {"name": "g", "parameters": {"a": 1}}}))).collect();
    // The second is wrong on five rows and right on all others; the first only on the last ten.
    let model = |right: &dyn Fn(usize) -> bool| {
        let one = |at| if right(at) { (RIGHT, 1.0) } else { (WRONG, 0.0) };
        (0..30).map(|at| outcome(&rows, at, one(at).0, one(at).1)).collect::<Vec<_>>()
    };
    let outcomes = [
        ("first".to_owned(), model(&|at| at >= 20)),
        ("second".to_owned(), model(&|at| at >= 5)),
        ("third".to_owned(), model(&|at| at >= 20)),
    ];
    let study = Study::new(setting(30, 1), &rows, &[10; 30], &outcomes);
    let second = &study.comparisons[0];
    assert_eq!(second.only_right, Some([0, 15]));
    assert!((second.mcnemar.unwrap() - 2.0 / 32768.0).abs() < 1e-12);
    assert!(
        (second.p.unwrap() - 4.0 / 32768.0).abs() < 1e-12,
        "two comparisons, the least p first"
    );
    assert!((second.accuracy.unwrap().change.value - 0.5).abs() < 1e-12);
    let third = &study.comparisons[1];
    assert_eq!((third.only_right, third.p), (Some([0, 0]), Some(1.0)));
    let directory = tempfile::tempdir().unwrap();
    let plots = crate::evaluation::charts::write(directory.path(), &study).unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2 * plots);
    let svg = std::fs::read_to_string(directory.path().join("by_tools_offered.svg")).unwrap();
    assert!(svg.contains("second") && svg.contains("circle"), "{svg}");
}
