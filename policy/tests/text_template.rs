//! Chat templates against what `transformers` renders and tokenises, byte for byte and id for id.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use octet_policy::template::{COMPACT_TEMPLATE, ChatTemplate, Moment, TemplateError};
use octet_policy::tokenizer::{SpecialTokens, Tokenizer};
use serde_json::{Map, Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A model directory with `tokenizer_config.json` as given.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    dir
}

fn hello() -> Vec<Value> {
    vec![json!({"role": "user", "content": "hello"})]
}

#[test]
fn renderings_and_ids_equal_those_of_transformers() {
    let chat = fixtures().join("chat");
    let model = fixtures().join("models/qwen2-tied");
    let tokenizer = Tokenizer::from_dir(&model).unwrap();
    let conversations = read(&chat.join("conversations.json"));
    let expected = read(&chat.join("expected.json"));
    let mut compared = 0;
    for case in expected.as_array().unwrap() {
        let name = case["template"].as_str().unwrap();
        let source = match name {
            "compact.jinja" => COMPACT_TEMPLATE.to_owned(),
            _ => std::fs::read_to_string(chat.join(name)).unwrap(),
        };
        let config = std::fs::read_to_string(model.join("tokenizer_config.json")).unwrap();
        let dir =
            directory(&[("chat_template.jinja", &source), ("tokenizer_config.json", &config)]);
        let template = ChatTemplate::from_dir(dir.path()).unwrap();
        let conversation = conversations
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["name"] == case["conversation"])
            .unwrap();
        let rendered = template.render(
            conversation["messages"].as_array().unwrap(),
            conversation.get("tools").map(|tools| tools.as_array().unwrap().as_slice()),
            case["add_generation_prompt"].as_bool().unwrap(),
            case["extra"].as_object().unwrap(),
        );
        let label = format!("{name} on {}", conversation["name"]);
        if let Some(message) = case.get("refused") {
            match rendered {
                Err(TemplateError::Refused { message: found, line, .. }) => {
                    assert_eq!(found, message.as_str().unwrap(), "{label}");
                    assert!(line > 1, "{label}: line {line}");
                }
                other => panic!("{label}: expected a refusal, found {other:?}"),
            }
            continue;
        }
        let text = rendered.unwrap();
        assert_eq!(text, case["text"].as_str().unwrap(), "{label}");
        let ids = tokenizer.encode(&text).unwrap();
        assert_eq!(json!(ids), case["ids"], "{label}");
        let normal = tokenizer.decode(&ids, SpecialTokens::Keep).unwrap();
        assert_eq!(tokenizer.encode(&normal).unwrap(), ids, "{label}");
        compared += 1;
    }
    assert!(compared >= 46, "only {compared} renderings were compared");
}

#[test]
fn compact_prompt_is_a_prefix_of_the_whole_conversation() {
    // Supervised fine-tuning masks the prompt by its length: it must be a true prefix.
    let template = ChatTemplate::compact().unwrap();
    let conversations = read(&fixtures().join("chat/conversations.json"));
    let mut checked = 0;
    for conversation in conversations.as_array().unwrap() {
        let messages = conversation["messages"].as_array().unwrap();
        let tools = conversation.get("tools").map(|tools| tools.as_array().unwrap().as_slice());
        for (at, message) in messages.iter().enumerate() {
            if message["role"] != "assistant" {
                continue;
            }
            let prompt = template.render(&messages[..at], tools, true, &Map::new()).unwrap();
            let whole = template.render(&messages[..=at], tools, false, &Map::new()).unwrap();
            let completion = whole.strip_prefix(&prompt).unwrap();
            assert!(completion.ends_with("<|im_end|>\n"), "{completion}");
            checked += 1;
        }
    }
    assert!(checked >= 4);
}

