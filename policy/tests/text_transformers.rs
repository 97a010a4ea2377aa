//! What octet saves, loaded by `transformers` itself: weights, tokenizer and chat template.
//!
//! Needs a Python with torch and transformers, named by `OCTET_TEST_PYTHON` or called `python3`; without
//! one the test says that it was skipped.

#![allow(clippy::unwrap_used)]

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::process::Command;

use octet_policy::config::{Dtype, ModelConfig};
use octet_policy::files::{StagedDir, Weights, write_model};
use octet_policy::template::{COMPACT_TEMPLATE, ChatTemplate};
use octet_policy::tokenizer::{BpeOptions, Tokenizer, WORD_SPLIT, tokenizer_config, train_bpe};
use serde_json::{Map, Value, json};

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// A Python that can import transformers.
fn python() -> Option<String> {
    let python = std::env::var("OCTET_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let found = Command::new(&python).args(["-c", "import torch, transformers"]).output();
    match found {
        Ok(output) if output.status.success() => Some(python),
        _ => {
            eprintln!(
                "SKIPPED: `{python}` cannot import torch and transformers; \
                 set OCTET_TEST_PYTHON to one that can"
            );
            None
        }
    }
}

/// Writes the model with a freshly trained tokenizer and the compact template, as `sft` does for a
/// policy from nothing.
fn write(target: &Path, name: &str, dtype: Dtype, split: &str) {
    let source = tests().join("fixtures/models").join(name);
    let config = ModelConfig::from_dir(&source).unwrap();
    let weights = Weights::open(&source, &config).unwrap();
    let conversations = std::fs::read_to_string(tests().join("fixtures/chat/conversations.json"));
    let options = BpeOptions { split: split.into(), ..BpeOptions::bundled(config.vocab_size) };
    let tokenizer = train_bpe(conversations.unwrap().lines(), &options).unwrap();
    let tokens = tokenizer_config(COMPACT_TEMPLATE, "<|im_end|>", "<|endoftext|>", 128);
    let staged = StagedDir::create(target).unwrap();
    staged.write("tokenizer.json", &tokenizer).unwrap();
    staged.write("tokenizer_config.json", format!("{tokens:#}\n").as_bytes()).unwrap();
    write_model(&staged, &config, dtype, |spec| Cow::Owned(weights.f32(&spec.name).unwrap()))
        .unwrap();
    staged.commit().unwrap();
}

/// What octet renders and tokenises from the written directory.
fn texts(dir: &Path) -> Value {
    let template = ChatTemplate::from_dir(dir).unwrap();
    let tokenizer = Tokenizer::from_dir(dir).unwrap();
    tokenizer.check(&ModelConfig::from_dir(dir).unwrap()).unwrap();
    let path = tests().join("fixtures/chat/conversations.json");
    let conversations: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let case = |conversation: &Value| {
        let messages = conversation["messages"].as_array().unwrap();
        let tools = conversation.get("tools").and_then(Value::as_array).map(Vec::as_slice);
        let text = template.render(messages, tools, true, &Map::new()).unwrap();
        let ids = tokenizer.encode(&text).unwrap();
        json!({"messages": messages, "tools": tools, "add_generation_prompt": true,
               "text": text, "ids": ids})
    };
    conversations.as_array().unwrap().iter().map(case).collect()
}

#[test]
fn saved_directories_load_in_transformers_with_the_same_answers() {
    let Some(python) = python() else { return };
    let parent = tempfile::tempdir().unwrap();
    for (name, dtype, split, tolerance) in [
        ("qwen2-tied", Dtype::F32, BpeOptions::bundled(0).split, "1e-5"),
        ("qwen3-tied", Dtype::F32, BpeOptions::bundled(0).split, "1e-5"),
        ("llama3-untied-biased", Dtype::F32, WORD_SPLIT.into(), "1e-5"),
        // Rounded weights move logits whose standard deviation is about 3.
        ("qwen2-untied-sharded", Dtype::Bf16, WORD_SPLIT.into(), "0.3"),
    ] {
        let dir = parent.path().join(name);
        write(&dir, name, dtype, &split);
        let texts_file = parent.path().join("texts.json");
        std::fs::write(&texts_file, texts(&dir).to_string()).unwrap();
        let fixture = tests().join("fixtures/models").join(name);
        let output = Command::new(&python)
            .arg(tests().join("check_checkpoint.py"))
            .arg(&dir)
            .arg(fixture.join("logits.safetensors"))
            .arg(fixture.join("cases.json"))
            .arg(&texts_file)
            .args(["--tolerance", tolerance])
            .output()
            .unwrap();
        let answer = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {answer}\n{said}");
        let answer: Value = serde_json::from_str(answer.lines().last().unwrap()).unwrap();
        assert_eq!(answer["texts"], 5, "{name}");
        assert_eq!(answer["dtype"], format!("torch.{}", dtype.name()), "{name}");
    }
}
