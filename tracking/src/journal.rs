//! The journal: what is tracked of a run, on the disk before it is sent anywhere, and what servers have of it.
//!
//! Invariants: when [`Journal::append`] returns, its events survive `kill -9` and a power cut. An event with a key
//! is there once, however often it is appended, with the time of the first. Events are never changed or removed.
//! The file is SQLite, see `schema.sql`; it grows with the run's own metrics and with nothing else.

use crate::error::TrackingError;
use crate::event::{Entry, Event};
use crate::outbox::{Position, SetAside};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(test)]
mod tests;

/// The journal's name in the run directory.
pub const JOURNAL_FILE: &str = "tracking.sqlite";

const SCHEMA: &str = include_str!("journal/schema.sql");
/// The version of `schema.sql`, as `PRAGMA user_version` tells it.
const SCHEMA_VERSION: i64 = 1;
/// How long to wait for the other thread, or for somebody with another tool.
const BUSY: Duration = Duration::from_secs(10);

/// A run's journal. Each thread opens its own.
#[derive(Debug)]
pub struct Journal {
    connection: Connection,
    path: PathBuf,
}

/// Which server, and which of its experiments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The server's address.
    pub url: String,
    /// The experiment's name.
    pub experiment: String,
}

/// What a server calls the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The experiment.
    pub experiment_id: String,
    /// The experiment's parent run.
    pub parent_id: String,
    /// The run.
    pub run_id: String,
    /// Where its files are.
    pub artifact_uri: String,
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Journal {
    /// Opens the journal of the run `run_id` in its directory, or begins one.
    ///
    /// # Errors
    /// The file cannot be written, or is no journal of this version.
    pub fn open(directory: &Path, run_id: &str) -> Result<Self, TrackingError> {
        let path = directory.join(JOURNAL_FILE);
        let fault = |source| TrackingError::Journal { action: "open", path: path.clone(), source };
        let mut connection = Connection::open(&path).map_err(fault)?;
        connection.busy_timeout(BUSY).map_err(fault)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(fault)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(fault)?;
        let begun =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fault)?;
        let version: i64 =
            begun.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(fault)?;
        let tables: i64 = begun
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(fault)?;
        match (version, tables) {
            (SCHEMA_VERSION, _) => {}
            (0, 0) => {
                begun.execute_batch(SCHEMA).map_err(fault)?;
                begun.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(fault)?;
                let key = new_key(run_id);
                begun.execute("INSERT INTO journal (key) VALUES (?1)", [key]).map_err(fault)?;
            }
            (found, _) => {
                let (path, expected) = (path.clone(), SCHEMA_VERSION);
                let found = if found == 0 { "another database".into() } else { found.to_string() };
                return Err(TrackingError::Version { path, expected, found });
            }
        }
        begun.commit().map_err(fault)?;
        Ok(Self { connection, path })
    }

    /// Appends events, each with the key under which it is there once, if it has one; how many were new.
    ///
    /// # Errors
    /// The disk: nothing was appended then.
    pub fn append(
        &mut self,
        at_ms: i64,
        events: &[(Option<String>, Event)],
    ) -> Result<usize, TrackingError> {
        let path = self.path.clone();
        let fault =
            |source| TrackingError::Journal { action: "append to", path: path.clone(), source };
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(fault)?;
        let mut new = 0;
        for (key, event) in events.iter().filter(|(_, event)| event.items() > 0) {
            let body = serde_json::to_string(event)
                .map_err(|error| fault(rusqlite::Error::ToSqlConversionFailure(error.into())))?;
            new += transaction
                .execute(
                    "INSERT OR IGNORE INTO events (key, at, body) VALUES (?1, ?2, ?3)",
                    params![key, at_ms, body],
                )
                .map_err(fault)?;
        }
        transaction.commit().map_err(fault)?;
        Ok(new)
    }

    /// Whether there is an event with this key.
    ///
    /// # Errors
    /// The disk.
    pub fn has(&self, key: &str) -> Result<bool, TrackingError> {
        let found = self.connection.query_row(
            "SELECT EXISTS (SELECT 1 FROM events WHERE key = ?1)",
            [key],
            |row| row.get(0),
        );
        found.map_err(self.reading())
    }

    /// At most so many events from `first` on, in their order.
    ///
    /// # Errors
    /// The disk, or an event that this version cannot read.
    pub fn entries(&self, first: i64, most: usize) -> Result<Vec<Entry>, TrackingError> {
        let sql = "SELECT id, at, body FROM events WHERE id >= ?1 ORDER BY id LIMIT ?2";
        let mut statement = self.connection.prepare_cached(sql).map_err(self.reading())?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![first, most], entry).map_err(self.reading())?;
        rows.collect::<Result<_, _>>().map_err(self.reading())
    }

    /// How many events there are from `first` on.
    ///
    /// # Errors
    /// The disk.
    pub fn count(&self, first: i64) -> Result<u64, TrackingError> {
        let sql = "SELECT count(*) FROM events WHERE id >= ?1";
        let count = self.connection.query_row(sql, [first], |row| row.get::<_, i64>(0));
        count.map(i64::unsigned_abs).map_err(self.reading())
    }

    /// The last event that says how the run stands.
    ///
    /// # Errors
    /// The disk.
    pub fn last_status(&self) -> Result<Option<Event>, TrackingError> {
        let sql = "SELECT id, at, body FROM events \
                   WHERE json_extract(body, '$.kind') = 'status' ORDER BY id DESC LIMIT 1";
        let found = self.connection.query_row(sql, [], entry).optional();
        Ok(found.map_err(self.reading())?.map(|entry| entry.event))
    }

    /// What names the journal for servers.
    ///
    /// # Errors
    /// The disk.
    pub fn key(&self) -> Result<String, TrackingError> {
        let key = self.connection.query_row("SELECT key FROM journal", [], |row| row.get(0));
        key.map_err(self.reading())
    }

    fn reading(&self) -> impl Fn(rusqlite::Error) -> TrackingError + '_ {
        |source| TrackingError::Journal { action: "read", path: self.path.clone(), source }
    }

    fn writing(&self) -> impl Fn(rusqlite::Error) -> TrackingError + '_ {
        |source| TrackingError::Journal { action: "write to", path: self.path.clone(), source }
    }
}

