//! Writing so that it is still there after a power cut, and errors that say where.
//!
//! Invariant: a full disk is told apart from every other fault, with the path and the bytes that
//! were to be written.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A file or directory that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// No space left.
    #[error("no space left while writing {}: {bytes} bytes were to be written; free that much and resume, what was committed before is whole", path.display())]
    Full {
        /// What was being written.
        path: PathBuf,
        /// How many bytes were to be written.
        bytes: u64,
    },
    /// Anything else.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl DiskError {
    /// Puts the path and the intention to a system error; `bytes` is what was to be written.
    pub(crate) fn new(action: &'static str, path: &Path, bytes: u64, source: io::Error) -> Self {
        let path = path.to_owned();
        if is_full(&source) {
            Self::Full { path, bytes }
        } else {
            Self::Io { action, path, source }
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether a full disk is at the bottom of an error.
pub(crate) fn caused_by_full_disk(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(is_full)
            || matches!(error.downcast_ref(), Some(DiskError::Full { .. }))
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Writes a file whole and to the disk.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let fault = |source| DiskError::new("write", path, bytes.len() as u64, source);
    let mut file = File::create(path).map_err(fault)?;
    file.write_all(bytes).map_err(fault)?;
    file.sync_all().map_err(fault)
}

/// Makes a directory's entries durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), DiskError> {
    // Elsewhere a directory cannot be opened as a file, and a rename is durable by itself.
    if cfg!(unix) {
        File::open(path)
            .and_then(|directory| directory.sync_all())
            .map_err(|source| DiskError::new("sync", path, 0, source))?;
    }
    Ok(())
}

/// Makes all below a directory durable, files before the directories that name them.
pub(crate) fn sync_tree(path: &Path) -> Result<(), DiskError> {
    for entry in entries(path)? {
        if entry.is_dir() {
            sync_tree(&entry)?;
        } else {
            File::options()
                .read(true)
                .write(true)
                .open(&entry)
                .and_then(|file| file.sync_all())
                .map_err(|source| DiskError::new("sync", &entry, 0, source))?;
        }
    }
    sync_directory(path)
}

/// A directory's entries, sorted.
pub(crate) fn entries(path: &Path) -> Result<Vec<PathBuf>, DiskError> {
    let fault = |source| DiskError::new("list", path, 0, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(fault)? {
        found.push(entry.map_err(fault)?.path());
    }
    found.sort();
    Ok(found)
}
