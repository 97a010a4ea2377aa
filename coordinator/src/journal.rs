//! The coordinator's journal: what survives its restart.
//!
//! Invariants: a record is on the disk when [`Journal::append`] returns, all of a call or none; a
//! journal belongs to one run, and to the coordinator that opened it last.

mod sqlite;

use std::path::PathBuf;

use octet_proto::ConfigDigest;

use crate::machine::Record;

pub use sqlite::{SqliteJournal, read_revisions};

/// Where records are written down.
pub trait Journal: Send + 'static {
    /// Makes `records` durable, all or none.
    ///
    /// # Errors
    /// They are not durable; what depends on them must not be acknowledged.
    fn append(&mut self, records: &[Record]) -> Result<(), JournalError>;
}

/// Why there is no journal, or why it could not be written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// SQLite refuses.
    #[error("cannot {action} the journal {}: {source}: check that the disk has room and the file may be written", path.display())]
    Sqlite {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The file is something else.
    #[error("{} is not a coordinator's journal: {found}: choose another run directory", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// The file is damaged.
    #[error("the journal {} is damaged: {found}: restore it from a copy, or begin a new run", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// The journal is of another run.
    #[error(
        "the journal {} belongs to run {found_run} with configuration {found_digest}, expected run {expected_run} with {expected_digest}: resume with that configuration, or choose another run directory",
        path.display()
    )]
    OtherRun {
        /// The file.
        path: PathBuf,
        /// The run that was to be opened.
        expected_run: String,
        /// Its digest.
        expected_digest: ConfigDigest,
        /// The run in the file.
        found_run: String,
        /// Its digest.
        found_digest: ConfigDigest,
    },
    /// Another coordinator opened the journal.
    #[error("another coordinator has opened the journal {}: only one may lead a run, so this one ends", path.display())]
    TakenOver {
        /// The file.
        path: PathBuf,
    },
}
