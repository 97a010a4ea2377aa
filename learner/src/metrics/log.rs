//! `metrics.jsonl`: the lines of the committed steps, no more and no fewer.
//!
//! Invariant: after [`MetricsLog::resume`] the file ends with the last committed step. Lines beyond
//! it, and a line torn by a crash, are cut off; a line that the crash kept from being written is
//! restored from the commit, which holds the same record.

use super::StepMetrics;
use crate::disk::{self, DiskError};
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// The file, open for the next step's line.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    last: Option<u64>,
}

/// What resuming did to the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Lines that stayed.
    pub kept: usize,
    /// Lines cut off, a torn one included.
    pub dropped: usize,
    /// Whether the last commit's line was missing and was written again.
    pub restored: bool,
}

/// Why the metrics could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The file system.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A line in the middle that is no record of a step.
    #[error("{}, line {line}: expected a step's metrics, found something else: {reason}; mend the line, or move the file away to go on without the history", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A step that does not follow the one before.
    #[error("{}: expected the metrics of step {expected} next, found step {found}; move the file away to go on without the history", path.display())]
    Order {
        /// The file.
        path: PathBuf,
        /// The step after the last.
        expected: u64,
        /// The step found, or given.
        found: u64,
    },
}

/// A line's text with its end in the file, and what it says where it could be read.
struct Line {
    end: u64,
    record: Result<StepMetrics, String>,
}

impl MetricsLog {
    /// Opens the file of a run whose last commit wrote `committed`; `None` when nothing was
    /// committed yet.
    pub fn resume(
        path: &Path,
        committed: Option<&StepMetrics>,
    ) -> Result<(Self, Resumed), MetricsError> {
        let lines = lines(path)?;
        let limit = committed.map_or(0, |record| record.step);
        let mut resumed = Resumed::default();
        let mut log = Self { path: path.to_owned(), file: open(path)?, last: None };
        let mut end = 0;
        for (index, line) in lines.iter().enumerate() {
            match &line.record {
                Ok(record) if record.step <= limit => {
                    log.follow(record.step)?;
                    end = line.end;
                    resumed.kept += 1;
                }
                Ok(_) => break,
                // The last line may be torn; any other was damaged by something else.
                Err(_) if index + 1 == lines.len() => break,
                Err(reason) => {
                    let (path, reason) = (path.to_owned(), reason.clone());
                    return Err(MetricsError::Line { path, line: index + 1, reason });
                }
            }
        }
        resumed.dropped = lines.len() - resumed.kept;
        log.cut(end)?;
        if let Some(record) = committed.filter(|record| log.last != Some(record.step)) {
            log.append(record)?;
            resumed.restored = true;
        }
        Ok((log, resumed))
    }

    /// Appends the line of the step that was just committed, durably.
    pub fn append(&mut self, record: &StepMetrics) -> Result<(), MetricsError> {
        self.follow(record.step)?;
        let mut line = serde_json::to_string(record).map_err(|error| MetricsError::Line {
            path: self.path.clone(),
            line: 0,
            reason: error.to_string(),
        })?;
        line.push('\n');
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(|source| DiskError::new("write", &self.path, line.len() as u64, source).into())
    }

    fn follow(&mut self, step: u64) -> Result<(), MetricsError> {
        if let Some(expected) = self.last.map(|last| last + 1)
            && step != expected
        {
            return Err(MetricsError::Order { path: self.path.clone(), expected, found: step });
        }
        self.last = Some(step);
        Ok(())
    }

    fn cut(&self, end: u64) -> Result<(), DiskError> {
        self.file
            .set_len(end)
            .and_then(|()| self.file.sync_all())
            .map_err(|source| DiskError::new("truncate", &self.path, 0, source))
    }
}

/// All records of a file, for plots and summaries.
pub fn read(path: &Path) -> Result<Vec<StepMetrics>, MetricsError> {
    let fault = |line, reason| MetricsError::Line { path: path.to_owned(), line, reason };
    let records = lines(path)?.into_iter().enumerate();
    records.map(|(index, line)| line.record.map_err(|reason| fault(index + 1, reason))).collect()
}

fn open(path: &Path) -> Result<File, DiskError> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| DiskError::new("open", path, 0, source))?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => disk::sync_directory(parent)?,
        _ => {}
    }
    Ok(file)
}

fn lines(path: &Path) -> Result<Vec<Line>, DiskError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(DiskError::new("read", path, 0, error)),
    };
    let mut end = 0;
    let pieces = bytes.split_inclusive(|byte| *byte == b'\n');
    let line = |piece: &[u8]| {
        end += piece.len() as u64;
        let record = match piece.strip_suffix(b"\n") {
            Some(text) => serde_json::from_slice(text).map_err(|error| error.to_string()),
            None => Err("it has no end".to_owned()),
        };
        Line { end, record }
    };
    Ok(pieces.map(line).collect())
}
