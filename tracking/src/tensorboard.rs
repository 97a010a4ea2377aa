//! Event files for TensorBoard.
//!
//! Invariant: the file is a function of the journal. What is missing is written, and what a crash tore or another
//! program put there is cut off, so each measurement is in it once and a reader that follows it goes on.

mod record;

use crate::error::TrackingError;
use crate::event::{Entry, Event};
use crate::journal::Journal;
use crate::names::Names;
use record::{Message, Summary, Value, framed};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Events that are read from the journal at once.
const PAGE: usize = 256;
/// What every event file begins with.
const FILE_VERSION: &str = "brain.Event:2";

/// The event file of a run.
#[derive(Debug)]
pub struct EventFile {
    file: File,
    path: PathBuf,
    names: Names,
    /// The first event of the journal that is not in the file.
    next: i64,
}

impl EventFile {
    /// Opens the file in `folder`, and brings it up to the journal. Nothing where the journal is empty.
    ///
    /// # Errors
    /// The file cannot be written, or the journal not be read.
    pub fn open(
        folder: &Path,
        run_id: &str,
        names: Names,
        journal: &Journal,
    ) -> Result<Option<Self>, TrackingError> {
        let Some(first) = journal.entries(0, 1)?.pop() else { return Ok(None) };
        std::fs::create_dir_all(folder).map_err(TrackingError::disk("make", folder))?;
        // TensorBoard knows its files by the word; the number is the second of their begin.
        let run: String = run_id
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' })
            .collect();
        let path =
            folder.join(format!("events.out.tfevents.{:010}.{run}.octet", first.at_ms / 1000));
        let opened = File::options().create(true).read(true).append(true).open(&path);
        let mut file = opened.map_err(TrackingError::disk("open", &path))?;
        let mut found = Vec::new();
        file.read_to_end(&mut found).map_err(TrackingError::disk("read", &path))?;

        let begin = framed(&Message {
            wall_time: seconds(first.at_ms),
            file_version: Some(FILE_VERSION.into()),
            ..Message::default()
        });
        let mut same = 0;
        let mut next = 0;
        if found.starts_with(&begin) {
            same = begin.len();
            'journal: loop {
                let entries = journal.entries(next, PAGE)?;
                let Some(last) = entries.last().map(|entry| entry.id) else { break };
                for entry in &entries {
                    let bytes = encoded(entry, names);
                    if !found[same..].starts_with(&bytes) {
                        break 'journal;
                    }
                    same += bytes.len();
                    next = entry.id + 1;
                }
                next = last + 1;
            }
        }
        let mut events = Self { file, path, names, next };
        if same < found.len() {
            events.write(|file| file.set_len(same as u64))?;
        }
        if same == 0 {
            events.write(|file| file.write_all(&begin))?;
        }
        events.follow(journal)?;
        Ok(Some(events))
    }

    /// Writes what is new in the journal.
    ///
    /// # Errors
    /// The file cannot be written, or the journal not be read. What is missing is written the next time.
    pub fn follow(&mut self, journal: &Journal) -> Result<(), TrackingError> {
        loop {
            let entries = journal.entries(self.next, PAGE)?;
            let Some(last) = entries.last().map(|entry| entry.id) else { return Ok(()) };
            let bytes: Vec<u8> =
                entries.iter().flat_map(|entry| encoded(entry, self.names)).collect();
            self.write(|file| {
                let before = file.seek(SeekFrom::End(0))?;
                let written = file.write_all(&bytes).and_then(|()| file.sync_data());
                if written.is_err() {
                    // Half of it would be written again behind itself.
                    file.set_len(before)?;
                }
                written
            })?;
            self.next = last + 1;
        }
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut File) -> std::io::Result<()>,
    ) -> Result<(), TrackingError> {
        write(&mut self.file).map_err(TrackingError::disk("write", &self.path))
    }
}

/// What an event is in the file; nothing where it is no measurement.
fn encoded(entry: &Entry, names: Names) -> Vec<u8> {
    let Event::Metrics { step, values } = &entry.event else { return Vec::new() };
    let value = values.iter().map(|(name, number)| Value {
        tag: names.tag(name),
        // TensorBoard keeps scalars in single precision.
        simple_value: Some(number.0 as f32),
    });
    framed(&Message {
        wall_time: seconds(entry.at_ms),
        step: i64::try_from(*step).unwrap_or(i64::MAX),
        summary: Some(Summary { value: value.collect() }),
        ..Message::default()
    })
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::event::Number;

    fn journal(home: &Path, steps: std::ops::RangeInclusive<u64>) -> Journal {
        let mut journal = Journal::open(home, "run").unwrap();
        for step in steps {
            let values = vec![("loss".to_owned(), Number(step as f64))];
            let event = Event::Metrics { step, values };
            journal.append(1000 * step as i64, &[(Some(format!("step/{step}")), event)]).unwrap();
        }
        journal
    }

    fn only_file(folder: &Path) -> PathBuf {
        let mut files = std::fs::read_dir(folder).unwrap();
        let file = files.next().unwrap().unwrap().path();
        assert!(files.next().is_none());
        file
    }

    #[test]
    fn however_it_was_interrupted_the_file_is_the_same() {
        let home = tempfile::tempdir().unwrap();
        let whole = home.path().join("whole");
        let run = journal(home.path(), 1..=5);
        EventFile::open(&whole, "run/1", Names::Trl, &run).unwrap().unwrap();
        let expected = std::fs::read(only_file(&whole)).unwrap();

        for torn in (0..expected.len()).step_by(7) {
            let folder = home.path().join(format!("torn-{torn}"));
            let first = journal(&folder_of(&home, torn), 1..=3);
            drop(EventFile::open(&folder, "run/1", Names::Trl, &first).unwrap());
            let path = only_file(&folder);
            // A crash left so much of the longer file.
            std::fs::write(&path, &expected[..torn]).unwrap();
            let mut events = EventFile::open(&folder, "run/1", Names::Trl, &run).unwrap().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), expected, "torn at {torn}");
            events.follow(&run).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), expected, "nothing was new");
        }
    }

    fn folder_of(home: &tempfile::TempDir, number: usize) -> PathBuf {
        let folder = home.path().join(format!("journal-{number}"));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_others_appended_is_cut_off_and_the_file_goes_on() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("events");
        drop(EventFile::open(&folder, "run", Names::Trl, &journal(home.path(), 1..=2)).unwrap());
        let path = only_file(&folder);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"nonsense"].concat()).unwrap();
        let mut run = journal(home.path(), 1..=2);
        let mut events = EventFile::open(&folder, "run", Names::Trl, &run).unwrap().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        let values = vec![("loss".to_owned(), Number(3.0))];
        run.append(3000, &[(None, Event::Metrics { step: 3, values })]).unwrap();
        events.follow(&run).unwrap();
        let longer = std::fs::read(&path).unwrap();
        assert!(longer.starts_with(&whole) && longer.len() > whole.len());
    }

    #[test]
    fn an_empty_journal_has_no_file() {
        let home = tempfile::tempdir().unwrap();
        let run = Journal::open(home.path(), "run").unwrap();
        assert!(EventFile::open(home.path(), "run", Names::Trl, &run).unwrap().is_none());
    }
}
