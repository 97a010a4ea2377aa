//! `octet export`: what is written, bit for bit, what its card says, and that transformers loads it.

#![allow(clippy::unwrap_used)]

mod common;

use common::{output, own, root, short, train};
use octet_policy::config::Dtype;
use octet_policy::files::TensorFile;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

fn export(arguments: &[&str]) -> String {
    let output = output(&[&["export"], arguments].concat());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "octet export {arguments:?}: {errors}");
    errors
}

fn refused(arguments: &[&str]) -> String {
    let output = output(&[&["export"], arguments].concat());
    assert!(!output.status.success(), "octet export {arguments:?} was not refused");
    String::from_utf8(output.stderr).unwrap()
}

fn json_of(directory: &Path, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(directory.join(name)).unwrap()).unwrap()
}

/// The front matter of a card: every line is a key and JSON.
fn front(card: &str) -> Value {
    let front = card.strip_prefix("---\n").unwrap().split_once("---\n").unwrap().0;
    let pairs = front.lines().map(|line| line.split_once(": ").unwrap());
    pairs
        .map(|(key, value)| (key.to_owned(), serde_json::from_str::<Value>(value).unwrap()))
        .collect()
}

/// IEEE 754's rounding to nearest, ties to even, by hand on the bits.
fn rounded(value: f32) -> u16 {
    let bits = value.to_bits();
    let (kept, cut) = (bits >> 16, bits & 0xffff);
    let up = cut > 0x8000 || (cut == 0x8000 && kept & 1 == 1);
    (kept + u32::from(up)) as u16
}

#[test]
fn bf16_is_the_nearest_and_f32_is_the_same() {
    let home = tempfile::tempdir().unwrap();
    let out = |name: &str| home.path().join(name);
    // The bundled policy is bf16; what a step made of it is not.
    let run = out("run");
    train(&short(&run, &["--set", "learner.learning_rate=1e-3"]), &run);
    let policy = run.join("checkpoints/step-000004");
    let original = TensorFile::open(&policy.join("model.safetensors")).unwrap();
    for (dtype, name) in [("bf16", "half"), ("f32", "whole")] {
        let to = out(name);
        export(&[policy.to_str().unwrap(), "--out", to.to_str().unwrap(), "--dtype", dtype]);
    }
    let (half, whole) = (out("half"), out("whole"));
    let (half, whole) = (
        TensorFile::open(&half.join("model.safetensors")).unwrap(),
        TensorFile::open(&whole.join("model.safetensors")).unwrap(),
    );
    let (mut elements, mut inexact) = (0, 0);
    for name in original.names() {
        assert_eq!(whole.raw(name).unwrap(), original.raw(name).unwrap(), "{name}");
        let (dtype, bytes) = half.raw(name).unwrap();
        assert_eq!(dtype, Dtype::Bf16);
        for (found, value) in bytes.as_chunks::<2>().0.iter().zip(original.f32(name).unwrap()) {
            assert_eq!(u16::from_le_bytes(*found), rounded(value), "{name}: {value}");
            elements += 1;
            inexact += u32::from(value.to_bits() & 0xffff != 0);
        }
    }
    assert!(elements > 1_000_000 && inexact > elements / 2, "{inexact} of {elements} are rounded");
}

#[test]
fn a_directory_is_laid_out_for_servers() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("given-away");
    export(&["assets/policy", "--out", out.to_str().unwrap(), "--dtype", "bf16"]);
    assert_eq!(json_of(&out, "config.json")["torch_dtype"], "bfloat16");
    // The token that ends a completion, which the tokenizer calls <|im_end|>.
    assert_eq!(
        json_of(&out, "generation_config.json"),
        json!({"eos_token_id": 2, "pad_token_id": 0})
    );
    let tokenizer = json_of(&out, "tokenizer_config.json");
    assert!(tokenizer["chat_template"].as_str().unwrap().contains("<tool_call>"));
    assert!(out.join("tokenizer.json").is_file() && out.join("chat_template.jinja").is_file());
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    let front = front(&card);
    assert_eq!(
        (&front["library_name"], &front["pipeline_tag"]),
        (&json!("transformers"), &json!("text-generation"))
    );
    assert!(card.contains("# given-away") && card.contains("no record of a training"), "{card}");
    assert!(front.get("model-index").is_none(), "nothing was evaluated");
    // It is a policy again, and it is not overwritten.
    let error = refused(&["assets/policy", "--out", out.to_str().unwrap()]);
    assert!(error.contains("exists already"), "{error}");
    let again = home.path().join("again");
    export(&[out.to_str().unwrap(), "--out", again.to_str().unwrap()]);
    let bytes = |at: &Path| std::fs::read(at.join("model.safetensors")).unwrap();
    assert!(bytes(&out) == bytes(&again), "without --dtype the type is kept");
    for (source, step, words) in [
        (
            "nowhere",
            None,
            "expected a run directory (run.json) or a policy (config.json), found neither",
        ),
        ("assets/policy", Some("3"), "--step is for a run directory"),
    ] {
        let more = step.map_or(vec![], |step| vec!["--step", step]);
        let error = refused(&[&[source, "--out", "x"], &more[..]].concat());
        assert!(error.contains(words), "{error}");
    }
    assert!(!root().join("x").exists());
}