#[test]
fn compact_template_reads_as_documented() {
    let template = ChatTemplate::compact().unwrap();
    let tools = [json!({"type": "function", "function": {"name": "f", "parameters": {}}})];
    let messages = [
        json!({"role": "system", "content": "Be brief."}),
        json!({"role": "user", "content": [{"type": "text", "text": "go"}]}),
        json!({"role": "assistant", "content": null, "tool_calls": [
            {"function": {"name": "f", "arguments": {"a": 1}}},
            {"name": "f", "arguments": "{\"a\":2}"},
        ]}),
    ];
    let text = template.render(&messages, Some(&tools), true, &Map::new()).unwrap();
    assert_eq!(
        text,
        "<|im_start|>system\nBe brief.\n# Tools\n{\"name\": \"f\", \"parameters\": {}}<|im_end|>\n\
         <|im_start|>user\ngo<|im_end|>\n\
         <|im_start|>assistant\n<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>\n\
         <tool_call>{\"name\": \"f\", \"arguments\": {\"a\":2}}</tool_call><|im_end|>\n\
         <|im_start|>assistant\n"
    );
    let image = [json!({"role": "user", "content": [{"type": "image"}]})];
    let error = template.render(&image, None, true, &Map::new()).unwrap_err();
    assert!(matches!(error, TemplateError::Refused { .. }), "{error}");
}

#[test]
fn sources_are_found_in_the_order_of_transformers() {
    let named = r#"{"chat_template": [{"name": "default", "template": "D"},
                                      {"name": "tool_use", "template": "T"}]}"#;
    let tools = [json!({"name": "f"})];
    let render = |files: &[(&str, &str)], tools: Option<&[Value]>| {
        let template = ChatTemplate::from_dir(directory(files).path()).unwrap();
        template.render(&hello(), tools, true, &Map::new()).unwrap()
    };
    let config =
        ("tokenizer_config.json", r#"{"chat_template": "C", "eos_token": {"content": "E"}}"#);
    let json = ("chat_template.json", r#"{"chat_template": "J"}"#);
    let jinja = ("chat_template.jinja", "X{{ eos_token }}");
    assert_eq!(render(&[config], None), "C");
    assert_eq!(render(&[config, json], None), "J");
    assert_eq!(render(&[config, json, jinja], None), "XE");
    assert_eq!(render(&[("tokenizer_config.json", named)], None), "D");
    assert_eq!(render(&[("tokenizer_config.json", named)], Some(&tools)), "T");
    let additional = ("additional_chat_templates/tool_use.jinja", "U");
    assert_eq!(render(&[jinja, additional], Some(&tools)), "U");
    assert_eq!(render(&[jinja, additional], None), "X");
}

#[test]
fn errors_name_the_file_and_the_line() {
    let fails = |files: &[(&str, &str)], parts: &[&str]| {
        let error = ChatTemplate::from_dir(directory(files).path()).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "`{error}` lacks `{part}`");
        }
    };
    fails(&[], &["chat_template.jinja", "tokenizer_config.json"]);
    fails(&[("tokenizer_config.json", "{")], &["tokenizer_config.json", "JSON", "line 1"]);
    fails(&[("tokenizer_config.json", r#"{"chat_template": 7}"#)], &["tokenizer_config.json", "7"]);
    fails(&[("chat_template.json", "{}")], &["chat_template.json", "no such key"]);
    fails(&[("chat_template.jinja", "a\n{% if %}")], &["chat_template.jinja", "line 2"]);

    let path = Path::new("t.jinja");
    let template = ChatTemplate::from_source("a\nb\n{{ messages[0].x.y }}", path).unwrap();
    let error = template.render(&hello(), None, true, &Map::new()).unwrap_err().to_string();
    assert!(error.contains("t.jinja, template line 3"), "{error}");
    let template = ChatTemplate::from_source("\n{{ raise_exception('no!') }}", path).unwrap();
    let error = template.render(&hello(), None, true, &Map::new()).unwrap_err();
    assert!(matches!(&error, TemplateError::Refused { line: 2, message, .. } if message == "no!"));
    let template = ChatTemplate::from_source("{{ nothing | tojson }}", path).unwrap();
    let error = template.render(&hello(), None, true, &Map::new()).unwrap_err().to_string();
    assert!(error.contains("tojson"), "{error}");
}

#[test]
fn the_date_is_the_callers() {
    let source = "{{ strftime_now('%d %b %Y') }}";
    let mut template = ChatTemplate::from_source(source, Path::new("t.jinja")).unwrap();
    let render = |template: &ChatTemplate| template.render(&[], None, true, &Map::new()).unwrap();
    assert_eq!(render(&template), "26 Jul 2024");
    template.set_now(Moment { seconds: 0 });
    assert_eq!(render(&template), "01 Jan 1970");
}

#[test]
fn a_template_cannot_recurse_or_loop_for_ever() {
    let source = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    let template = ChatTemplate::from_source(source, Path::new("t.jinja")).unwrap();
    assert!(template.render(&[], None, true, &Map::new()).is_err());
}
