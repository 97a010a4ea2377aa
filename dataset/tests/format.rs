//! The row format: every documented form loads, and a fault says where and what.
#![allow(clippy::unwrap_used)]

use std::io::Write;

use octet_dataset::{
    Behaviour, Call, Example, FAULTS_KEPT, Faults, GroundTruth, Role, Statistics, load, write_jsonl,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const PAPER: &str = r#"{"prompt": [{"role": "system", "content": "You are an intelligent assistant..."}, {"role": "user", "content": "get_weather_forecast for San Francisco."}], "reward_model": {"ground_truth": {"tool_call": {"name": "get_weather_forecast", "parameters": {"location": "San Francisco"}}}}}"#;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn faults(text: &str) -> Faults {
    load(file(text).path()).unwrap_err()
}

fn truth(value: Value) -> Result<GroundTruth, String> {
    let row = json!({"prompt": [{"role": "user", "content": "x"}], "reward_model": {"ground_truth": value}});
    Example::from_value(row).map(|row| row.ground_truth).map_err(|faults| faults.to_string())
}

fn calls(calls: &[(&str, Value)]) -> GroundTruth {
    let call = |(name, arguments): &(&str, Value)| Call {
        name: (*name).to_owned(),
        arguments: arguments.as_object().unwrap().clone(),
    };
    GroundTruth::Calls(calls.iter().map(call).collect())
}

#[test]
fn the_papers_row_loads() {
    let row = Example::from_json(PAPER).unwrap();
    assert_eq!(
        row.ground_truth,
        calls(&[("get_weather_forecast", json!({"location": "San Francisco"}))])
    );
    assert_eq!(row.prompt[0].role, Role::System);
    assert_eq!(row.request(), "get_weather_forecast for San Francisco.");
    assert_eq!(row.behaviour(), Behaviour::Execute);
    assert_eq!(load(file(PAPER).path()).unwrap(), [row]);
}

#[test]
fn the_papers_row_as_printed_is_told_its_missing_brace() {
    let printed = PAPER.strip_suffix('}').unwrap();
    let faults = faults(&format!("{PAPER}\n{printed}\n"));
    assert_eq!(faults.count, 1);
    assert_eq!(faults.faults[0].line, 2);
    assert_eq!(
        faults.faults[0].fault.to_string(),
        "row: expected one JSON object on one line, found the end of the line with the brace of \
         column 1 still open: } is missing"
    );
}

