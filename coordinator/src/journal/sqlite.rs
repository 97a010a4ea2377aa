//! The journal as a SQLite file that anybody can open and read.
//!
//! Invariant: every write is one transaction with `synchronous = FULL`, and happens only while the
//! file still names this coordinator as its last opener.

use std::path::{Path, PathBuf};
use std::time::Duration;

use octet_proto::{ConfigDigest, RevisionNumber, StepIndex};
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};

use super::{Journal, JournalError};
use crate::machine::{Record, Recovered, Revision};

#[cfg(test)]
mod tests;

/// Says "octet" to `file` and to whoever opens the file.
const APPLICATION_ID: i64 = 0x6f63_7465;
/// The version of the tables below.
const FORMAT: i64 = 1;
/// How long a reader of the file may hold up a write.
const BUSY: Duration = Duration::from_secs(5);

const TABLES: &str = "
    CREATE TABLE run (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        run_id TEXT NOT NULL,
        config_digest TEXT NOT NULL,
        openings INTEGER NOT NULL,           -- how many coordinators have led the run
        ids_below INTEGER NOT NULL,          -- ids and lease epochs below this may be in use
        steps_leased_below INTEGER NOT NULL  -- the reward revision of steps below this is settled
    );
    CREATE TABLE reward_revision (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        digest TEXT NOT NULL,
        endpoints TEXT NOT NULL,             -- a JSON list
        from_step INTEGER NOT NULL
    );";

/// One row once every step was committed. Apart from the other tables, so that a journal that was begun
/// before it was thought of can be gone on with.
const COMPLETION: &str =
    "CREATE TABLE IF NOT EXISTS completion (one INTEGER PRIMARY KEY CHECK (one = 1));";

/// A journal in a SQLite file.
#[derive(Debug)]
pub struct SqliteJournal {
    connection: Connection,
    path: PathBuf,
    /// Which opening of the file this is.
    opening: i64,
}

impl SqliteJournal {
    /// Opens the journal of a run, or begins one, and fences whoever had it open before.
    ///
    /// # Errors
    /// The file cannot be written, is damaged or something else, or belongs to another run.
    pub fn open(
        path: &Path,
        run_id: &str,
        digest: &ConfigDigest,
    ) -> Result<(Self, Recovered), JournalError> {
        let failed =
            |action| move |source| JournalError::Sqlite { action, path: path.to_owned(), source };
        let mut connection = Connection::open(path).map_err(failed("open"))?;
        check_kind(&connection, path)?;
        connection.busy_timeout(BUSY).map_err(failed("open"))?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed("open"))?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed("open"))?;
        let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = begun.map_err(failed("open"))?;
        create(&transaction, run_id, digest).map_err(failed("create"))?;
        check_run(&transaction, path, run_id, digest)?;
        let sql = "UPDATE run SET openings = openings + 1 RETURNING openings";
        let opening = transaction.query_row(sql, [], |row| row.get(0)).map_err(failed("open"))?;
        let recovered = recover(&transaction, path)?;
        transaction.commit().map_err(failed("open"))?;
        Ok((Self { connection, path: path.to_owned(), opening }, recovered))
    }
}

/// The reward revisions of a run's journal with the step that each takes effect from, by number, and the
/// first step that was never leased. Fences nobody: the run may go on meanwhile.
///
/// # Errors
/// There is no such file, it is something else, or it is damaged.
pub fn read_revisions(
    path: &Path,
) -> Result<(Vec<(Revision, StepIndex)>, StepIndex), JournalError> {
    let failed = |source| JournalError::Sqlite { action: "read", path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    check_kind(&connection, path)?;
    let transaction = connection.transaction().map_err(failed)?;
    let Recovered { revisions, steps_leased_below, .. } = recover(&transaction, path)?;
    Ok((revisions, steps_leased_below))
}

impl Journal for SqliteJournal {
    fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        if records.is_empty() {
            return Ok(());
        }
        let path = &self.path;
        let failed = |source| JournalError::Sqlite { action: "write", path: path.clone(), source };
        let begun = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = begun.map_err(failed)?;
        let sql = "SELECT openings FROM run";
        let last: i64 = transaction.query_row(sql, [], |row| row.get(0)).map_err(failed)?;
        if last != self.opening {
            return Err(JournalError::TakenOver { path: path.clone() });
        }
        for record in records {
            write(&transaction, record).map_err(failed)?;
        }
        transaction.commit().map_err(failed)
    }
}

