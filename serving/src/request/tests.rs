#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use serde_json::json;

const LIMITS: Limits = Limits { completions: 8, max_tokens: 512 };

fn read(body: &Value) -> Result<ChatRequest, Refusal> {
    ChatRequest::read(body.to_string().as_bytes(), LIMITS)
}

/// A request with this changed.
fn with(changes: Value) -> Result<ChatRequest, Refusal> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    body.as_object_mut().unwrap().extend(changes);
    read(&body)
}

fn complaint(changes: Value) -> String {
    with(changes.clone()).expect_err(&changes.to_string()).to_string()
}

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}})
}

#[test]
fn defaults_are_openais() {
    let request = with(json!({})).unwrap();
    let expected = ChatRequest {
        model: Some("m".into()),
        messages: vec![json!({"role": "user", "content": "Hi"})],
        tools: vec![],
        choice: ToolChoice::None,
        parallel: true,
        stream: false,
        include_usage: false,
        completions: 1,
        seed: None,
        shaping: Shaping::default(),
        max_tokens: None,
        stops: vec![],
        likeliest: None,
    };
    assert_eq!(request, expected);
}

#[test]
fn what_is_asked_for_is_read() {
    let request = with(json!({
        "stream": true, "stream_options": {"include_usage": true}, "n": 3, "seed": -1, "temperature": 0,
        "top_p": 0.5, "top_k": 4, "max_completion_tokens": 9, "stop": ["a", "b"], "logprobs": true,
        "top_logprobs": 5, "tools": [tool("x"), tool("y")], "tool_choice": "required",
        "parallel_tool_calls": false, "user": "somebody", "frequency_penalty": 0.0, "logit_bias": null,
        "response_format": {"type": "text"},
    }))
    .unwrap();
    assert!(request.stream && request.include_usage && !request.parallel);
    assert_eq!((request.completions, request.seed), (3, Some(u64::MAX)));
    assert_eq!(request.shaping, Shaping { temperature: 0.0, top_p: 0.5, top_k: 4 });
    assert_eq!((request.max_tokens, request.likeliest), (Some(9), Some(5)));
    assert_eq!(
        (request.stops, request.choice),
        (vec!["a".into(), "b".into()], ToolChoice::Required)
    );
    let named = json!({"type": "function", "function": {"name": "y"}});
    let request = with(json!({"tools": [tool("x"), tool("y")], "tool_choice": named})).unwrap();
    assert_eq!(request.choice, ToolChoice::Named("y".into()));
}

#[test]
fn a_conversation_comes_out_as_templates_read_it() {
    let request = with(json!({"messages": [
        {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
        {"role": "assistant", "content": null, "refusal": null, "audio": null, "function_call": null, "tool_calls":
            [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"b\": 1, \"a\": 2}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
    ]}))
    .unwrap();
    let call = json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"b": 1, "a": 2}}});
    let expected = [
        json!({"role": "system", "content": "Be brief."}),
        json!({"role": "assistant", "content": "", "tool_calls": [call]}),
        json!({"role": "tool", "content": "3", "tool_call_id": "c1"}),
    ];
    assert_eq!(request.messages, expected);
    let order = request.messages[1]["tool_calls"][0]["function"]["arguments"].to_string();
    assert_eq!(order, "{\"b\":1,\"a\":2}", "as it was written");
}

