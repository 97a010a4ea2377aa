//! A run is a pure function of its configuration: the final weights do not depend on what happens to it.

#![allow(clippy::unwrap_used)]

mod common;

use common::{digest, killed_and_resumed, short, train};

fn undisturbed(more: &[&str]) -> (String, f64) {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("run");
    let begin = std::time::Instant::now();
    let summary = train(&short(&out, more), &out);
    assert_eq!(summary["logprob_gap_max"].as_f64(), Some(0.0), "sampler and learner differ");
    assert_eq!(summary["steps"].as_u64(), Some(4));
    (digest(&summary), begin.elapsed().as_secs_f64())
}

#[test]
fn workers_threads_and_kills_change_no_bit() {
    let (expected, seconds) = undisturbed(&[]);
    assert_eq!(undisturbed(&[]).0, expected, "the same run again");
    assert_eq!(undisturbed(&["--workers", "3"]).0, expected, "three workers");

    for share in [0.25, 0.5, 0.8] {
        if let Some(found) = killed_and_resumed(&[], seconds, share) {
            assert_eq!(found, expected, "killed at {share} of the run and resumed");
        }
    }
}

#[test]
fn another_seed_gives_other_weights() {
    assert_ne!(undisturbed(&[]).0, undisturbed(&["--set", "run.seed=2"]).0);
}

#[test]
fn an_older_sampling_policy_is_another_run_and_repeats_too() {
    let lag = ["--set", "learner.lag=1"];
    let first = undisturbed(&lag).0;
    assert_eq!(first, undisturbed(&["--set", "learner.lag=1", "--workers", "2"]).0);
    assert_ne!(first, undisturbed(&[]).0);
}
