//! `octet serve` as the `openai` package for Python sees it.
//!
//! The Python is named by `OCTET_TEST_OPENAI`; without it a virtual environment in the target folder is used, and
//! made where there is none.

#![allow(clippy::unwrap_used)]

mod common;

use common::cluster::Node;
use common::root;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Python that has the package.
fn python() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("OCTET_TEST_OPENAI") {
        return Some(named.into());
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_path_buf();
    let home = target.join("openai-python");
    let python = home.join("bin/python");
    let has_it = |python: &Path| {
        let asked = Command::new(python).args(["-c", "import openai"]).output();
        asked.is_ok_and(|output| output.status.success())
    };
    let run = |program: &Path, arguments: &[&str]| {
        let ended = Command::new(program).args(arguments).output();
        match ended {
            Ok(output) if output.status.success() => true,
            Ok(output) => {
                eprintln!("{}", String::from_utf8_lossy(&output.stderr));
                false
            }
            Err(error) => {
                eprintln!("{error}");
                false
            }
        }
    };
    let made = has_it(&python)
        || (run(Path::new("python3"), &["-m", "venv", home.to_str().unwrap()])
            && run(&python, &["-m", "pip", "install", "--quiet", "openai"]));
    if !made {
        eprintln!(
            "SKIPPED: no Python with the package openai, and none could be made in {}; set OCTET_TEST_OPENAI to one",
            home.display()
        );
    }
    made.then_some(python)
}

#[test]
fn the_openai_package_finds_what_it_expects() {
    let Some(python) = python() else { return };
    let home = tempfile::tempdir().unwrap();
    let words = ["serve", "assets/policy", "--listen", "127.0.0.1:0"].map(str::to_owned);
    let mut node = Node::spawn(home.path(), &words);
    let line = node.line("http://");
    let url = line.split(' ').find(|word| word.starts_with("http://")).unwrap();
    let script = root().join("cli/tests/openai_client.py");
    let output = Command::new(python).arg(script).arg(url).output().unwrap();
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}\n{}", node.story());
    eprintln!("{}", said.trim());
}
