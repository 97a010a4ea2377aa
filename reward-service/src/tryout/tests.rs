#![allow(clippy::unwrap_used)]

use std::io::Write;

use serde_json::json;

use super::*;
use crate::ToolCall;

fn rows() -> Vec<Example> {
    let row = |truth: Value| {
        Example::from_value(json!({
            "prompt": [{"role": "user", "content": "Do it."}],
            "reward_model": {"ground_truth": truth},
        }))
        .unwrap()
    };
    vec![row(json!({"behavior": "refuse"})), row(json!([{"name": "f", "arguments": {}}]))]
}

fn answers(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn answer_by_row_and_one_for_all() {
    let both = answers(&["I can't do that.", "{\"name\": \"f\"}"]);
    let table = try_answers(&rows(), &both, &ToolCall).unwrap();
    assert_eq!(table.tally.overall.mean_reward(), 1.0);
    let table = try_answers(&rows(), &both[..1], &ToolCall).unwrap();
    let rewards: Vec<_> = table.tried.iter().map(|t| t.verdict.as_ref().unwrap().reward).collect();
    assert_eq!(rewards, [1.0, 0.0]);
    let printed = table.to_string();
    assert!(
        printed.contains("1 × needless-refusal") && printed.contains("1 × refused"),
        "{printed}"
    );
}

#[test]
fn another_number_of_answers_is_refused() {
    for texts in [&[][..], &["a", "b", "c"]] {
        let error = try_answers(&rows(), &answers(texts), &ToolCall).unwrap_err();
        assert!(error.to_string().starts_with("expected 2 answers"), "{error}");
    }
}

#[test]
fn answers_are_read_line_by_line() {
    let good = file("{\"completion\": \"a\", \"row\": 1}\n\n{\"completion\": \"b\"}\n");
    assert_eq!(read_answers(good.path()).unwrap(), ["a", "b"]);
}

#[test]
fn a_bad_line_is_named() {
    for (line, found) in [
        ("{\"completion\": 3}", "a number under \"completion\""),
        ("{\"answer\": \"a\"}", "an object without \"completion\""),
        ("[1]", "a list"),
        ("{\"completion\": ", "EOF while parsing"),
    ] {
        let bad = file(&format!("{{\"completion\": \"a\"}}\n{line}\n"));
        let error = read_answers(bad.path()).unwrap_err().to_string();
        assert!(error.contains(":2: expected") && error.contains(found), "{error}");
    }
    let error = read_answers(Path::new("/no/such/file")).unwrap_err().to_string();
    assert!(error.contains("/no/such/file"), "{error}");
}
