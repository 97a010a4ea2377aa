//! Programs in Python from PyPI, in virtual environments of their own, kept between runs.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program that the tests need: the one that a variable names, or the one of a virtual environment into which
/// the packages are installed.
///
/// # Errors
/// Why there is none.
pub fn program(variable: &str, name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os(variable) {
        let path = PathBuf::from(path);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(format!("{variable}={} is no file", path.display()))
        };
    }
    let home =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("python-{}", packages.join("-")));
    let (program, ready) = (home.join("bin").join(name), home.join("ready"));
    if !ready.is_file() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        run(Command::new(home.join("bin/python")).args(pip).args(packages))?;
        std::fs::write(&ready, "").map_err(|error| error.to_string())?;
    }
    Ok(program)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().last().unwrap_or("no reason given").to_owned())
}
