//! Why a step could not be committed, or a commit not be read.
//!
//! Invariant: a digest that does not match is told with both values; a full disk is told as such,
//! whoever was writing.

use crate::adamw::StateError;
use crate::disk::{DiskError, caused_by_full_disk};
use std::error::Error;
use std::path::{Path, PathBuf};

/// A commit that failed, or one that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The file system.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The policy could not write itself.
    #[error("cannot write the policy to {}: {source}", path.display())]
    Policy {
        /// The directory.
        path: PathBuf,
        /// The policy's error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The optimiser's state.
    #[error(transparent)]
    Optimizer(StateError),
    /// The step was committed before.
    #[error("expected no commit at {} yet, found one; resume from it instead of training the step again", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// Another process owns the run directory.
    #[error("{} is held by another process: a run is going on in this directory; stop it, or choose another with --out", path.display())]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// The directory is no whole commit. A crash cannot cause that.
    #[error("expected a whole commit in {}, found {reason}; remove the directory to resume from the one before", path.display())]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The commit of another configuration.
    #[error("expected configuration {expected} in {}, found {found}; use the run's own configuration, or start a new run with --out", path.display())]
    Config {
        /// The directory.
        path: PathBuf,
        /// This run's digest.
        expected: String,
        /// The commit's.
        found: String,
    },
    /// Weights that are not the ones that were committed.
    #[error("expected weights {expected} in {}, found {found}; remove the directory to resume from the one before", path.display())]
    Weights {
        /// The directory.
        path: PathBuf,
        /// The commit's digest.
        expected: String,
        /// The digest of what was loaded.
        found: String,
    },
}

impl CommitError {
    pub(super) fn policy(path: &Path, bytes: u64, source: Box<dyn Error + Send + Sync>) -> Self {
        let path = path.to_owned();
        if caused_by_full_disk(source.as_ref()) {
            DiskError::Full { path, bytes }.into()
        } else {
            Self::Policy { path, source }
        }
    }

    pub(super) fn optimizer(error: StateError, path: &Path, bytes: u64) -> Self {
        match error {
            // The whole commit has to fit, not the file alone.
            StateError::Disk(DiskError::Full { .. }) => {
                DiskError::Full { path: path.to_owned(), bytes }.into()
            }
            other => Self::Optimizer(other),
        }
    }
}
