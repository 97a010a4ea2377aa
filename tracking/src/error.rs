//! What can be wrong before a run is tracked. What goes wrong later is told, and stops nothing.

use std::path::{Path, PathBuf};

/// A tracker that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TrackingError {
    /// A key of `[tracking]` that does not hold.
    #[error("`tracking.{key}`: expected {expected}, found {found}")]
    Key {
        /// The key.
        key: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A variable of the environment that does not hold.
    #[error("{variable}: expected {expected}, found {found}")]
    Variable {
        /// The variable.
        variable: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A file that cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Disk {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The journal.
    #[error("cannot {action} the tracking journal {}: {source}", path.display())]
    Journal {
        /// What was tried, as a verb.
        action: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A journal of another version of octet, or no journal.
    #[error("{}: expected a tracking journal of version {expected}, found {found}; send it with the octet that wrote it, or move it away: it is made anew", path.display())]
    Version {
        /// Where it is.
        path: PathBuf,
        /// The version that this program writes.
        expected: i64,
        /// What it is.
        found: String,
    },
    /// A file of the run that holds something else.
    #[error("{}{}: expected {expected}, found {found}", path.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: Option<usize>,
        /// What it should hold.
        expected: &'static str,
        /// What is wrong.
        found: String,
    },
}

impl TrackingError {
    pub(crate) fn disk(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Disk { action, path, source }
    }
}
