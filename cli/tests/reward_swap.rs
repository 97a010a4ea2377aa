//! The reward of a run, swapped while it goes on: real processes, real ports, a real policy.

#![allow(clippy::unwrap_used)]

mod common;

use common::{digest, octet, output, root, short, start, train};
use octet_coordinator::JOURNAL_FILE;
use octet_coordinator::journal::read_revisions;
use octet_learner::learner::SPOOL_FILE;
use octet_learner::spool::Spool;
use octet_proto::GroupIndex;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(300);
const STEPS: u64 = 24;
const BATCH: u64 = 2;

/// A process that is killed when the test ends, however it ends.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A replica of a reward, and where it answers.
fn serve(arguments: &[&str]) -> (Guarded, String, BufReader<ChildStdout>) {
    let mut all = vec!["reward", "serve", "--listen", "127.0.0.1:0"];
    all.extend(arguments);
    let mut command = octet(&all);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Guarded(command.spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let endpoint = line.split(' ').next().unwrap().to_owned();
    assert!(endpoint.starts_with("http://127.0.0.1:"), "{line}");
    (child, endpoint, lines)
}

fn ok(arguments: &[&str]) -> String {
    let output = output(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "octet {arguments:?} failed:\n{errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(arguments: &[&str]) -> String {
    let output = output(arguments);
    assert!(!output.status.success(), "octet {arguments:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until the spool of the run has so many groups.
fn sampled(out: &Path, groups: usize, child: &mut Child) {
    let begin = Instant::now();
    loop {
        let present = Spool::read_only(&out.join(SPOOL_FILE))
            .and_then(|spool| spool.present(GroupIndex(0)..GroupIndex(u64::MAX)));
        if present.is_ok_and(|present| present.len() >= groups) {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "the run ended before {groups} groups");
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {groups} groups");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn keys() -> Vec<String> {
    let keys = [format!("run.steps={STEPS}"), format!("learner.batch={BATCH}")];
    keys.into_iter().flat_map(|key| ["--set".to_owned(), key]).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_swap_half_way_is_recorded_survives_a_lost_replica_and_is_repeated_by_a_replay() {
    let home = tempfile::tempdir().unwrap();
    let (live, again, plain) =
        (home.path().join("live"), home.path().join("again"), home.path().join("plain"));
    let keys = keys();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let (mut first, at_first, _out) = serve(&["--function", "aws-compat"]);
    let (_second, at_second, _out) = serve(&["--function", "aws-compat"]);
    let mut run = Guarded(start(&short(&live, &keys)));
    sampled(&live, 3, &mut run.0);
    let swap = ["reward", "swap", "--run", text(&live), "--to", &at_first, "--to", &at_second];
    let told = ok(&[&swap[..], &["--name", "compat"]].concat());
    assert!(told.contains("revision 2 (compat) rewards the run from step"), "{told}");
    assert!(told.contains("scored twice by 2 of 2"), "{told}");
    let status = ok(&["reward", "status", "--run", text(&live)]);
    assert!(status.contains("tool-call") && status.contains("compat"), "{status}");

    // The step that the record names, and a replica killed once it has scored some.
    let (bound, _) = read_revisions(&live.join(JOURNAL_FILE)).unwrap();
    let from = bound[1].1.get();
    assert!((1..STEPS - 4).contains(&from), "swapped at step {from}, too late to show anything");
    sampled(&live, (BATCH * (from + 1)) as usize + 1, &mut run.0);
    first.0.kill().unwrap();
    let ended = run.0.wait().unwrap();
    assert!(ended.success(), "the run failed once a replica was killed");

    let spool = Spool::read_only(&live.join(SPOOL_FILE)).unwrap();
    for group in spool.present(GroupIndex(0)..GroupIndex(u64::MAX)).unwrap() {
        let group = spool.read(group..group.next()).unwrap().remove(0);
        let revision = if group.group.get() / BATCH < from { 1 } else { 2 };
        assert_eq!(group.reward_revision.get(), revision, "group {}", group.group);
        let verdicts: BTreeSet<&str> =
            group.completions.iter().map(|c| c.verdict.as_str()).collect();
        assert!(
            verdicts.iter().all(|verdict| !verdict.starts_with("reward-failed")),
            "{verdicts:?}"
        );
    }
    let summary = std::fs::read(live.join("summary.json")).unwrap();
    let swapped = digest(&serde_json::from_slice(&summary).unwrap());

    // The record makes the recipe that repeats it, in one process and with no service beside it.
    let recipe = ok(&["reward", "history", "--run", text(&live), "--replay"]);
    assert!(recipe.contains(&format!("step = {from}")), "{recipe}");
    assert!(recipe.contains("function = \"aws-compat\""), "{recipe}");
    let file = home.path().join("again.toml");
    std::fs::write(&file, recipe).unwrap();
    let replay = ["train", text(&file), "--out", text(&again), "--workers", "2"].map(str::to_owned);
    assert_eq!(digest(&train(&replay, &again)), swapped, "the replay's weights");
    let (repeated, _) = read_revisions(&again.join(JOURNAL_FILE)).unwrap();
    assert_eq!(repeated[1].1.get(), from);
    assert_ne!(digest(&train(&short(&plain, &keys), &plain)), swapped, "the swap changed nothing");

    // What another swap would change, from the record alone.
    let (_third, at_third, _out) = serve(&["--function", "tool-call"]);
    let shadow =
        ok(&["reward", "shadow", "--run", text(&live), "--to", &at_third, "--groups", "8"]);
    assert!(
        shadow.contains("candidate tool-call") && shadow.contains("8 with 64 completions"),
        "{shadow}"
    );
    assert!(shadow.contains("rank agreement  Kendall"), "{shadow}");
}

/// Whether there is a Python; says so where there is none.
fn python() -> bool {
    let there = std::process::Command::new("python3").arg("--version").output().is_ok();
    if !there {
        eprintln!("SKIPPED: reward functions in Python were not run: there is no python3");
    }
    there
}

#[test]
fn a_candidate_that_cannot_be_relied_on_is_refused_before_it_is_bound() {
    if !python() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("run");
    let write = |name: &str, code: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, code).unwrap();
        text(&path).to_owned()
    };
    let throws = write(
        "throws.py",
        "def reward_function(response, ground_truth):\n    return len(response) / 0\n",
    );
    let random = write(
        "random_one.py",
        "import os\ndef reward_function(response, ground_truth):\n    return os.urandom(1)[0] / 255\n",
    );
    let good = write("good.py", "def reward_function(response, ground_truth):\n    return 0.5\n");
    let keys = keys();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut run = Guarded(start(&short(&out, &keys)));
    sampled(&out, 1, &mut run.0);
    let swap = |to: &[&str]| {
        let to = to.iter().flat_map(|to| ["--to", to]);
        ["reward", "swap", "--run", text(&out)]
            .into_iter()
            .chain(to)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let words =
        |all: &[String]| -> String { refused(&all.iter().map(String::as_str).collect::<Vec<_>>()) };
    let (_throws, at_throws, _out) = serve(&["--python", &throws]);
    let error = words(&swap(&[&at_throws]));
    assert!(error.contains("threw") && error.contains("ZeroDivisionError"), "{error}");
    let (_random, at_random, _out) = serve(&["--python", &random]);
    let error = words(&swap(&[&at_random]));
    assert!(error.contains("expected the same reward every time"), "{error}");
    let (_good, at_good, _out) = serve(&["--python", &good, "--processes", "1"]);
    let error = words(&swap(&[&at_good, &at_random]));
    assert!(error.contains("expected replicas of one reward"), "{error}");
    let error = words(&swap(&["http://127.0.0.1:9"]));
    assert!(error.contains("127.0.0.1:9") && error.contains("start the service"), "{error}");
    let (bound, _) = read_revisions(&out.join(JOURNAL_FILE)).unwrap();
    assert_eq!(bound.len(), 1, "nothing was bound");

    // And one that can: there, and back again.
    let all = swap(&[&at_good]);
    ok(&all.iter().map(String::as_str).collect::<Vec<_>>());
    let told = ok(&["reward", "rollback", "--run", text(&out)]);
    assert!(told.contains("revision 3 (tool-call)"), "{told}");
    let error = refused(&["reward", "status", "--run", text(home.path())]);
    assert!(error.contains("coordinator.json"), "{error}");
}

#[test]
fn answers_are_scored_by_a_users_file_which_sees_none_of_the_runs_secrets() {
    if !python() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let code = "import os\ndef compute_score(data_source, solution_str, ground_truth, extra_info):\n    \
                print('scoring', solution_str)\n    \
                return {'score': 0.25, 'secrets': [n for n in os.environ if n.startswith('OCTET_')]}\n";
    let file = home.path().join("mine.py");
    std::fs::write(&file, code).unwrap();
    let data = root().join("assets/data/held-out.jsonl");
    let arguments =
        ["reward", "try", "--data", text(&data), "--python", text(&file), "--answer", "hm"];
    let mut command = octet(&arguments);
    let tried = command.env("OCTET_JOIN_TOKEN", "sesame").output().unwrap();
    let (table, printed) =
        (String::from_utf8_lossy(&tried.stdout), String::from_utf8_lossy(&tried.stderr));
    assert!(tried.status.success(), "{printed}");
    assert!(table.contains("0.250") && table.contains("secrets []"), "{table}");
    assert!(table.contains("mine:compute_score"), "{table}");
    assert!(printed.contains("printed: scoring hm"), "{printed}");
}
