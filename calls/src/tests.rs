#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{json::read_whole, *};

fn call(name: &str, arguments: Value) -> ParsedCall {
    let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
    ParsedCall { name: name.to_owned(), arguments }
}

fn paris() -> ParsedCall {
    call("weather", json!({"city": "Paris", "days": 3}))
}

/// The reason of the only rejection.
fn why(completion: &str) -> Reason {
    let parsed = parse(completion);
    assert_eq!(parsed.calls, [], "{completion}");
    assert_eq!(parsed.rejected.len(), 1, "{completion}: {parsed:?}");
    parsed.rejected[0].why.clone()
}

fn json_why(completion: &str) -> JsonFaultKind {
    match why(completion) {
        Reason::Json(fault) | Reason::Unclosed(fault) => fault.kind,
        other => panic!("{completion}: {other:?}"),
    }
}

#[test]
fn every_documented_form_gives_the_same_call() {
    let arguments = r#"{"city": "Paris", "days": 3}"#;
    let escaped = arguments.replace('"', "\\\"");
    let openai = format!(
        r#"{{"id": "c1", "type": "function", "function": {{"name": "weather", "arguments": "{escaped}"}}}}"#
    );
    let plain = format!(r#"{{"name": "weather", "arguments": {arguments}}}"#);
    let forms = [
        format!("<tool_call>\n{plain}\n</tool_call>"),
        format!("<tool_call>{plain}</tool_call>"),
        format!("<tool_call>\n{plain}"),
        format!("<tool_call>[{plain}]</tool_call>"),
        format!("<tool_call>{{\"thought\": \"hm\", {}</tool_call>", &plain[1..]),
        format!("<think>call {plain} now?</think>\n<tool_call>{plain}</tool_call>"),
        plain.clone(),
        format!("[{plain}]"),
        format!("Sure. {plain} Done."),
        format!("```json\n{plain}\n```"),
        format!("```\n[{plain}]\n```"),
        format!("```tool_call\n{plain}\n```"),
        format!("```xml\n<tool_call>{plain}</tool_call>\n```"),
        format!("Use [brackets] and {{braces}}: {plain}"),
        plain.replace("arguments", "parameters"),
        format!(r#"{{"name": "weather", "arguments": "{escaped}"}}"#),
        format!(r#"{{"tool_call": {{"name": "weather", "parameters": {arguments}}}}}"#),
        openai.clone(),
        format!(r#"{{"tool_calls": [{openai}]}}"#),
        format!(r#"{{"role": "assistant", "content": null, "tool_calls": [{openai}]}}"#),
        format!(r#"<tool_call>{{"tool_calls": [{openai}]}}</tool_call>"#),
    ];
    for form in forms {
        let parsed = parse(&form);
        assert_eq!(parsed.calls, [paris()], "{form}");
        assert_eq!(parsed.rejected, [], "{form}");
    }
}

#[test]
fn several_calls_keep_their_order_and_the_text_around_them() {
    let parsed = parse(
        "First this. <tool_call>{\"name\": \"a\", \"arguments\": {}}</tool_call>\n\
         <tool_call>[{\"name\": \"b\", \"arguments\": {}}, {\"name\": \"a\"}]</tool_call> Then that.",
    );
    let names: Vec<_> = parsed.calls.iter().map(|call| call.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "a"]);
    assert_eq!(parsed.text_outside, "First this. \n Then that.");
}

#[test]
fn an_end_tag_inside_a_string_does_not_end_a_block() {
    let wanted = call("say", json!({"text": "</tool_call> <tool_call>"}));
    let body = json!({"name": "say", "arguments": wanted.arguments});
    assert_eq!(parse(&format!("<tool_call>{body}</tool_call>")).calls, [wanted]);
}

#[test]
fn missing_arguments_are_none_at_all() {
    for body in [
        r#"{"name": "now"}"#,
        r#"{"name": "now", "arguments": {}}"#,
        r#"{"name": "now", "arguments": null}"#,
        r#"{"name": "now", "parameters": ""}"#,
        r#"{"name": "now", "arguments": "{}"}"#,
    ] {
        for text in [format!("<tool_call>{body}</tool_call>"), body.to_owned()] {
            assert_eq!(parse(&text).calls, [call("now", json!({}))], "{text}");
        }
    }
}

#[test]
fn what_is_rejected_says_why() {
    use JsonFaultKind as Kind;
    let tagged = |body: &str| format!("<tool_call>{body}</tool_call>");
    let with = |value: &str| tagged(&format!(r#"{{"name": "f", "arguments": {{"x": {value}}}}}"#));
    for text in [with("1e999"), with(&"9".repeat(400)), with("-1e999")] {
        assert!(matches!(json_why(&text), Kind::HugeNumber { .. }), "{text}");
    }
    for text in [with("NaN"), with("-Infinity"), with("Infinity"), with("True")] {
        assert!(matches!(json_why(&text), Kind::NotJson { .. }), "{text}");
    }
    for text in [with(r#""\ud800""#), with(r#""\udc00x""#), with(r#""\x41""#), with("\"a\nb\"")] {
        assert!(matches!(json_why(&text), Kind::BadString { .. }), "{text}");
    }
    for text in [with("01"), with("1."), with("--1"), with("1e")] {
        assert!(matches!(json_why(&text), Kind::BadNumber { .. }), "{text}");
    }
    assert!(matches!(json_why(&with(r#"{"a": 1, "\u0061": 2}"#)), Kind::DuplicateKey { .. }));
    assert!(matches!(
        json_why(&tagged(r#"{"name": "f", "name": "g"}"#)),
        Kind::DuplicateKey { key } if key == "name"
    ));
    assert_eq!(json_why(&with(&"[".repeat(1000))), Kind::TooDeep);
    assert!(matches!(json_why(&tagged("{'name': 'f'}")), Kind::Unexpected { found: '\'', .. }));
    assert!(matches!(json_why(&tagged(r#"{"name": "f",}"#)), Kind::Unexpected { found: '}', .. }));
    assert!(matches!(json_why(&tagged(r#"{"name": "f"} and"#)), Kind::Trailing { found: 'a' }));
    assert!(matches!(json_why(r#"<tool_call>{"name": "f", "argu"#), Kind::CutOff { .. }));
    assert!(matches!(why(r#"<tool_call>{"name": "f", "argu"#), Reason::Unclosed(_)));
    assert_eq!(why("<tool_call> \n</tool_call>"), Reason::Empty);
    assert_eq!(why("<tool_call>[]</tool_call>"), Reason::EmptyList);
    assert_eq!(why(r#"{"tool_calls": []}"#), Reason::EmptyList);
    assert_eq!(why(&tagged("3")), Reason::NotAnObject { found: "a number" });
    assert_eq!(
        why(&tagged(r#"{"arguments": {}}"#)),
        Reason::NoName { keys: r#"["arguments"]"#.to_owned() }
    );
    assert_eq!(why(&tagged(r#"{"name": 3}"#)), Reason::BadName { found: "a number" });
    assert_eq!(why(&tagged(r#"{"name": ""}"#)), Reason::BadName { found: "an empty string" });
    let both = r#"{"name": "f", "arguments": {}, "parameters": {}}"#;
    assert_eq!(why(&tagged(both)), Reason::BothArguments);
    let list = r#"{"name": "f", "arguments": [1]}"#;
    assert_eq!(why(list), Reason::BadArguments { key: "arguments", found: "a list" });
    let text = r#"{"name": "f", "parameters": "city=Paris"}"#;
    assert!(matches!(why(text), Reason::BadArgumentText { key: "parameters", .. }));
    assert_eq!(why(r#"{"name": "Bob", "age": 3}"#), Reason::UnknownKey { key: "age".to_owned() });
    assert!(matches!(json_why("{'name': 'f', 'arguments': {}}"), Kind::Unexpected { .. }));
    assert!(matches!(json_why(r#"Here: {"name": "f", "arguments": {"#), Kind::CutOff { .. }));
}

#[test]
fn a_message_says_where_what_was_expected_and_what_was_found() {
    let parsed = parse("Hi <tool_call>{\"name\": \"f\", \"arguments\": {\"x\": NaN}}</tool_call>");
    assert_eq!(
        parsed.rejected[0].to_string(),
        "<tool_call> block at bytes 3..64: expected a JSON value, found \"NaN\", which JSON does not \
         have at byte 33"
    );
}

#[test]
fn prose_and_other_code_are_text() {
    for text in [
        "Which city, e.g. [Paris] or {Rome}?",
        "The list [1, 2] and the object {\"a\": 1}.",
        "```python\nprint({\"name\": \"f\", \"arguments\": {}})\n```",
        "Use `x` and ``y``.",
        "I would use the tool_call syntax.",
        "</tool_call>",
        "",
    ] {
        let parsed = parse(text);
        assert!(parsed.is_text(), "{text}: {parsed:?}");
        assert_eq!(parsed.text_outside, text);
    }
}

#[test]
fn thinking_is_neither_searched_nor_kept() {
    let parsed = parse("\n<think>{\"name\": \"f\"} which?</think>\nHello");
    assert_eq!(parsed, Parsed { text_outside: "Hello".to_owned(), ..Parsed::default() });
    assert_eq!(parse("<think>for ever {\"name\": \"f\"}"), Parsed::default());
}

#[test]
fn a_broken_block_does_not_hide_the_next() {
    let parsed = parse(
        "<tool_call>{\"name\": \"a\", <tool_call>{\"name\": \"b\"}</tool_call>\n\
         {\"oops\n{\"name\": \"c\"}",
    );
    let names: Vec<_> = parsed.calls.iter().map(|call| call.name.as_str()).collect();
    assert_eq!(names, ["b", "c"]);
    assert_eq!(parsed.rejected.len(), 1, "{parsed:?}");
    assert!(matches!(parsed.rejected[0].why, Reason::Unclosed(_)), "{parsed:?}");
}

#[test]
fn bounds_hold_and_are_told() {
    let call = "<tool_call>{\"name\": \"a\"}</tool_call>";
    let parsed = parse(&call.repeat(MAX_CALLS));
    assert_eq!((parsed.calls.len(), parsed.rejected.len()), (MAX_CALLS, 0));
    let parsed = parse(&call.repeat(MAX_CALLS + 5));
    assert_eq!(parsed.calls.len(), MAX_CALLS);
    assert_eq!(parsed.rejected[0].why, Reason::TooMany { limit: MAX_CALLS });
    let long = " ".repeat(MAX_BYTES + 1);
    assert!(matches!(why(&long), Reason::TooLong { found, .. } if found == MAX_BYTES + 1));
    let list =
        format!("<tool_call>[{}{{\"name\": \"a\"}}]</tool_call>", "{\"name\": \"a\"},".repeat(99));
    assert_eq!(parse(&list).calls.len(), MAX_CALLS);
}

#[test]
fn a_megabyte_of_anything_takes_linear_time() {
    let block = "<tool_call>{\"name\": \"f\", \"arguments\": {";
    for unit in [
        "{",
        "[",
        "<tool_call>",
        "</tool_call>",
        "```",
        "`",
        "{\"",
        "[{\"name\":",
        "{\"a\":",
        "\"",
        "\\",
        "[[{\"name\": 1}",
        "```json\n{",
        "<tool_call></tool_call>",
        block,
        "<think>",
        "{\"name\": \"f\"}",
        "9",
        "é{",
        "{\"name\"\n",
        "<tool_call>{\"a\\\"",
    ] {
        let text = unit.repeat(1_000_000 / unit.len());
        for text in [format!("<tool_call>{text}"), format!("[{{\"name\": \"{text}"), text] {
            let start = Instant::now();
            let parsed = parse(&text);
            assert!(start.elapsed() < Duration::from_secs(2), "{unit}: {:?}", start.elapsed());
            assert!(parsed.calls.len() + parsed.rejected.len() <= MAX_CALLS + 1);
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // Eighths are exact in few digits: how serde_json rounds the others is not at stake here.
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        any::<String>().prop_map(Value::from),
        "[ \t\\\\\"<>/a-z_`{}\\[\\]]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_call() -> impl Strategy<Value = ParsedCall> {
    ("[a-zA-Z_]\\PC{0,20}", prop::collection::vec((any::<String>(), any_json()), 0..4)).prop_map(
        |(name, arguments)| ParsedCall { name, arguments: arguments.into_iter().collect() },
    )
}

/// A call in each form that does not lean on the text around it.
fn render(call: &ParsedCall, form: usize) -> String {
    let (name, arguments) = (&call.name, Value::Object(call.arguments.clone()));
    let text = arguments.to_string();
    let object = json!({"name": name, "arguments": arguments});
    match form {
        0 => format!("<tool_call>\n{object:#}\n</tool_call>"),
        1 => format!("<tool_call>{}</tool_call>", json!({"name": name, "parameters": arguments})),
        2 => format!("<tool_call>{}</tool_call>", json!([{"name": name, "arguments": text}])),
        3 => format!("<tool_call>{}", json!({"function": {"name": name, "arguments": text}})),
        4 => object.to_string(),
        5 => format!("```json\n{object:#}\n```"),
        6 => json!([object]).to_string(),
        _ => json!({"tool_calls": [
            {"id": "1", "type": "function", "function": {"name": name, "arguments": text}},
        ]})
        .to_string(),
    }
}

proptest! {
    #[test]
    fn any_call_in_any_form_parses_back(call in any_call(), form in 0..8_usize) {
        let text = render(&call, form);
        // Outside a block a tag ends the JSON, even in a string: documented with the forms.
        prop_assume!(form < 4 || !text.contains("<tool_call>"));
        let parsed = parse(&text);
        prop_assert_eq!(&parsed.rejected, &vec![]);
        prop_assert_eq!(parsed.calls, vec![call]);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(parse(&text).text_outside.len() <= text.len());
    }

    #[test]
    fn arbitrary_pieces_never_panic_and_keep_their_spans(pieces in prop::collection::vec(
        prop_oneof![
            Just("<tool_call>".to_owned()), Just("</tool_call>".to_owned()), Just("```".to_owned()),
            Just("```json\n".to_owned()), Just("{\"name\": \"f\", ".to_owned()),
            Just("\"arguments\": ".to_owned()), Just("{}".to_owned()), Just("}".to_owned()),
            Just("{".to_owned()), Just("[".to_owned()), Just("]".to_owned()), Just("\"".to_owned()),
            Just("\\u".to_owned()), Just("\\ud800".to_owned()), Just("1e999".to_owned()),
            Just("<think>".to_owned()), Just("</think>".to_owned()), any::<String>(),
        ], 0..40)) {
        let text = pieces.concat();
        let parsed = parse(&text);
        for rejection in &parsed.rejected {
            prop_assert!(text.get(rejection.span.clone()).is_some(), "{rejection:?}");
            prop_assert!(!rejection.to_string().is_empty());
        }
    }

    #[test]
    fn the_reader_agrees_with_serde_json(value in any_json(), pretty: bool) {
        let text = if pretty { format!("{value:#}") } else { value.to_string() };
        prop_assert_eq!(read_whole(&text), Ok(value));
    }

    #[test]
    fn what_the_reader_takes_serde_json_takes(
        text in "[\\[\\]{}\",:0-9eE.+\\-a-fnrtulsx\\\\ \n]{0,24}",
    ) {
        let ours = read_whole(&text).ok();
        let theirs = serde_json::from_str::<Value>(&text).ok();
        if ours.is_some() {
            prop_assert_eq!(&ours, &theirs);
        } else if let Some(theirs) = theirs {
            // Only a key given twice makes us stricter, and serde_json then keeps fewer keys.
            let twice = matches!(
                read_whole(&text).unwrap_err().kind,
                JsonFaultKind::DuplicateKey { .. }
            );
            prop_assert!(twice, "{text:?} is {theirs}");
        }
    }

    #[test]
    fn any_nesting_is_read_or_refused(depth in 0..400_usize, list: bool) {
        let (open, close) = if list { ("[", "]") } else { ("{\"a\":", "}") };
        let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        match read_whole(&text) {
            Ok(_) => prop_assert!(depth <= MAX_DEPTH),
            Err(fault) => prop_assert!(depth > MAX_DEPTH && fault.kind == JsonFaultKind::TooDeep),
        }
    }
}

#[test]
fn whole_numbers_of_64_bits_are_kept_exactly() {
    let text =
        r#"{"name": "f", "arguments": {"a": 18446744073709551615, "b": -9223372036854775808}}"#;
    let mut arguments = Map::new();
    arguments.insert("a".to_owned(), json!(u64::MAX));
    arguments.insert("b".to_owned(), json!(i64::MIN));
    assert_eq!(parse(text).calls[0].arguments, arguments);
}