#[test]
fn all_forms_of_a_call_are_one() {
    let one = calls(&[("f", json!({"x": 1}))]);
    for form in [
        json!({"tool_call": {"name": "f", "parameters": {"x": 1}}}),
        json!({"tool_call": {"name": "f", "arguments": {"x": 1}}}),
        json!({"tool_calls": [{"name": "f", "arguments": {"x": 1}}]}),
        json!({"tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]}),
        json!([{"name": "f", "arguments": {"x": 1}}]),
        json!({"name": "f", "arguments": {"x": 1}}),
    ] {
        assert_eq!(truth(form.clone()), Ok(one.clone()), "{form}");
        assert_eq!(truth(Value::String(form.to_string())), Ok(one.clone()), "as text: {form}");
        assert_eq!(truth(one.to_value()), Ok(one.clone()));
    }
    let two = calls(&[("f", json!({"x": 1})), ("g", json!({}))]);
    assert_eq!(
        truth(json!([{"name": "f", "arguments": {"x": 1}}, {"name": "g"}])),
        Ok(two.clone())
    );
    assert_eq!(truth(two.to_value()), Ok(two));
}

#[test]
fn possible_calls_load() {
    let form = json!({"possible_calls": [
        {"name": "f", "parameters": {"x": [1, 2], "y": [{"k": ["a", ""]}, ""]}}, {"name": "g"}]});
    let loaded = truth(form.clone()).unwrap();
    assert_eq!(loaded.behaviour(), Behaviour::Execute);
    assert_eq!(truth(loaded.to_value()), Ok(loaded.clone()));
    assert_eq!(truth(form.to_string().into()), Ok(loaded.clone()));
    let GroundTruth::Possible(calls) = &loaded else { panic!("{loaded:?}") };
    assert_eq!(json!(calls[0].reference().arguments), json!({"x": 1, "y": {"k": "a"}}));
    for (broken, message) in [
        (json!([]), "possible_calls: expected at least one call, found an empty list"),
        (
            json!([{"name": "f", "parameters": {"x": 1}}]),
            "possible_calls[0].parameters.x: expected a list of accepted values, found the number 1",
        ),
        (
            json!([{"name": "f", "parameters": {"x": [{"k": 1}]}}]),
            "possible_calls[0].parameters.x[0].k: expected a list of accepted values, found the number 1",
        ),
        (
            json!([{"parameters": {}}]),
            "possible_calls[0].name: expected a tool's name, found nothing",
        ),
    ] {
        let fault = truth(json!({"possible_calls": broken})).unwrap_err();
        assert_eq!(fault, format!("reward_model.ground_truth.{message}"));
    }
}

#[test]
fn behaviours_and_texts_load() {
    let clarify = GroundTruth::Clarify { missing: vec!["city".into(), "date".into()] };
    let form = json!({"behavior": "clarify", "missing": ["city", "date"]});
    assert_eq!(truth(form.clone()), Ok(clarify.clone()));
    assert_eq!(truth(form.to_string().into()), Ok(clarify.clone()));
    assert_eq!(truth(clarify.to_value()), Ok(clarify));
    assert_eq!(truth(json!({"behavior": "refuse"})), Ok(GroundTruth::Refuse));
    for text in ["42", "a plain answer", "{x} is a set", "[1, 2]", "{\"answer\": 3}"] {
        assert_eq!(truth(text.into()), Ok(GroundTruth::Text(text.into())));
    }
}

#[test]
fn a_broken_ground_truth_says_what_was_expected_where() {
    for (value, message) in [
        (
            json!({"tool_call": {"parameters": {}}}),
            "reward_model.ground_truth.tool_call.name: expected a tool's name, found nothing",
        ),
        (
            json!({"tool_call": {"name": "f", "parameters": [1]}}),
            "reward_model.ground_truth.tool_call.parameters: expected an object of arguments, found the list [1]",
        ),
        (
            json!([{"name": "f"}, 3]),
            "reward_model.ground_truth[1]: expected an object with name and parameters, found the number 3",
        ),
        (
            json!({"tool_calls": []}),
            "reward_model.ground_truth.tool_calls: expected at least one call, found an empty list",
        ),
        (
            json!({"behavior": "clarify"}),
            "reward_model.ground_truth.missing: expected a list of at least one parameter name, found nothing",
        ),
        (
            json!({"behavior": "guess"}),
            "reward_model.ground_truth.behavior: expected \"clarify\" or \"refuse\", found the text \"guess\"",
        ),
    ] {
        assert_eq!(truth(value), Err(message.to_owned()));
    }
    let broken = truth("{\"tool_call\": {\"name\": \"f\"".into()).unwrap_err();
    assert!(broken.contains("a call as a whole JSON text"), "{broken}");
    assert!(truth(json!(null)).unwrap_err().contains("found null"));
    assert!(truth(json!({"calls": 1})).unwrap_err().contains("the keys [\"calls\"]"));
}

#[test]
fn a_row_keeps_its_json() {
    let text = r#"{"zeta":1,"prompt":[{"role":"user","content":"hi","weight":0}],"tools":[],"reward_model":{"style":"rule","ground_truth":"x"},"extra_info":{"b":1,"a":2}}"#;
    let row = Example::from_json(text).unwrap();
    assert_eq!(row.to_json(), text);
    assert_eq!(row.prompt[0].json()["weight"], 0);
}

#[test]
fn conversations_of_several_turns_load() {
    let row = json!({
        "prompt": [
            {"role": "user", "content": [{"type": "text", "text": "add 1 "}, {"type": "text", "text": "and 2"}]},
            {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "add", "arguments": "{}"}}]},
            {"role": "tool", "name": "add", "content": "3"},
            {"role": "assistant", "tool_calls": []},
        ],
        "reward_model": {"ground_truth": "3"},
    });
    let row = Example::from_value(row).unwrap();
    assert_eq!(row.request(), "add 1 and 2");
    assert_eq!(row.prompt[1].content, None);
    assert_eq!(row.prompt[2].role, Role::Tool);
    assert_eq!(row.prompt[2].json()["name"], "add");
}

