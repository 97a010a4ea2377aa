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

/// Kills a short run at a share of the `seconds` that it takes, and resumes it: the digest of its weights, or nothing
/// where the kill came before the run directory was there or after the run, which is said.
pub fn killed_and_resumed(more: &[&str], seconds: f64, share: f64) -> Option<String> {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("run");
    let mut child = start(&short(&out, more));
    std::thread::sleep(std::time::Duration::from_secs_f64(seconds * share));
    child.kill().unwrap();
    child.wait().unwrap();
    if !out.join("run.json").exists() || out.join("summary.json").exists() {
        eprintln!("SKIPPED: the kill at {share} of the run came before or after it");
        return None;
    }
    let resume = ["train", "--resume", out.to_str().unwrap()].map(str::to_owned);
    Some(digest(&train(&resume, &out)))
}
