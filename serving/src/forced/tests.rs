#![allow(clippy::unwrap_used)]

use super::*;
use crate::loaded::tests::bundled;
use crate::request::Limits;

fn request(choice: Value, names: &[&str]) -> ChatRequest {
    let tool =
        |name: &&str| json!({"type": "function", "function": {"name": name, "parameters": {}}});
    let body = json!({
        "messages": [{"role": "user", "content": "What time is it?"}],
        "tools": names.iter().map(tool).collect::<Vec<_>>(),
        "tool_choice": choice,
    });
    let limits = Limits { completions: 1, max_tokens: 64 };
    ChatRequest::read(body.to_string().as_bytes(), limits).unwrap()
}

#[test]
fn a_named_call_begins_as_the_template_writes_it() {
    let named = json!({"type": "function", "function": {"name": "get \"time\""}});
    let prompt = bundled().prompt(&request(named, &["a", "get \"time\""])).unwrap();
    assert_eq!(prompt.forced, "<tool_call>\n{\"name\": \"get \\\"time\\\"\", \"arguments\":");
    assert!(prompt.guidance.is_none());
    // One tool that must be called is as good as named.
    let only = bundled().prompt(&request(json!("required"), &["now"])).unwrap();
    assert_eq!(only.forced, "<tool_call>\n{\"name\": \"now\", \"arguments\":");
}

#[test]
fn a_required_call_may_be_any_tools_and_no_other() {
    let loaded = bundled();
    let names = ["get_time", "get_timer", "weather"];
    let prompt = loaded.prompt(&request(json!("required"), &names)).unwrap();
    assert_eq!(prompt.forced, "<tool_call>\n{\"name\": \"");
    let guidance = prompt.guidance.unwrap();
    let texts = loaded.texts();
    let allowed = |written: &str| {
        let ids = loaded.tokenizer().encode(written).unwrap();
        let allowed = guidance.allowed(&ids)?;
        Some(allowed.iter().map(|id| texts[*id as usize].clone()).collect::<Vec<_>>())
    };
    let first = allowed("").unwrap();
    assert!(first.iter().any(|text| text == "g") && first.iter().any(|text| text == "w"));
    assert!(
        first.iter().all(|text| names.iter().any(|name| name.starts_with(text.as_str()))),
        "{first:?}"
    );
    let next = allowed("get_time").unwrap();
    assert!(
        next.iter().any(|text| text.starts_with('"')) && next.iter().any(|text| text == "r"),
        "{next:?}"
    );
    assert!(next.iter().all(|text| text.starts_with('"') || text.starts_with('r')), "{next:?}");
    assert_eq!(allowed("weather\", "), None, "the name is written, the rest is the model's");
}

#[test]
fn nothing_is_forced_where_the_model_may_choose() {
    for choice in ["auto", "none"] {
        let prompt = bundled().prompt(&request(json!(choice), &["a", "b"])).unwrap();
        assert!(prompt.forced.is_empty() && prompt.guidance.is_none());
    }
    // With none, the tools are not shown.
    let (auto, none) = (request(json!("auto"), &["a"]), request(json!("none"), &["a"]));
    let length = |request| bundled().prompt(&request).unwrap().tokens.len();
    assert!(length(auto) > length(none));
}

#[test]
fn a_template_that_writes_no_calls_gets_the_usual_form() {
    assert_eq!(before_arguments("", "now"), "<tool_call>\n{\"name\": \"now\", \"arguments\":");
    assert_eq!(before_name("no call here"), "<tool_call>\n{\"name\": \"");
    let llama = format!("{{\"name\": \"now\", \"parameters\": {{\"{ARGUMENT}\": 1}}}}<|eot_id|>");
    assert_eq!(before_arguments(&llama, "now"), "{\"name\": \"now\", \"parameters\":");
}
