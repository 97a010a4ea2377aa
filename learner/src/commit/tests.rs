#![allow(clippy::unwrap_used)]
use super::*;
use crate::adamw::{Hyperparameters, Parameter, TensorSpec};
use crate::metrics::tests::record;
use std::convert::Infallible;
use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use tempfile::TempDir;

fn specs() -> Vec<TensorSpec> {
    vec![TensorSpec { name: "w".to_owned(), shape: vec![2, 2] }]
}

fn optimizer(steps: u64) -> AdamW {
    let mut optimizer = AdamW::new(Hyperparameters::default(), specs()).unwrap();
    for step in 0..steps {
        let gradient = [step as f32 + 1.0; 4];
        let mut parameters = [Parameter { values: &mut [0.0; 4], gradient: &gradient }];
        optimizer.update(&mut parameters, 0.1).unwrap();
    }
    optimizer
}

fn config(digest: &str) -> ConfigDigest {
    ConfigDigest::new(digest)
}

fn open(run: &TempDir) -> Checkpoints {
    Checkpoints::open(run.path(), config("aaaa")).unwrap()
}

fn policy(folder: &Path) -> io::Result<()> {
    fs::write(folder.join("config.json"), "{}")?;
    fs::write(folder.join("model.safetensors"), vec![7; 5_000_000])
}

