//! The spool: every scored group of the run, durable before it is acknowledged.
//!
//! Invariants: when [`Spool::append`] returns, its groups are on the disk (write-ahead log, synced at
//! each commit) and survive `kill -9` and a power cut. A group is stored once; delivering it again
//! changes nothing, and is an [`ImpureDuplicate`] unless it is the same to the bit in all that
//! sampling and scoring decide. What is read back is what was stored: each group carries a digest.
//!
//! The file is SQLite and meant to be read while the run goes on: see `schema.sql` for its tables.

mod codec;
mod error;
mod purity;

pub use error::SpoolError;
pub use purity::{Difference, ImpureDuplicate};

use crate::disk;
use crate::group::ScoredGroup;
use octet_proto::GroupIndex;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SCHEMA: &str = include_str!("spool/schema.sql");
/// The version of `schema.sql`, as `PRAGMA user_version` tells it.
const SCHEMA_VERSION: i64 = 1;
/// How long to wait for somebody who reads or writes the file with another tool.
const BUSY: Duration = Duration::from_secs(10);

/// The spool of a run, open for writing. One process at a time writes to it.
#[derive(Debug)]
pub struct Spool {
    connection: Connection,
    path: PathBuf,
}

/// What became of a delivered group that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is new.
    New,
    /// It was there already, the same to the bit.
    Duplicate,
}

/// The answer to one delivered group.
pub type Receipt = Result<Stored, ImpureDuplicate>;

impl Spool {
    /// Opens the spool, or makes an empty one. Recovers what a crash left in the write-ahead log.
    pub fn open(path: &Path) -> Result<Self, SpoolError> {
        let fault = |source| SpoolError::new("open", path, 0, source);
        let connection = Connection::open(path).map_err(fault)?;
        connection.busy_timeout(BUSY).map_err(fault)?;
        let spool = Self { connection, path: path.to_owned() };
        spool.prepare()?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            disk::sync_directory(folder)?;
        }
        Ok(spool)
    }

    /// Opens a spool for reading, also while its learner writes to it.
    ///
    /// # Errors
    /// There is no such file, or it is no spool of this version.
    pub fn read_only(path: &Path) -> Result<Self, SpoolError> {
        let fault = |source| SpoolError::new("open", path, 0, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(fault)?;
        connection.busy_timeout(BUSY).map_err(fault)?;
        let version = |row: &rusqlite::Row<'_>| row.get(0);
        match connection.query_row("PRAGMA user_version", [], version).map_err(fault)? {
            SCHEMA_VERSION => Ok(Self { connection, path: path.to_owned() }),
            found => {
                Err(SpoolError::Version { path: path.to_owned(), expected: SCHEMA_VERSION, found })
            }
        }
    }

    /// Stores the groups in one transaction, and returns once they are durable: one receipt per
    /// group, in their order. An impure duplicate is left out; the others are stored all the same.
    pub fn append(&mut self, groups: &[ScoredGroup]) -> Result<Vec<Receipt>, SpoolError> {
        let bytes = groups.iter().map(codec::bytes).sum();
        let path = self.path.clone();
        let fault = |source| SpoolError::new("append to", &path, bytes, source);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(fault)?;
        let mut receipts = Vec::with_capacity(groups.len());
        for group in groups {
            let stored = load(&transaction, &path, group.group)?;
            receipts.push(match stored {
                Some(stored) => purity::check(&stored, group).map(|()| Stored::Duplicate),
                None => {
                    codec::insert(&transaction, group).map_err(fault)?;
                    Ok(Stored::New)
                }
            });
        }
        transaction.commit().map_err(fault)?;
        Ok(receipts)
    }

    /// The groups of the range that are stored, in order.
    pub fn present(&self, range: Range<GroupIndex>) -> Result<Vec<GroupIndex>, SpoolError> {
        let fault = |source| SpoolError::new("read", &self.path, 0, source);
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT group_index FROM groups WHERE group_index >= ?1 AND group_index < ?2 \
                 ORDER BY group_index",
            )
            .map_err(fault)?;
        let rows = statement
            .query_map(params![integer(range.start.get()), integer(range.end.get())], |row| {
                row.get::<_, i64>(0)
            })
            .map_err(fault)?;
        rows.map(|row| row.map(|index| GroupIndex(index.unsigned_abs())))
            .collect::<Result<_, _>>()
            .map_err(fault)
    }

    /// All groups of the range, in order. It is an error when one is missing.
    pub fn read(&self, range: Range<GroupIndex>) -> Result<Vec<ScoredGroup>, SpoolError> {
        let mut groups = Vec::new();
        for index in self.present(range.clone())? {
            groups.extend(load(&self.connection, &self.path, index)?);
        }
        let expected = range.end.get().saturating_sub(range.start.get());
        if groups.len() as u64 == expected {
            return Ok(groups);
        }
        let gap =
            |(group, index): (&ScoredGroup, u64)| (group.group.get() != index).then_some(index);
        let first = groups.iter().zip(range.start.get()..).find_map(gap);
        Err(SpoolError::Missing {
            path: self.path.clone(),
            first: GroupIndex(first.unwrap_or(range.start.get() + groups.len() as u64)),
            missing: expected - groups.len() as u64,
            range,
        })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn prepare(&self) -> Result<(), SpoolError> {
        let fault = |source| SpoolError::new("open", &self.path, 0, source);
        let mode: String = self
            .connection
            .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
            .map_err(fault)?;
        if mode != "wal" {
            return Err(SpoolError::NoLog { path: self.path.clone(), mode });
        }
        self.connection.execute_batch("PRAGMA synchronous = FULL").map_err(fault)?;
        let version: i64 = self
            .connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(fault)?;
        match version {
            SCHEMA_VERSION => Ok(()),
            // A file without tables, or one whose creation was cut short: nothing is lost.
            0 => self.create().map_err(fault),
            found => Err(SpoolError::Version {
                path: self.path.clone(),
                expected: SCHEMA_VERSION,
                found,
            }),
        }
    }

    fn create(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        ))
    }
}

fn load(
    connection: &Connection,
    path: &Path,
    index: GroupIndex,
) -> Result<Option<ScoredGroup>, SpoolError> {
    let fault = |source| SpoolError::new("read", path, 0, source);
    let row = codec::read(connection, index).optional().map_err(fault)?;
    row.map(|row| {
        row.into_group().map_err(|reason| SpoolError::Corrupt {
            path: path.to_owned(),
            reason: format!("group {index}: {reason}"),
        })
    })
    .transpose()
}

/// SQLite's integers end at `i64::MAX`; groups beyond it are refused when they are made.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
