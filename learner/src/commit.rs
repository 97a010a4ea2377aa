//! Commits: a step's weights, optimiser, metrics and consumed range under one atomic rename.
//!
//! ```text
//! RUN/checkpoints/step-000012/          a Hugging Face directory, written by the policy
//! RUN/checkpoints/step-000012/octet/    optimizer.safetensors, state.json
//! ```
//!
//! Invariants: a directory called `step-…` is whole, at any moment and after any crash: it is made
//! under a `.tmp-` name, synced, renamed; and renamed away before it is pruned. The newest commit is
//! the highest `step-…`; nothing else says so, so nothing can disagree. One process owns the
//! directory, by a lock that its death releases.

mod checkpoint;
mod error;
mod retention;
mod state;

pub use checkpoint::Checkpoint;
pub use error::CommitError;
pub use retention::Retention;
pub use state::{FileDigest, RunState};

use crate::adamw::AdamW;
use crate::disk::{self, DiskError};
use crate::metrics::StepMetrics;
use octet_proto::{ConfigDigest, GroupIndex};
use std::error::Error;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

const FOLDER: &str = "checkpoints";
const PREFIX: &str = "step-";
const TEMPORARY: &str = ".tmp-";
const LOCK: &str = ".lock";

/// The checkpoints of a run, owned by this process.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    config: ConfigDigest,
    _lock: File,
}

/// What a step commits, beside the policy.
#[derive(Clone, Debug)]
pub struct StepCommit<'a> {
    /// The groups that the step consumed.
    pub groups: Range<GroupIndex>,
    /// The digest of the weights that are being committed, hex.
    pub weights_digest: &'a str,
    /// About how many bytes the policy takes, for the message of a full disk.
    pub policy_bytes: u64,
    /// The step's record. Its `step` is the number of the commit.
    pub metrics: &'a StepMetrics,
    /// The optimiser after the step.
    pub optimizer: &'a AdamW,
}

/// Where a run has the commit of that number.
pub fn directory(run: &Path, step: u64) -> PathBuf {
    run.join(FOLDER).join(name_of(step))
}

/// The numbers of the commits that a run has now, ascending, for those who only read.
///
/// # Errors
/// The directory cannot be read. One that is not there has no commits.
pub fn steps_of(run: &Path) -> Result<Vec<u64>, CommitError> {
    let folder = run.join(FOLDER);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    Ok(steps_in(&folder)?)
}

fn steps_in(folder: &Path) -> Result<Vec<u64>, DiskError> {
    let entries = disk::entries(folder)?;
    let mut steps: Vec<u64> =
        entries.iter().filter_map(|entry| name(entry).strip_prefix(PREFIX)?.parse().ok()).collect();
    steps.sort_unstable();
    Ok(steps)
}

fn name_of(step: u64) -> String {
    format!("{PREFIX}{step:06}")
}

impl Checkpoints {
    /// Takes the checkpoints of a run directory into possession, and removes what a crash left
    /// half-made.
    pub fn open(run: &Path, config: ConfigDigest) -> Result<Self, CommitError> {
        let folder = run.join(FOLDER);
        fs::create_dir_all(&folder)
            .map_err(|source| DiskError::new("create", &folder, 0, source))?;
        disk::sync_directory(run)?;
        let lock = lock(&folder)?;
        let checkpoints = Self { folder, config, _lock: lock };
        for leftover in disk::entries(&checkpoints.folder)? {
            if name(&leftover).starts_with(TEMPORARY) {
                remove(&leftover)?;
            }
        }
        Ok(checkpoints)
    }

