//! Running the binary as a user would, from the repository's root.

#![allow(dead_code, clippy::unwrap_used)]

pub mod browser;
pub mod cluster;
pub mod http;
pub mod mlflow;
pub mod own;
pub mod python;
pub mod serving;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The repository's root: recipes name files relative to it.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The binary with these arguments.
pub fn octet(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_octet"));
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command
}

/// Runs to the end.
pub fn output(arguments: &[&str]) -> Output {
    octet(arguments).output().unwrap()
}

/// A short training: few groups, few tokens, no evaluation.
pub fn short(out: &Path, more: &[&str]) -> Vec<String> {
    let mut all = vec!["train".to_owned(), "--out".into(), out.display().to_string()];
    all.extend(cluster::short_keys(&[]));
    all.extend(more.iter().map(|s| (*s).to_owned()));
    all
}

/// Runs a training to its end and reads its summary.
pub fn train(arguments: &[String], out: &Path) -> Value {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = output(&arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "octet {arguments:?} failed:\n{errors}");
    let text = std::fs::read(out.join("summary.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// The digest of a run's final weights.
pub fn digest(summary: &Value) -> String {
    summary["weights_digest"].as_str().unwrap().to_owned()
}

/// Starts without waiting; output goes nowhere.
pub fn start(arguments: &[String]) -> Child {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    octet(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}
