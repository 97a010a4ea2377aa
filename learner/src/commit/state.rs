//! `octet/state.json`: what a commit says about itself.
//!
//! Invariant: it names every other file of the directory with its size and BLAKE3, so a commit that
//! was damaged later is found before it is used.

use super::CommitError;
use crate::disk::{self, DiskError};
use crate::metrics::StepMetrics;
use octet_proto::{ConfigDigest, GroupIndex};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub(super) const FOLDER: &str = "octet";
pub(super) const OPTIMIZER: &str = "optimizer.safetensors";
pub(super) const STATE: &str = "state.json";
pub(super) const FORMAT: u32 = 1;
/// Enough for BLAKE3 to spread over the cores.
const BLOCK: usize = 4 << 20;

/// The run as it was when the step was committed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// The version of this file.
    pub format: u32,
    /// Steps committed, so the policy version that lies beside.
    pub committed_steps: u64,
    /// The first group that the last step consumed.
    pub first_group: GroupIndex,
    /// The first group that no step has consumed.
    pub next_group: GroupIndex,
    /// The digest of the run's resolved configuration.
    pub config_digest: ConfigDigest,
    /// The digest of the weights, hex.
    pub weights_digest: String,
    /// The directory's other files, by their path in it.
    pub files: BTreeMap<String, FileDigest>,
    /// The record of the last step.
    pub metrics: StepMetrics,
}

/// What a file must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Its size.
    pub bytes: u64,
    /// Its BLAKE3, hex.
    pub blake3: String,
}

impl RunState {
    /// What the commit in that directory says about itself; its files are not compared with it.
    ///
    /// # Errors
    /// The directory is no commit, or its record cannot be read.
    pub fn of(checkpoint: &Path) -> Result<Self, CommitError> {
        Self::read(&checkpoint.join(FOLDER).join(STATE))
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), CommitError> {
        let text = serde_json::to_vec_pretty(self).map_err(|error| damaged(path, error))?;
        Ok(disk::write(path, &text)?)
    }

    pub(super) fn read(path: &Path) -> Result<Self, CommitError> {
        let text = std::fs::read(path).map_err(|error| damaged(path, error))?;
        serde_json::from_slice(&text).map_err(|error| damaged(path, error))
    }
}

fn damaged(path: &Path, reason: impl std::fmt::Display) -> CommitError {
    let reason = format!("an unusable {}: {reason}", path.display());
    let folder = path.parent().and_then(Path::parent).unwrap_or(path);
    CommitError::Damaged { path: folder.to_owned(), reason }
}

/// The digests of all files below a directory.
pub(super) fn digests(folder: &Path) -> Result<BTreeMap<String, FileDigest>, DiskError> {
    let mut found = BTreeMap::new();
    collect(folder, "", &mut found)?;
    Ok(found)
}

fn collect(
    folder: &Path,
    prefix: &str,
    found: &mut BTreeMap<String, FileDigest>,
) -> Result<(), DiskError> {
    for entry in disk::entries(folder)? {
        let name = format!("{prefix}{}", super::name(&entry));
        if entry.is_dir() {
            collect(&entry, &format!("{name}/"), found)?;
        } else {
            found.insert(name, digest(&entry)?);
        }
    }
    Ok(())
}

fn digest(path: &Path) -> Result<FileDigest, DiskError> {
    let fault = |source| DiskError::new("read", path, 0, source);
    let mut file = File::open(path).map_err(fault)?;
    let mut hasher = blake3::Hasher::new();
    let mut block = Vec::with_capacity(BLOCK);
    loop {
        block.clear();
        file.by_ref().take(BLOCK as u64).read_to_end(&mut block).map_err(fault)?;
        if block.is_empty() {
            break;
        }
        hasher.update_rayon(&block);
    }
    Ok(FileDigest { bytes: hasher.count(), blake3: hasher.finalize().to_hex().to_string() })
}