#[test]
fn every_fault_of_a_file_is_told() {
    let tool = r#"{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"n":{"type":"integer"},"c":{"type":"string","enum":["a","b"]},"l":{"type":"array","items":{"type":"number"}}},"required":["n"]}}}"#;
    let row = |truth: &str| {
        format!(
            r#"{{"prompt":[{{"role":"user","content":"x"}}],"tools":[{tool}],"reward_model":{{"ground_truth":{truth}}}}}"#
        )
    };
    let text = [
        row(r#"{"tool_call":{"name":"g","parameters":{}}}"#),
        row(r#"{"tool_call":{"name":"f","parameters":{"c":"z","l":[1,"2"],"m":1}}}"#),
        row(r#"[{"name":"f","arguments":{"n":1.5}}]"#),
        row(r#"[{"name":"f","arguments":{"n":2.0,"c":"b","l":[]}}]"#),
        r#"{"prompt":[{"role":"robot","content":"x"},{"role":"user"}],"reward_model":7}"#
            .to_owned(),
        row("\"x\"").replace(&format!("[{tool}]"), &format!("[{tool},{tool},{{}}]")),
        "[1]".to_owned(),
        "{\"prompt\": nonsense}".to_owned(),
    ]
    .join("\r\n\r\n");
    let faults = faults(&text);
    let told: Vec<String> =
        faults.faults.iter().map(|fault| format!("{} {}", fault.line, fault.fault)).collect();
    let truth = "reward_model.ground_truth";
    assert_eq!(
        told,
        [
            format!("1 {truth}.tool_call.name: expected one of the tools offered [\"f\"], found \"g\""),
            format!("3 {truth}.tool_call.parameters.n: expected a value, the schema requires it, found nothing"),
            format!("3 {truth}.tool_call.parameters.c: expected one of [\"a\",\"b\"], found the text \"z\""),
            format!("3 {truth}.tool_call.parameters.l[1]: expected a value of type number, found the text \"2\""),
            format!("3 {truth}.tool_call.parameters.m: expected one of the tool's parameters [\"n\", \"c\", \"l\"], found the name \"m\""),
            format!("5 {truth}[0].arguments.n: expected a value of type integer, found the number 1.5"),
            "9 prompt[0].role: expected \"system\", \"user\", \"assistant\" or \"tool\", found the text \"robot\"".to_owned(),
            "9 prompt[1].content: expected a text, found nothing".to_owned(),
            "9 reward_model: expected an object with ground_truth, found the number 7".to_owned(),
            "11 tools[1].function.name: expected a name of its own for each tool, found \"f\" a second time".to_owned(),
            "11 tools[2]: expected {\"type\": \"function\", \"function\": {\"name\", \"description\", \"parameters\"}}, found the object {}".to_owned(),
            "13 row: expected an object with prompt and reward_model, found the list [1]".to_owned(),
            "15 row: expected one JSON object on one line, found JSON that does not parse: expected ident at line 1 column 13".to_owned(),
        ]
    );
    assert_eq!(faults.count, told.len());
    assert!(faults.to_string().contains(":15: row: expected"));
}

#[test]
fn bare_functions_are_tools() {
    let row = json!({
        "prompt": [{"role": "user", "content": "x"}],
        "tools": [{"name": "f", "parameters": {"type": "object", "properties": {}}}],
        "reward_model": {"ground_truth": {"tool_call": {"name": "f", "parameters": {"x": 1}}}},
    });
    let faults = faults(&row.to_string());
    assert_eq!(faults.faults[0].fault.field, "reward_model.ground_truth.tool_call.parameters.x");
}

#[test]
fn faults_are_bounded_and_counted() {
    let faults = faults(&"{}\n".repeat(500));
    assert_eq!(faults.faults.len(), FAULTS_KEPT);
    assert_eq!(faults.count, 1000);
    assert!(faults.to_string().ends_with("and 900 more faults"));
}

#[test]
fn files_that_hold_no_rows_are_refused() {
    for (text, found) in [
        ("", "an empty file"),
        (" \n\n", "an empty file"),
        ("[]", "an empty list"),
        ("[{}", "the end of the file"),
        ("[1,,2]", "none"),
        ("[{}] x", "x"),
    ] {
        assert_eq!(faults(text).faults[0].fault.found, found, "{text:?}");
    }
    let missing = load("/no/such/file.jsonl").unwrap_err();
    assert_eq!(missing.faults[0].fault.expected, "a file to read");
    let mut binary = tempfile::NamedTempFile::new().unwrap();
    binary.write_all(b"{}\n\xff").unwrap();
    let binary = load(binary.path()).unwrap_err();
    assert_eq!(
        (binary.faults[0].line, binary.faults[0].fault.found.as_str()),
        (2, "the byte 0xff")
    );
}

#[test]
fn an_array_of_rows_loads_with_its_lines() {
    let text =
        format!("\u{feff}[\n  {PAPER},\n  {}\n]\n", PAPER.replace("{\"role\"", "{\n\"role\""));
    assert_eq!(load(file(&text).path()).unwrap().len(), 2);
    let faults = faults(&format!("[\n{PAPER},\n\n{{\"prompt\": []}}]"));
    assert_eq!(faults.faults[0].line, 4);
    assert_eq!(faults.count, 2);
}

#[test]
fn what_is_written_loads_again() {
    let rows = vec![Example::from_json(PAPER).unwrap(); 3];
    let mut bytes = Vec::new();
    write_jsonl(&rows, &mut bytes).unwrap();
    assert_eq!(load(file(std::str::from_utf8(&bytes).unwrap()).path()).unwrap(), rows);
}

#[test]
fn statistics_count_what_is_there() {
    let statistics = Statistics::of(&[Example::from_json(PAPER).unwrap()]);
    assert_eq!(statistics.rows, 1);
    assert_eq!(statistics.calls, 1);
    assert_eq!(statistics.tools_offered.get(&0), Some(&1));
    let chars = "You are an intelligent assistant...".len() + 39;
    assert_eq!(statistics.prompt_chars, [chars; 3]);
    assert!(statistics.to_string().contains("execute 1 (100 %)"));
}

fn arbitrary_json() -> impl Strategy<Value = Value> {
    let keys = "prompt|reward_model|ground_truth|tool_call|tool_calls|name|parameters|arguments|behavior|missing|tools|function|role|content";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "clarify|refuse|user|\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((keys, inner), 0..5)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = Example::from_json(&text);
        let _ = load(file(&text).path());
        let _ = load(file(&format!("[{text}")).path());
    }

    #[test]
    fn no_row_panics(prompt in arbitrary_json(), tools in arbitrary_json(), truth in arbitrary_json()) {
        let row = json!({"prompt": prompt, "tools": tools, "reward_model": {"ground_truth": truth}});
        let _ = Example::from_value(row);
        let sound = json!({"prompt": [{"role": "user", "content": "x"}], "tools": [tools], "reward_model": {"ground_truth": truth}});
        if let Ok(row) = Example::from_value(sound) {
            let _ = octet_dataset::check(&row);
            let again = Example::from_json(&row.to_json()).unwrap();
            prop_assert_eq!(again.ground_truth, row.ground_truth);
        }
    }
}