fn commit_with<E: Into<Box<dyn Error + Send + Sync>>>(
    checkpoints: &Checkpoints,
    step: u64,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<Checkpoint, CommitError> {
    let commit = StepCommit {
        groups: GroupIndex(4 * (step - 1))..GroupIndex(4 * step),
        weights_digest: "beef",
        policy_bytes: 5_000_002,
        metrics: &record(step),
        optimizer: &optimizer(step),
    };
    checkpoints.commit(&commit, write)
}

fn commit(checkpoints: &Checkpoints, step: u64) -> Checkpoint {
    commit_with(checkpoints, step, policy).unwrap()
}

fn names(run: &TempDir) -> Vec<String> {
    let entries = disk::entries(&run.path().join(FOLDER)).unwrap();
    entries.iter().map(|entry| name(entry).to_owned()).collect()
}

#[test]
fn a_commit_reads_back_whole() {
    let run = tempfile::tempdir().unwrap();
    let checkpoints = open(&run);
    assert!(checkpoints.latest().unwrap().is_none());
    commit(&checkpoints, 1);
    let made = commit(&checkpoints, 2);
    drop(checkpoints);
    let latest = open(&run).latest().unwrap().unwrap();
    assert_eq!(latest, made);
    assert_eq!(latest.path(), run.path().join("checkpoints/step-000002"));
    let state = latest.state();
    assert_eq!(
        (state.committed_steps, state.first_group, state.next_group),
        (2, 4.into(), 8.into())
    );
    assert_eq!((&state.metrics, state.weights_digest.as_str()), (&record(2), "beef"));
    let files: Vec<&str> = state.files.keys().map(String::as_str).collect();
    assert_eq!(files, ["config.json", "model.safetensors", "octet/optimizer.safetensors"]);
    let read = latest.optimizer(Hyperparameters::default(), specs()).unwrap();
    assert_eq!(read, optimizer(2));
    assert_eq!(names(&run), [".lock", "step-000001", "step-000002"]);
}

#[test]
fn digests_that_do_not_match_are_told_with_both_values() {
    let run = tempfile::tempdir().unwrap();
    let made = commit(&open(&run), 1);
    made.check_weights("beef").unwrap();
    let error = made.check_weights("dead").unwrap_err().to_string();
    assert!(error.contains("expected weights beef") && error.contains("found dead"), "{error}");
    let other = Checkpoints::open(run.path(), config("bbbb")).unwrap();
    let error = other.latest().unwrap_err().to_string();
    assert!(
        error.contains("expected configuration bbbb") && error.contains("found aaaa"),
        "{error}"
    );
}

#[test]
fn damage_after_the_fact_is_found() {
    let run = tempfile::tempdir().unwrap();
    let checkpoints = open(&run);
    let made = commit(&checkpoints, 1);
    let weights = made.path().join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let error = checkpoints.latest().unwrap_err().to_string();
    assert!(error.contains("model.safetensors with 5000000 bytes and BLAKE3"), "{error}");
    fs::remove_file(&weights).unwrap();
    assert!(checkpoints.latest().unwrap_err().to_string().contains("no model.safetensors"));
    fs::write(made.path().join("octet/state.json"), "{").unwrap();
    assert!(matches!(checkpoints.latest(), Err(CommitError::Damaged { .. })));
    fs::remove_dir_all(made.path().join("octet")).unwrap();
    let error = checkpoints.latest().unwrap_err().to_string();
    assert!(error.starts_with(&format!("expected a whole commit in {}", made.path().display())));
}

#[test]
fn a_renamed_commit_is_not_taken_for_another_step() {
    let run = tempfile::tempdir().unwrap();
    let checkpoints = open(&run);
    let made = commit(&checkpoints, 1);
    fs::rename(made.path(), run.path().join("checkpoints/step-000009")).unwrap();
    let error = checkpoints.latest().unwrap_err().to_string();
    assert!(error.contains("found the commit of step 1"), "{error}");
}

#[test]
fn a_failed_commit_leaves_the_last_one_whole_and_nothing_else() {
    let run = tempfile::tempdir().unwrap();
    let checkpoints = open(&run);
    commit(&checkpoints, 1);
    let failing = |folder: &Path| -> io::Result<()> {
        policy(folder)?;
        Err(io::Error::other("the device is gone"))
    };
    let error = commit_with(&checkpoints, 2, failing).unwrap_err();
    assert!(matches!(error, CommitError::Policy { .. }));
    assert!(error.to_string().ends_with("the device is gone"), "{error}");
    assert_eq!(checkpoints.latest().unwrap().unwrap().state().committed_steps, 1);
    assert_eq!(names(&run), [".lock", "step-000001"]);
    commit(&checkpoints, 2);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_with_the_bytes_of_the_commit() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot save the model")]
    struct SaveError(#[source] io::Error);
    let run = tempfile::tempdir().unwrap();
    let checkpoints = open(&run);
    // Every write to this device finds the disk full.
    let full = |_: &Path| fs::write("/dev/full", "weights").map_err(SaveError);
    match commit_with(&checkpoints, 1, full).unwrap_err() {
        CommitError::Disk(DiskError::Full { path, bytes }) => {
            assert!(path.ends_with("checkpoints/.tmp-step-000001"));
            assert_eq!(bytes, 5_000_002);
        }
        other => panic!("{other}"),
    }
    assert_eq!(names(&run), [".lock"]);
}

#[test]
fn a_step_is_committed_once() {
    let run = tempfile::tempdir().unwrap();
    let checkpoints = open(&run);
    commit(&checkpoints, 1);
    let again = commit_with(&checkpoints, 1, |_| Ok::<(), Infallible>(()));
    assert!(matches!(again, Err(CommitError::Exists { .. })));
    assert!(checkpoints.latest().unwrap().is_some());
}

#[test]
fn the_leftovers_of_a_crash_are_removed_at_the_start() {
    let run = tempfile::tempdir().unwrap();
    commit(&open(&run), 1);
    let half_made = run.path().join("checkpoints/.tmp-step-000002/octet");
    fs::create_dir_all(&half_made).unwrap();
    fs::write(half_made.join("optimizer.safetensors"), "half").unwrap();
    let checkpoints = open(&run);
    assert_eq!(names(&run), [".lock", "step-000001"]);
    assert_eq!(checkpoints.steps().unwrap(), [1]);
}

#[test]
fn two_processes_do_not_share_a_run() {
    let run = tempfile::tempdir().unwrap();
    let first = open(&run);
    let second = Checkpoints::open(run.path(), config("aaaa"));
    assert!(matches!(second, Err(CommitError::Locked { .. })));
    drop(first);
    open(&run);
}

#[test]
fn pruning_keeps_the_newest_and_every_so_many() {
    let run = tempfile::tempdir().unwrap();
    let checkpoints = open(&run);
    for step in 1..=7 {
        commit_with(&checkpoints, step, |_| Ok::<(), Infallible>(())).unwrap();
    }
    let retention = Retention::new(NonZeroUsize::new(2).unwrap(), NonZeroU64::new(3), 0);
    assert_eq!(checkpoints.prune(&retention).unwrap(), [1, 2, 4, 5]);
    assert_eq!(checkpoints.steps().unwrap(), [3, 6, 7]);
    assert_eq!(checkpoints.prune(&retention).unwrap(), [0; 0]);
    assert_eq!(names(&run), [".lock", "step-000003", "step-000006", "step-000007"]);
}

#[test]
fn what_the_lag_samples_with_is_never_pruned() {
    let one = NonZeroUsize::new(1).unwrap();
    assert_eq!(Retention::new(one, None, 0).doomed(&[1, 2, 3]), [1, 2]);
    assert_eq!(Retention::new(one, None, 2).doomed(&[1, 2, 3, 4]), [1]);
    assert_eq!(Retention::new(one, None, u64::MAX).doomed(&[1, 2]), [0; 0]);
    assert_eq!(Retention::new(one, None, 0).doomed(&[]), [0; 0]);
}