    /// Commits a step. `write_policy` fills the directory it is given with the policy's files.
    ///
    /// On an error nothing was committed, and what was half-made is removed.
    pub fn commit<E: Into<Box<dyn Error + Send + Sync>>>(
        &self,
        commit: &StepCommit<'_>,
        write_policy: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Checkpoint, CommitError> {
        let path = self.path(commit.metrics.step);
        if path.exists() {
            return Err(CommitError::Exists { path });
        }
        let temporary = self.temporary(&path);
        let made = self
            .make(&temporary, commit, write_policy)
            .and_then(|state| Ok((rename(&temporary, &path)?, state)));
        match made {
            Ok(((), state)) => {
                disk::sync_directory(&self.folder)?;
                Ok(Checkpoint::new(path, state))
            }
            Err(error) => {
                // The first error is the one to tell; what cannot be removed now is at the next start.
                let _ = remove(&temporary);
                Err(error)
            }
        }
    }

    /// The numbers of the commits, ascending.
    pub fn steps(&self) -> Result<Vec<u64>, CommitError> {
        Ok(steps_in(&self.folder)?)
    }

    /// The newest commit, checked to the last byte; `None` before the first.
    pub fn latest(&self) -> Result<Option<Checkpoint>, CommitError> {
        self.steps()?.last().map(|step| self.load(*step)).transpose()
    }

    /// The commit of that number, checked to the last byte.
    pub fn load(&self, step: u64) -> Result<Checkpoint, CommitError> {
        Checkpoint::load(&self.path(step), step, &self.config)
    }

    /// Removes the commits that the policy does not keep; returns their numbers.
    pub fn prune(&self, retention: &Retention) -> Result<Vec<u64>, CommitError> {
        let doomed = retention.doomed(&self.steps()?);
        for step in &doomed {
            let path = self.path(*step);
            let temporary = self.temporary(&path);
            rename(&path, &temporary)?;
            disk::sync_directory(&self.folder)?;
            remove(&temporary)?;
        }
        Ok(doomed)
    }

    fn make<E: Into<Box<dyn Error + Send + Sync>>>(
        &self,
        folder: &Path,
        commit: &StepCommit<'_>,
        write_policy: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<RunState, CommitError> {
        let bytes = commit.policy_bytes + commit.optimizer.state_bytes();
        let octet = folder.join(state::FOLDER);
        remove(folder)?;
        fs::create_dir_all(&octet).map_err(|source| DiskError::new("create", &octet, 0, source))?;
        write_policy(folder)
            .map_err(|source| CommitError::policy(folder, commit.policy_bytes, source.into()))?;
        commit
            .optimizer
            .write(&octet.join(state::OPTIMIZER))
            .map_err(|error| CommitError::optimizer(error, folder, bytes))?;
        let state = RunState {
            format: state::FORMAT,
            committed_steps: commit.metrics.step,
            first_group: commit.groups.start,
            next_group: commit.groups.end,
            config_digest: self.config.clone(),
            weights_digest: commit.weights_digest.to_owned(),
            // `state.json` is not there yet, so it does not name itself.
            files: state::digests(folder)?,
            metrics: commit.metrics.clone(),
        };
        state.write(&octet.join(state::STATE))?;
        disk::sync_tree(folder)?;
        Ok(state)
    }

    fn path(&self, step: u64) -> PathBuf {
        self.folder.join(name_of(step))
    }

    fn temporary(&self, path: &Path) -> PathBuf {
        self.folder.join(format!("{TEMPORARY}{}", name(path)))
    }
}

fn lock(folder: &Path) -> Result<File, CommitError> {
    let path = folder.join(LOCK);
    let fault = |source| DiskError::new("lock", &path, 0, source);
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).map_err(fault)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(CommitError::Locked { path }),
        Err(TryLockError::Error(source)) => Err(fault(source).into()),
    }
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn rename(from: &Path, to: &Path) -> Result<(), CommitError> {
    fs::rename(from, to).map_err(|source| DiskError::new("rename", from, 0, source).into())
}

/// Removes a directory and all in it; one that is not there is removed already.
fn remove(path: &Path) -> Result<(), DiskError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(DiskError::new("remove", path, 0, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
