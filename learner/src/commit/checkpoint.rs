//! One commit, as it lies on the disk.
//!
//! Invariant: a [`Checkpoint`] was just made, or was checked against its own record: number,
//! configuration, and each file's size and digest.

use super::CommitError;
use super::state::{self, RunState};
use crate::adamw::{AdamW, Hyperparameters, TensorSpec};
use octet_proto::ConfigDigest;
use std::path::{Path, PathBuf};

/// A whole commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    path: PathBuf,
    state: RunState,
}

impl Checkpoint {
    pub(super) fn new(path: PathBuf, state: RunState) -> Self {
        Self { path, state }
    }

    pub(super) fn load(path: &Path, step: u64, config: &ConfigDigest) -> Result<Self, CommitError> {
        let state = RunState::read(&path.join(state::FOLDER).join(state::STATE))?;
        let damaged = |reason| CommitError::Damaged { path: path.to_owned(), reason };
        if state.format != state::FORMAT {
            let reason = format!("format {} where this build has {}", state.format, state::FORMAT);
            return Err(damaged(reason));
        }
        if state.committed_steps != step || state.metrics.step != step {
            return Err(damaged(format!("the commit of step {}", state.committed_steps)));
        }
        if state.config_digest != *config {
            return Err(CommitError::Config {
                path: path.to_owned(),
                expected: config.to_string(),
                found: state.config_digest.to_string(),
            });
        }
        let found = state::digests(path)?;
        for (name, expected) in &state.files {
            match found.get(name) {
                Some(found) if found == expected => {}
                Some(found) => {
                    return Err(damaged(format!(
                        "{name} with {} bytes and BLAKE3 {} where {} bytes and {} were committed",
                        found.bytes, found.blake3, expected.bytes, expected.blake3
                    )));
                }
                None => return Err(damaged(format!("no {name}"))),
            }
        }
        Ok(Self::new(path.to_owned(), state))
    }

    /// The directory: a Hugging Face checkpoint.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the commit says about itself.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// The optimiser as it was committed.
    pub fn optimizer(
        &self,
        hyperparameters: Hyperparameters,
        specs: Vec<TensorSpec>,
    ) -> Result<AdamW, CommitError> {
        let path = self.path.join(state::FOLDER).join(state::OPTIMIZER);
        AdamW::read(&path, hyperparameters, specs).map_err(CommitError::Optimizer)
    }

    /// Whether the weights that were loaded from here are the ones that were committed.
    pub fn check_weights(&self, digest: &str) -> Result<(), CommitError> {
        if self.state.weights_digest == digest {
            return Ok(());
        }
        Err(CommitError::Weights {
            path: self.path.clone(),
            expected: self.state.weights_digest.clone(),
            found: digest.to_owned(),
        })
    }
}