/// What servers have.
impl Journal {
    /// How far a server is, and what it calls the run, where it has said so.
    ///
    /// # Errors
    /// The disk.
    pub fn server(&self, target: &Target) -> Result<(Option<Bound>, Position), TrackingError> {
        let sql = "SELECT experiment_id, parent_id, run_id, artifact_uri, event, item \
                   FROM servers WHERE url = ?1 AND experiment = ?2";
        let found = self.connection.query_row(sql, [&target.url, &target.experiment], |row| {
            let bound = match (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?) {
                (Some(experiment_id), Some(parent_id), Some(run_id), Some(artifact_uri)) => {
                    Some(Bound { experiment_id, parent_id, run_id, artifact_uri })
                }
                _ => None,
            };
            let item: i64 = row.get(5)?;
            let item = usize::try_from(item).unwrap_or_default();
            Ok((bound, Position { event: row.get(4)?, item }))
        });
        let found = found.optional().map_err(self.reading())?;
        Ok(found.unwrap_or((None, Position::START)))
    }

    /// Remembers what a server calls the run.
    ///
    /// # Errors
    /// The disk.
    pub fn bind(&self, target: &Target, bound: &Bound) -> Result<(), TrackingError> {
        let sql = "INSERT INTO servers (url, experiment, experiment_id, parent_id, run_id, artifact_uri) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (url, experiment) DO UPDATE SET \
                   experiment_id = ?3, parent_id = ?4, run_id = ?5, artifact_uri = ?6";
        let Bound { experiment_id, parent_id, run_id, artifact_uri } = bound;
        let (url, experiment) = (&target.url, &target.experiment);
        self.connection
            .execute(sql, [url, experiment, experiment_id, parent_id, run_id, artifact_uri])
            .map(drop)
            .map_err(self.writing())
    }

