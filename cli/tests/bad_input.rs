//! Each mistake is one line that says what to do, with an exit code that is not 0, and nothing half written.

#![allow(clippy::unwrap_used)]

mod common;

use common::{octet, output, root};
use std::path::Path;

/// Runs, expects a refusal, and returns its one line.
fn refused(arguments: &[&str]) -> String {
    let output = output(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "octet {arguments:?} succeeded");
    let errors: Vec<&str> = text.lines().filter(|l| l.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "octet {arguments:?} said:\n{text}");
    errors[0].to_owned()
}

fn train(out: &Path, more: &[&str]) -> String {
    let out = out.to_str().unwrap();
    refused(&[&["train", "--out", out], more].concat())
}

/// A copy of the bundled policy to be damaged.
fn policy(home: &Path) -> std::path::PathBuf {
    let target = home.join("policy");
    std::fs::create_dir(&target).unwrap();
    for file in std::fs::read_dir(root().join("assets/policy")).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), target.join(file.file_name())).unwrap();
        }
    }
    target
}

#[test]
fn keys_are_checked() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("run");
    let error = train(&out, &["--set", "run.stpes=3"]);
    assert!(error.contains("run.stpes") && error.contains("run.steps"), "{error}");
    let error = train(&out, &["--set", "run.steps=many"]);
    assert!(error.contains("run.steps") && error.contains("many"), "{error}");
    let error = train(&out, &["--set", "learner.objective=grpoo"]);
    assert!(error.contains("grpoo") && error.contains("grpo"), "{error}");
    let error = train(&out, &["--set", "sampling.completions=1"]);
    assert!(error.contains("at least 2"), "{error}");
    let error = train(&out, &["--set", "weights.broadcast=smoke"]);
    assert!(error.contains("off or nccl") && error.contains("smoke"), "{error}");
    let error = train(&out, &["--set", "weights.broadcast=nccl"]);
    assert!(error.contains("model.device is cpu"), "{error}");
    assert!(!out.exists(), "a refused run must not leave a directory");
}

#[test]
fn damaged_models_are_refused_by_file() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("run");
    let model = policy(home.path());
    let path = format!("model.path={}", model.display());
    let weights = model.join("model.safetensors");
    let whole = std::fs::read(&weights).unwrap();

    std::fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    let error = train(&out, &["--set", &path]);
    assert!(error.contains("model.safetensors") && error.contains("bytes"), "{error}");

    std::fs::remove_file(&weights).unwrap();
    let error = train(&out, &["--set", &path]);
    assert!(error.contains("model.safetensors"), "{error}");
    std::fs::write(&weights, &whole).unwrap();

    let config = std::fs::read_to_string(model.join("config.json")).unwrap();
    let mut parsed: serde_json::Value = serde_json::from_str(&config).unwrap();
    parsed["max_position_embeddings"] = 64.into();
    std::fs::write(model.join("config.json"), parsed.to_string()).unwrap();
    let error = train(&out, &["--set", &path]);
    assert!(error.contains("64") && error.contains("context"), "{error}");
    std::fs::write(model.join("config.json"), config).unwrap();

    let tokenizer = std::fs::read_to_string(model.join("tokenizer.json")).unwrap();
    let mut parsed: serde_json::Value = serde_json::from_str(&tokenizer).unwrap();
    let vocabulary = parsed["model"]["vocab"].as_object_mut().unwrap();
    vocabulary.insert("one-token-too-many".into(), 99_999.into());
    std::fs::write(model.join("tokenizer.json"), parsed.to_string()).unwrap();
    let error = train(&out, &["--set", &path]);
    assert!(error.contains("tokenizer"), "{error}");
    assert!(!out.exists());
}

#[test]
fn data_sets_are_checked() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("run");
    let data = home.path().join("rows.jsonl");
    let key = format!("data.train={}", data.display());
    std::fs::write(&data, "").unwrap();
    let error = train(&out, &["--set", &key]);
    assert!(error.contains("rows.jsonl"), "{error}");
    std::fs::write(&data, "{\"prompt\": []}\n").unwrap();
    let error = train(&out, &["--set", &key]);
    assert!(error.contains("rows.jsonl:1"), "{error}");
    let error = train(&out, &["--set", "data.train=no/such/file.jsonl"]);
    assert!(error.contains("no/such/file.jsonl"), "{error}");
    assert!(!out.exists());
}

#[test]
fn a_run_directory_belongs_to_one_configuration() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("run");
    let arguments = common::short(&out, &["--set", "run.steps=1"]);
    common::train(&arguments, &out);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let error = refused(&arguments);
    assert!(error.contains("--resume"), "{error}");
    let error = train(&out, &["--set", "run.seed=5"]);
    assert!(error.contains("another configuration"), "{error}");
    let error = refused(&["train", "--resume", home.path().to_str().unwrap()]);
    assert!(error.contains("run directory"), "{error}");
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let error = train(Path::new("/proc/octet"), &["--set", "run.steps=1"]);
    assert!(error.contains("/proc/octet"), "{error}");
}

#[test]
fn the_help_teaches() {
    let text = String::from_utf8(octet(&["train", "--help"]).output().unwrap().stdout).unwrap();
    for word in ["--out", "--set", "--workers", "--resume"] {
        assert!(text.contains(word), "{text}");
    }
}
