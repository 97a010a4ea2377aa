//! What can go wrong with the spool's file, by name.
//!
//! Invariant: every error names the file, and a full disk, a damaged file and a locked one are told
//! apart from the rest.

use crate::disk::DiskError;
use octet_proto::GroupIndex;
use rusqlite::ErrorCode;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why the spool could not be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// No space left, or another fault of the file system.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file is no spool, or is damaged.
    #[error("expected a whole spool in {}, found damage: {reason}; restore the file, or move it and the checkpoints away and start again", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Somebody else holds the file.
    #[error("{} is locked by another program; close what has it open for writing, and resume", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file system cannot do write-ahead logging.
    #[error("expected SQLite's write-ahead log for {}, found journal mode \"{mode}\"; put the run directory on a local file system", path.display())]
    NoLog {
        /// The file.
        path: PathBuf,
        /// The journal mode that SQLite offered instead.
        mode: String,
    },
    /// A spool of another build, or another program's database.
    #[error("expected spool version {expected} in {}, found {found}; use the build that made it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// This build's version.
        expected: i64,
        /// The file's.
        found: i64,
    },
    /// Groups that should be there are not.
    #[error("expected all of the groups {} to {} in {}, found {missing} missing, the first is {first}", range.start, range.end.get().saturating_sub(1), path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        range: Range<GroupIndex>,
        /// The first that is missing.
        first: GroupIndex,
        /// How many are missing.
        missing: u64,
    },
    /// Anything else that SQLite says.
    #[error("cannot {action} {}: {source}", path.display())]
    Sqlite {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// SQLite's own words.
        source: rusqlite::Error,
    },
}

impl SpoolError {
    /// Puts path and intention to SQLite's error; `bytes` is what was to be written.
    pub(super) fn new(
        action: &'static str,
        path: &Path,
        bytes: u64,
        source: rusqlite::Error,
    ) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => DiskError::Full { path, bytes }.into(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt { path, reason: source.to_string() }
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { path },
            _ => Self::Sqlite { action, path, source },
        }
    }
}