#[test]
fn a_runs_card_says_what_the_run_wrote_down() {
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run");
    // With an evaluation, on few rows.
    let rows = std::fs::read_to_string(root().join("assets/data/held-out.jsonl")).unwrap();
    let few: String = rows.lines().take(12).map(|row| format!("{row}\n")).collect();
    let held_out = home.path().join("few.jsonl");
    std::fs::write(&held_out, few).unwrap();
    let held_out = format!("data.held_out={}", held_out.display());
    let more = [
        "--set",
        &held_out,
        "--set",
        "evaluation.enabled=true",
        "--set",
        "learner.keep_checkpoints=2",
    ];
    let summary = train(&short(&run, &more), &run);
    let out = home.path().join("out");
    export(&[run.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    let front = front(&card);
    assert_eq!(front["datasets"], json!(["train.jsonl"]));
    let metrics = &front["model-index"][0]["results"][0]["metrics"];
    for (at, key) in [(0, "accuracy"), (1, "reward")] {
        let (told, found) =
            (metrics[at]["value"].as_f64().unwrap(), summary["after"][key].as_f64().unwrap());
        assert!((told - found).abs() < 1e-6, "{key}: {told} where {found} was measured");
    }
    let data = blake3_of(&root().join("assets/data/train.jsonl"));
    let percent = format!("{:.1} %", 100.0 * summary["before"]["accuracy"].as_f64().unwrap());
    for words in [
        summary["config_digest"].as_str().unwrap(),
        summary["weights_digest"].as_str().unwrap(),
        &data,
        "few.jsonl",
        "| steps | 4 of 4 |",
        "grpo, 8 completions per prompt",
        "`tool-call`",
        "| all | 12 |",
        &percent,
    ] {
        assert!(card.contains(words), "expected {words:?} in\n{card}");
    }
    assert!(
        !card.contains(home.path().to_str().unwrap()),
        "a path of this machine is told:\n{card}"
    );

    // The checkpoint by its own directory is the same; one before the end was not evaluated, and is not said to be.
    let last = run.join("checkpoints/step-000004");
    let same = home.path().join("same");
    export(&[last.to_str().unwrap(), "--out", same.to_str().unwrap(), "--name", "out"]);
    assert_eq!(std::fs::read_to_string(same.join("README.md")).unwrap(), card);
    let earlier = home.path().join("earlier");
    export(&[run.to_str().unwrap(), "--step", "3", "--out", earlier.to_str().unwrap()]);
    let card = std::fs::read_to_string(earlier.join("README.md")).unwrap();
    assert!(
        card.contains("| steps | 3 of 4 |") && card.contains("These weights were not evaluated"),
        "{card}"
    );
    assert!(card.contains(&percent) && card.contains("not measured"), "{card}");
    let error = refused(&[run.to_str().unwrap(), "--step", "1", "--out", "x"]);
    assert!(error.contains("holds the checkpoints of the steps [3, 4]"), "{error}");

    // A checkpoint that was changed since is not given away as the run's.
    let weights = last.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let at = bytes.len() - 3;
    bytes[at] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let error = refused(&[run.to_str().unwrap(), "--out", "x"]);
    assert!(error.contains("holds other weights than were committed"), "{error}");
}

fn blake3_of(path: &Path) -> String {
    blake3::hash(&std::fs::read(path).unwrap()).to_hex().to_string()
}

/// Loads a directory in transformers; prints the log-probabilities of the last position of a rendered prompt as JSON, and checks
/// that the hub's own reader understands the card.
const LOADS: &str = r#"
import json, sys, torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

at = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(at)
model = AutoModelForCausalLM.from_pretrained(at)
tools = [{"type": "function", "function": {"name": "get_time", "description": "The time",
          "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}}}]
prompt = tokenizer.apply_chat_template([{"role": "user", "content": "What time is it in Rome?"}],
                                       tools=tools, add_generation_prompt=True, tokenize=False)
ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
with torch.no_grad():
    logits = model(ids).logits[0, -1].float().log_softmax(-1)
card = ModelCard.load(at + "/README.md")
assert card.data.library_name == "transformers", card.data
assert GenerationConfig.from_pretrained(at).eos_token_id == 2
print(json.dumps({"dtype": str(model.dtype), "ids": ids[0].tolist(), "logprobs": logits.tolist()}))
"#;

#[test]
fn transformers_loads_it_with_probabilities_near() {
    let python = std::env::var("OCTET_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let can =
        Command::new(&python).args(["-c", "import torch, transformers, huggingface_hub"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED: `{python}` cannot import torch and transformers; set OCTET_TEST_PYTHON to one that can"
        );
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let loaded = |dtype: &str| {
        let out = home.path().join(dtype);
        export(&["assets/policy", "--out", out.to_str().unwrap(), "--dtype", dtype]);
        let run = Command::new(&python)
            .args(["-c", LOADS])
            .arg(&out)
            .env("HF_HUB_OFFLINE", "1")
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        serde_json::from_slice::<Value>(&run.stdout).unwrap()
    };
    let numbers = |value: &Value| -> Vec<f64> {
        value["logprobs"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
    };
    let (whole, half) = (loaded("f32"), loaded("bf16"));
    assert_eq!(whole["ids"], half["ids"]);
    assert_eq!(half["dtype"], "torch.bfloat16");
    // Against octet's own log-probabilities of the next token.
    let ids: Vec<u32> =
        whole["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    let own = own::logprobs(&root().join("assets/policy"), &ids);
    let spread = own.iter().fold(0.0f64, |most, logit| most.max(logit.abs()));
    let (exact, near) = (own::gap(&own, &numbers(&whole)), own::gap(&own, &numbers(&half)));
    eprintln!(
        "largest gap of a log-probability: {exact:.2e} in f32, {near:.2e} in bf16, of {spread:.1}"
    );
    assert!(exact < 1e-3, "{exact}");
    assert!(near < 0.05 * spread, "{near} of {spread}");
}
