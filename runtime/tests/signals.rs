//! Real signals to a real process: the first asks to stop, the second ends it.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use octet_runtime::shutdown::on_signal;

/// Which part the process plays; set only in the children of these tests.
const PART: &str = "OCTET_TEST_PART";

/// The child. In a run of all tests it has no part and does nothing.
#[test]
fn child() {
    let Ok(part) = std::env::var(PART) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let stop = on_signal().unwrap();
        eprintln!("ready");
        stop.cancelled().await;
        eprintln!("stopping");
        if part == "hangs" {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    });
    std::process::exit(7);
}

fn start(part: &str) -> (Child, impl FnMut() -> String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(PART, part)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    (child, move || lines.next().unwrap().unwrap())
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn the_first_signal_asks_to_stop() {
    for name in ["-INT", "-TERM"] {
        let (mut child, mut line) = start("stops");
        assert_eq!(line(), "ready");
        signal(&child, name);
        assert_eq!(line(), "stopping");
        assert_eq!(child.wait().unwrap().code(), Some(7));
    }
}

#[test]
fn the_second_signal_ends_the_process() {
    let (mut child, mut line) = start("hangs");
    assert_eq!(line(), "ready");
    signal(&child, "-TERM");
    assert_eq!(line(), "stopping");
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