#[test]
fn what_means_nothing_is_refused_by_name() {
    let user = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    let call = |arguments: &str| json!({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}]});
    for (changes, expected) in [
        (
            json!({"messages": []}),
            "`messages`: expected a list of 1 to 4096 messages, found a list of 0",
        ),
        (
            json!({"messages": [{"role": "robot", "content": ""}]}),
            "`messages[0].role`: expected system, developer",
        ),
        (
            user(json!(7)),
            "`messages[0].content`: expected a string, or a list of text parts, found 7",
        ),
        (user(json!([{"type": "image_url"}])), "`messages[0].content[0]`"),
        (user(Value::Null), "found nothing"),
        (
            call("[1]"),
            "`messages[0].tool_calls[0].function.arguments`: expected a JSON object in a string",
        ),
        (json!({"temperature": 3}), "`temperature`: expected a number from 0 to 2, found 3"),
        (json!({"top_p": 0}), "`top_p`: expected a number above 0"),
        (json!({"n": 9}), "`n`: expected a whole number from 1 to 8, found 9"),
        (json!({"n": 1.5}), "found 1.5"),
        (json!({"max_tokens": 0}), "`max_tokens`: expected a whole number from 1 to 512, found 0"),
        (
            json!({"max_tokens": 4, "max_completion_tokens": 5}),
            "the same as max_completion_tokens (5)",
        ),
        (json!({"top_logprobs": 3}), "expected logprobs to be true beside it"),
        (json!({"stop": ""}), "`stop`"),
        (json!({"stream_options": {}}), "expected stream to be true beside it"),
        (json!({"tool_choice": "required"}), "expected tools to choose from, found no tools"),
        (
            json!({"tools": [tool("a"), tool("a")]}),
            "`tools[1].function.name`: expected each name once",
        ),
        (
            json!({"tools": [{"type": "retrieval"}]}),
            "`tools[0].type`: expected \"function\", found \"retrieval\"",
        ),
        (
            json!({"tools": [tool("a")], "tool_choice": {"type": "function", "function": {"name": "b"}}}),
            "expected the name of one of the tools (a), found \"b\"",
        ),
        (
            json!({"frequency_penalty": 0.5}),
            "`frequency_penalty`: expected 0 or nothing: it is not computed here",
        ),
        (json!({"response_format": {"type": "json_object"}}), "`response_format`"),
        (json!({"temprature": 1}), "there is no such parameter; did you mean `temperature`?"),
        (json!({"quux": 1}), "`quux`: there is no such parameter"),
    ] {
        let found = complaint(changes);
        assert!(found.contains(expected), "expected {expected:?} in {found:?}");
    }
    for body in ["", "[]", "nonsense", "{\"messages\": ", "\"x\"", "null"] {
        let refusal = ChatRequest::read(body.as_bytes(), LIMITS).unwrap_err();
        assert!(matches!(refusal, Refusal::Body { .. }), "{body:?}: {refusal}");
    }
    let deep = format!("{{\"messages\": {}", "[".repeat(1 << 20));
    assert!(matches!(ChatRequest::read(deep.as_bytes(), LIMITS), Err(Refusal::Body { .. })));
}

#[test]
fn strict_is_taken_and_not_shown() {
    let strict =
        json!({"tools": [{"type": "function", "function": {"name": "a", "strict": true, "x": 1}}]});
    let kept = json!({"type": "function", "function": {"name": "a", "x": 1}});
    assert_eq!(with(strict).unwrap().tools, [kept]);
}

/// Any JSON that is not too deep.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "user",
            "assistant",
            "tool",
            "function",
            "text",
            "auto",
            "",
            "x"
        ])
        .prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        let key = prop::sample::select(vec![
            "role",
            "content",
            "type",
            "text",
            "function",
            "name",
            "arguments",
            "parameters",
            "tool_calls",
            "id",
            "include_usage",
            "other",
        ]);
        let fields = prop::collection::vec((key, inner.clone()), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(Value::from),
            fields.prop_map(|f| f.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_anywhere_is_read_or_refused(
        key in prop::sample::select(KNOWN.iter().chain(&IGNORED).copied().collect::<Vec<_>>()),
        value in json_value(),
    ) {
        let mut body = json!({"messages": [{"role": "user", "content": "Hi"}], "tools": [tool("x")]});
        body[key] = value;
        match read(&body) {
            Ok(request) => {
                prop_assert!((1..=8).contains(&request.completions));
                prop_assert!((0.0..=2.0).contains(&request.shaping.temperature));
                prop_assert!(request.messages.iter().all(|m| m["content"].is_string()));
            }
            Err(refusal) => {
                prop_assert_eq!(refusal.status().as_u16(), 400);
                let error = &refusal.json()["error"];
                prop_assert!(error["param"].as_str().is_some_and(|p| p.starts_with(key)), "{}", error);
                prop_assert!(error["message"].as_str().unwrap().len() < 400, "{}", error);
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(ChatRequest::read(&bytes, LIMITS).is_err(), "there are no messages in it");
    }
}
