//! A disk that is full: the step fails by name, the last commit is whole, and the run goes on from it.

#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

mod common;

use common::{digest, octet, root, short, train};
use std::process::Command;

/// Runs in a mount namespace of its own, where `$HOME_DIR` is a file system of 110 MB: room for one
/// checkpoint of the bundled policy with its optimiser, not for two.
const SCRIPT: &str = r#"
mount -t tmpfs -o size=110m octet-test "$HOME_DIR" || exit 77
"$OCTET" "$@" 2>"$HOME_DIR.error"
echo "exit=$?"
ls "$HOME_DIR/run/checkpoints"
mount -o remount,size=600m "$HOME_DIR" || exit 77
"$OCTET" train --resume "$HOME_DIR/run" >/dev/null 2>&1
echo "resumed=$?"
cp "$HOME_DIR/run/summary.json" "$HOME_DIR.summary"
"#;

#[test]
fn a_full_disk_is_named_and_the_run_goes_on_from_the_last_commit() {
    let home = tempfile::tempdir().unwrap();
    let disk = home.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let arguments = short(&disk.join("run"), &[]);
    let mut command = Command::new("unshare");
    // Without privileges, a user namespace gives the right to mount.
    if !is_root() {
        command.arg("--map-root-user");
    }
    let output = command
        .args(["--mount", "sh", "-c", SCRIPT, "sh"])
        .args(&arguments)
        .env("OCTET", octet(&[]).get_program())
        .env("HOME_DIR", &disk)
        .current_dir(root())
        .output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        refused => {
            eprintln!("SKIPPED: no small file system could be mounted here: {refused:?}");
            return;
        }
    };
    let said = String::from_utf8(output.stdout).unwrap();
    let error = std::fs::read_to_string(home.path().join("disk.error")).unwrap();
    assert!(said.contains("exit=1"), "{said}\n{error}");
    let lines: Vec<&str> = error.lines().filter(|l| l.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 1, "{error}");
    for part in ["no space left", disk.to_str().unwrap(), "bytes", "resume"] {
        assert!(lines[0].contains(part), "{part} is not in: {}", lines[0]);
    }
    assert!(said.contains("step-000001"), "the last commit is there: {said}");
    assert!(said.contains("resumed=0"), "{said}");

    let summary = std::fs::read(home.path().join("disk.summary")).unwrap();
    let resumed = digest(&serde_json::from_slice(&summary).unwrap());
    let out = home.path().join("undisturbed");
    assert_eq!(resumed, digest(&train(&short(&out, &[]), &out)));
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