/// Refuses a file that holds anything but a journal of this format.
fn check_kind(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let foreign = |found: String| JournalError::Foreign { path: path.to_owned(), found };
    let not_sqlite = |error: rusqlite::Error| foreign(error.to_string());
    let (id, format) = (
        pragma("application_id").map_err(not_sqlite)?,
        pragma("user_version").map_err(not_sqlite)?,
    );
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(not_sqlite)?;
    match (id, format, tables) {
        (0, 0, 0) | (APPLICATION_ID, FORMAT, _) => Ok(()),
        (APPLICATION_ID, other, _) => Err(foreign(format!(
            "it has format {other}, this build reads format {FORMAT}: use the build that wrote it"
        ))),
        _ => Err(foreign(format!("a SQLite file of another application (id {id})"))),
    }
}

fn create(transaction: &Transaction<'_>, run: &str, digest: &ConfigDigest) -> rusqlite::Result<()> {
    let begun = transaction.table_exists(None, "run")?;
    transaction.execute_batch(COMPLETION)?;
    if begun {
        return Ok(());
    }
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction
        .execute("INSERT INTO run VALUES (1, ?1, ?2, 0, 0, 0)", params![run, digest.as_str()])?;
    Ok(())
}

fn check_run(
    transaction: &Transaction<'_>,
    path: &Path,
    run_id: &str,
    digest: &ConfigDigest,
) -> Result<(), JournalError> {
    let found = transaction
        .query_row("SELECT run_id, config_digest FROM run", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })
        .optional()
        .map_err(|error| damaged(path, error.to_string()))?;
    match found {
        None => Err(damaged(path, "it names no run".into())),
        Some((found_run, found_digest)) => {
            if found_run == run_id && found_digest == digest.as_str() {
                return Ok(());
            }
            Err(JournalError::OtherRun {
                path: path.to_owned(),
                expected_run: run_id.to_owned(),
                expected_digest: digest.clone(),
                found_run,
                found_digest: ConfigDigest::new(found_digest),
            })
        }
    }
}

fn recover(transaction: &Transaction<'_>, path: &Path) -> Result<Recovered, JournalError> {
    let unread = |error: rusqlite::Error| damaged(path, error.to_string());
    let count = |number: i64| {
        u64::try_from(number).map_err(|_| damaged(path, format!("a count of {number}")))
    };
    let sql = "SELECT ids_below, steps_leased_below FROM run";
    let (ids, steps) =
        transaction.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).map_err(unread)?;
    let mut recovered = Recovered {
        ids_below: count(ids)?,
        steps_leased_below: StepIndex(count(steps)?),
        revisions: Vec::new(),
        complete: transaction.table_exists(None, "completion").map_err(unread)?
            && transaction
                .query_row("SELECT count(*) FROM completion", [], |row| row.get::<_, i64>(0))
                .map_err(unread)?
                > 0,
    };
    let sql = "SELECT number, name, digest, endpoints, from_step FROM reward_revision
        ORDER BY number";
    let mut statement = transaction.prepare(sql).map_err(unread)?;
    let rows = statement.query_map([], |row| {
        let texts: (String, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
        Ok((row.get::<_, i64>(0)?, texts, row.get::<_, i64>(4)?))
    });
    for row in rows.map_err(unread)? {
        let (number, (name, digest, endpoints), from_step) = row.map_err(unread)?;
        let endpoints = serde_json::from_str(&endpoints).map_err(|error| {
            damaged(path, format!("endpoints of reward revision {number}: {error}"))
        })?;
        let revision = Revision { number: RevisionNumber(count(number)?), name, digest, endpoints };
        recovered.revisions.push((revision, StepIndex(count(from_step)?)));
    }
    Ok(recovered)
}

fn write(transaction: &Transaction<'_>, record: &Record) -> rusqlite::Result<()> {
    // Ids, steps and revisions count from 0 or 1 upwards and a plan's groups fit a signed integer.
    match record {
        Record::IdsReserved { below } => {
            transaction.execute("UPDATE run SET ids_below = ?1", [*below as i64])
        }
        Record::StepsLeased { below } => {
            transaction.execute("UPDATE run SET steps_leased_below = ?1", [below.get() as i64])
        }
        Record::RevisionBound { revision, from_step } => {
            let endpoints = serde_json::Value::from(revision.endpoints.clone()).to_string();
            transaction.execute(
                "INSERT OR REPLACE INTO reward_revision VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    revision.number.get() as i64,
                    revision.name,
                    revision.digest,
                    endpoints,
                    from_step.get() as i64
                ],
            )
        }
        Record::RunCompleted => {
            transaction.execute("INSERT OR REPLACE INTO completion VALUES (1)", [])
        }
    }?;
    Ok(())
}

fn damaged(path: &Path, found: String) -> JournalError {
    JournalError::Damaged { path: path.to_owned(), found }
}