    /// Remembers how far a server is, and what it refused on the way.
    ///
    /// # Errors
    /// The disk.
    pub fn advance(
        &mut self,
        target: &Target,
        done: Position,
        refused: Option<&SetAside>,
    ) -> Result<(), TrackingError> {
        let path = self.path.clone();
        let fault =
            |source| TrackingError::Journal { action: "write to", path: path.clone(), source };
        let transaction = self.connection.transaction().map_err(fault)?;
        let (url, experiment) = (&target.url, &target.experiment);
        let item = i64::try_from(done.item).unwrap_or(i64::MAX);
        transaction
            .execute(
                "INSERT INTO servers (url, experiment, event, item) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (url, experiment) DO UPDATE SET event = ?3, item = ?4",
                params![url, experiment, done.event, item],
            )
            .map_err(fault)?;
        if let Some(SetAside { at, what, reason }) = refused {
            let item = i64::try_from(at.item).unwrap_or(i64::MAX);
            transaction
                .execute(
                    "INSERT OR REPLACE INTO refused (url, experiment, event, item, what, reason) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![url, experiment, at.event, item, what, reason],
                )
                .map_err(fault)?;
        }
        transaction.commit().map_err(fault)
    }

    /// What a server would not take, and why.
    ///
    /// # Errors
    /// The disk.
    pub fn refused(&self, target: &Target) -> Result<Vec<(String, String)>, TrackingError> {
        let sql = "SELECT what, reason FROM refused WHERE url = ?1 AND experiment = ?2 ORDER BY event, item";
        let mut statement = self.connection.prepare(sql).map_err(self.reading())?;
        let both = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let rows =
            statement.query_map([&target.url, &target.experiment], both).map_err(self.reading())?;
        rows.collect::<Result<_, _>>().map_err(self.reading())
    }

    /// Lets files that a server refused be sent once more, now that somebody may have mended it; how many.
    ///
    /// # Errors
    /// The disk.
    pub fn retry_files(&mut self, target: &Target) -> Result<usize, TrackingError> {
        let path = self.path.clone();
        let fault =
            |source| TrackingError::Journal { action: "write to", path: path.clone(), source };
        let transaction = self.connection.transaction().map_err(fault)?;
        let (url, experiment) = (&target.url, &target.experiment);
        let these = "SELECT event FROM refused JOIN events ON events.id = refused.event \
                     WHERE url = ?1 AND experiment = ?2 AND json_extract(body, '$.kind') = 'artifact'";
        let again = format!(
            "INSERT INTO events (at, body) SELECT at, body FROM events WHERE id IN ({these})"
        );
        let count = transaction.execute(&again, [url, experiment]).map_err(fault)?;
        let gone = format!(
            "DELETE FROM refused WHERE url = ?1 AND experiment = ?2 AND event IN ({these})"
        );
        transaction.execute(&gone, [url, experiment]).map_err(fault)?;
        transaction.commit().map_err(fault)?;
        Ok(count)
    }

    /// Forgets what a server has, and goes by another name from now on: all is sent anew, into a new run.
    ///
    /// # Errors
    /// The disk.
    pub fn forget(&mut self, target: &Target, run_id: &str) -> Result<(), TrackingError> {
        let path = self.path.clone();
        let fault =
            |source| TrackingError::Journal { action: "write to", path: path.clone(), source };
        let transaction = self.connection.transaction().map_err(fault)?;
        for table in ["servers", "refused"] {
            let sql = format!("DELETE FROM {table} WHERE url = ?1 AND experiment = ?2");
            transaction.execute(&sql, [&target.url, &target.experiment]).map_err(fault)?;
        }
        transaction.execute("UPDATE journal SET key = ?1", [new_key(run_id)]).map_err(fault)?;
        transaction.commit().map_err(fault)
    }
}

/// A name that no other journal has: the run, the moment and the process that began it.
fn new_key(run_id: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let run: String = run_id.chars().map(safe).take(100).collect();
    format!("{run}-{:x}-{:x}", now_ms(), std::process::id())
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let body: String = row.get(2)?;
    let event = serde_json::from_str(&body).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, error.into())
    })?;
    Ok(Entry { id: row.get(0)?, at_ms: row.get(1)?, event })
}
