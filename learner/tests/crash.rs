//! `kill -9` at any moment: what was acknowledged is there, what is there is whole.
//!
//! The test starts itself as a child that writes without pause, reads from its output what it
//! acknowledged, kills it at moments drawn from a fixed seed, and looks at the disk.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use octet_learner::adamw::{AdamW, Hyperparameters, TensorSpec};
use octet_learner::commit::{Checkpoints, Retention, StepCommit};
use octet_learner::group::{Finish, GroupParts, ScoredCompletion, ScoredGroup};
use octet_learner::metrics::{MetricsLog, RolloutSummary, StepMetrics, Timing, read};
use octet_learner::objective::Tally;
use octet_learner::spool::{Spool, Stored};
use octet_proto::{ConfigDigest, GroupIndex};
use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Tells the child which directory to write to.
const CHILD: &str = "OCTET_CRASH_TEST_RUN";

fn group(index: u64) -> ScoredGroup {
    let completion = |sample: u32| ScoredCompletion {
        sample,
        tokens: vec![index as u32; 20],
        logprobs: vec![-0.5; 20],
        finish: Finish::Stop,
        reward: f64::from(sample % 2),
        verdict: "right-call".to_owned(),
        detail: String::new(),
    };
    let parts = GroupParts {
        group: GroupIndex(index),
        lease_epoch: 1.into(),
        policy_version: 0.into(),
        reward_revision: 1.into(),
        worker: "w".to_owned(),
        example_json: "{}".to_owned(),
        prompt_tokens: vec![1; 50],
        completions: (0..8).map(completion).collect(),
    };
    ScoredGroup::new(parts).unwrap()
}

fn record(step: u64) -> StepMetrics {
    StepMetrics {
        step,
        rollout: RolloutSummary::new([(&group(step), "execute")]).unwrap(),
        loss: Tally::default().statistics(),
        logprob_gap_max: 0.0,
        gradient_norm: 1.0 / 3.0,
        learning_rate: 1e-5,
        timing: Timing::default(),
    }
}

/// Tells the parent, past the test harness, that `number` is durable.
fn acknowledge(number: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nacknowledged {number}").unwrap();
    out.flush().unwrap();
}

fn child_directory() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// Runs one of this file's tests as a child, kills it after `pause` from its first acknowledgement,
/// and returns the last number it acknowledged.
fn kill_child(test: &str, run: &Path, pause: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(CHILD, run)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let number = |line: String| line.strip_prefix("acknowledged ")?.parse::<u64>().ok();
    let first = lines.by_ref().find_map(number).expect("the child acknowledges something");
    std::thread::sleep(pause);
    child.kill().unwrap();
    child.wait().unwrap();
    lines.filter_map(number).last().unwrap_or(first)
}

/// Pauses from a fixed seed, in microseconds.
fn pauses(count: usize) -> Vec<Duration> {
    let mut state = 0x2545_f491u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        Duration::from_micros(u64::from(state % 40_000))
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn a_killed_spool_has_all_that_it_acknowledged() {
    if let Some(run) = child_directory() {
        let mut spool = Spool::open(&run.join("spool.sqlite")).unwrap();
        let next = spool.present(GroupIndex(0)..GroupIndex(1 << 40)).unwrap().len() as u64;
        for index in (next..).step_by(2) {
            spool.append(&[group(index), group(index + 1)]).unwrap();
            acknowledge(index + 1);
        }
    }
    let run = tempfile::tempdir().unwrap();
    let mut before = 0;
    for pause in pauses(6) {
        let last = kill_child("a_killed_spool_has_all_that_it_acknowledged", run.path(), pause);
        assert!(last > before, "the child went on from {before} to {last}");
        let mut spool = Spool::open(&run.path().join("spool.sqlite")).unwrap();
        let present = spool.present(GroupIndex(0)..GroupIndex(1 << 40)).unwrap();
        // Batches are whole: of the one that was cut short, both groups are there or none.
        assert!(present.len() as u64 > last && present.len().is_multiple_of(2));
        let all = spool.read(GroupIndex(0)..GroupIndex(present.len() as u64)).unwrap();
        assert!(all.iter().zip(0..).all(|(found, index)| *found == group(index)));
        assert_eq!(spool.append(&[group(last)]).unwrap(), [Ok(Stored::Duplicate)]);
        before = last;
    }
}

#[test]
fn a_killed_commit_is_whole_or_was_never_there() {
    let specs = vec![TensorSpec { name: "w".to_owned(), shape: vec![64, 64] }];
    let config = ConfigDigest::new("c0ffee");
    if let Some(run) = child_directory() {
        let checkpoints = Checkpoints::open(&run, config.clone()).unwrap();
        let latest = checkpoints.latest().unwrap();
        let committed = latest.as_ref().map(|latest| &latest.state().metrics);
        let (mut log, _) = MetricsLog::resume(&run.join("metrics.jsonl"), committed).unwrap();
        let optimizer = AdamW::new(Hyperparameters::default(), specs.clone()).unwrap();
        let retention = Retention::new(NonZeroUsize::MIN, None, 1);
        for step in committed.map_or(0, |record| record.step) + 1.. {
            let metrics = record(step);
            let commit = StepCommit {
                groups: GroupIndex(step - 1)..GroupIndex(step),
                weights_digest: "beef",
                policy_bytes: 100_000,
                metrics: &metrics,
                optimizer: &optimizer,
            };
            let policy = |folder: &Path| {
                std::fs::write(folder.join("model.safetensors"), vec![step as u8; 100_000])
            };
            checkpoints.commit(&commit, policy).unwrap();
            log.append(&metrics).unwrap();
            checkpoints.prune(&retention).unwrap();
            acknowledge(step);
        }
    }
    let run = tempfile::tempdir().unwrap();
    let mut before = 0;
    for pause in pauses(6) {
        let last = kill_child("a_killed_commit_is_whole_or_was_never_there", run.path(), pause);
        assert!(last > before, "the child went on from {before} to {last}");
        let checkpoints = Checkpoints::open(run.path(), config.clone()).unwrap();
        for step in checkpoints.steps().unwrap() {
            checkpoints.load(step).unwrap();
        }
        let latest = checkpoints.latest().unwrap().unwrap();
        assert!((last..=last + 1).contains(&latest.state().committed_steps));
        latest.optimizer(Hyperparameters::default(), specs.clone()).unwrap();
        let path = run.path().join("metrics.jsonl");
        MetricsLog::resume(&path, Some(&latest.state().metrics)).unwrap();
        let steps: Vec<u64> = read(&path).unwrap().iter().map(|record| record.step).collect();
        assert_eq!(steps, (1..=latest.state().committed_steps).collect::<Vec<_>>());
        before = last;
    }
}
