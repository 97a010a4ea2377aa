//! From the run directory to the journal: what a run wrote for itself, once.
//!
//! Invariants: the run directory is the truth. What is in it and not in the journal is appended, whenever this is
//! asked for, so it does not matter whether the run was watched, killed, resumed, or is long over. What is in the
//! journal already is left as it is.

use crate::error::TrackingError;
use crate::event::{Event, Number, Status};
use crate::flatten::{MOST_TAG, cut, numbers, step};
use crate::journal::{Journal, now_ms};
use crate::names::key;
use crate::tail::Tail;
use serde_json::Value;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const METRICS_FILE: &str = "metrics.jsonl";
const SUMMARY_FILE: &str = "summary.json";
const BEFORE_FILE: &str = "before.json";
const TABLE_FILE: &str = "evaluation.md";
/// What is there when the run begins.
const FIRST_FILES: [&str; 1] = ["config.toml"];
/// What is there when it is over.
const LAST_FILES: [&str; 4] = [SUMMARY_FILE, TABLE_FILE, "curves.svg", "curves.png"];

/// What is known of a run besides its directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The run's id.
    pub run_id: String,
    /// What people call it.
    pub name: String,
    /// The resolved configuration.
    pub params: Vec<(String, String)>,
    /// What it is known by.
    pub tags: Vec<(String, String)>,
    /// Its steps.
    pub steps: u64,
}

/// A run directory that is watched.
#[derive(Debug)]
pub(crate) struct Source {
    directory: PathBuf,
    facts: Facts,
    metrics: Tail,
    /// Whether the evaluation before the run was seen.
    before: bool,
}

/// Brings the journal of a run that nobody watches up to its directory.
///
/// # Errors
/// A file that cannot be read, or the journal.
pub fn collect(directory: &Path, facts: Facts, journal: &mut Journal) -> Result<(), TrackingError> {
    let mut source = Source::new(directory, facts);
    source.begin(journal)?;
    while source.follow(journal)? > 0 {}
    source.results(journal)?;
    if directory.join(SUMMARY_FILE).is_file() {
        source.status(journal, Status::Finished)?;
    }
    Ok(())
}

impl Source {
    pub fn new(directory: &Path, facts: Facts) -> Self {
        let metrics = Tail::new(directory.join(METRICS_FILE));
        Self { directory: directory.to_owned(), facts, metrics, before: false }
    }

    /// What the run begins with.
    pub fn begin(&mut self, journal: &mut Journal) -> Result<(), TrackingError> {
        let Facts { params, tags, .. } = &self.facts;
        let tags = tags.iter().map(|(name, value)| (key(name), cut(value, MOST_TAG)));
        let events = [
            (Some("params".into()), Event::Params { values: params.clone() }),
            (Some("tags".into()), Event::Tags { values: tags.collect() }),
        ];
        journal.append(now_ms(), &events)?;
        self.files(journal, &FIRST_FILES)
    }

    /// What was measured since; how much that was.
    pub fn follow(&mut self, journal: &mut Journal) -> Result<usize, TrackingError> {
        let mut found = 0;
        if !self.before
            && let Some(report) = self.json(BEFORE_FILE)?
        {
            found = journal.append(now_ms(), &[evaluation("eval/before", 0, &report)])?;
            self.before = true;
        }
        let path = self.metrics.path().to_owned();
        let lines = self.metrics.read().map_err(TrackingError::disk("read", &path))?;
        found += lines.len();
        let mut events = Vec::with_capacity(lines.len());
        for (line, text) in lines {
            match step(&text) {
                Ok((step, values)) => {
                    events.push((Some(format!("step/{step}")), Event::Metrics { step, values }));
                }
                Err(reason) => {
                    tracing::warn!("{}, line {line} is not tracked: {reason}", path.display());
                }
            }
        }
        journal.append(now_ms(), &events)?;
        Ok(found)
    }

    /// What a complete run ends with; nothing where it is not complete.
    pub fn results(&mut self, journal: &mut Journal) -> Result<(), TrackingError> {
        let Some(mut summary) = self.json(SUMMARY_FILE)? else { return Ok(()) };
        let steps = self.facts.steps;
        let (before, after) = (summary["before"].take(), summary["after"].take());
        let values = numbers(&summary, "summary");
        let events = [
            evaluation("eval/before", 0, &before),
            evaluation("eval/after", steps, &after),
            (Some("summary".into()), Event::Metrics { step: steps, values }),
            (Some("result".into()), Event::Tags { values: self.result(&summary) }),
        ];
        journal.append(now_ms(), &events)?;
        self.files(journal, &LAST_FILES)
    }

    /// What a complete run is known by: its weights, and its table as the description that MLflow shows.
    fn result(&self, summary: &Value) -> Vec<(String, String)> {
        let weights = summary["weights_digest"].as_str().map(str::to_owned);
        let weights = weights.map(|digest| ("octet.weights_digest".to_owned(), digest));
        // A run without evaluation has no table.
        let table = std::fs::read_to_string(self.directory.join(TABLE_FILE)).ok();
        let table = table.map(|table| ("mlflow.note.content".to_owned(), cut(&table, MOST_TAG)));
        weights.into_iter().chain(table).collect()
    }

    /// How the run stands, where that is new.
    pub fn status(&self, journal: &mut Journal, status: Status) -> Result<(), TrackingError> {
        let last = match journal.last_status()? {
            Some(Event::Status { status }) => status,
            // What a server creates is running.
            _ => Status::Running,
        };
        if last != status {
            journal.append(now_ms(), &[(None, Event::Status { status })])?;
        }
        Ok(())
    }

    /// The files of these that are there, each version of them once.
    fn files(&self, journal: &mut Journal, names: &[&str]) -> Result<(), TrackingError> {
        for name in names {
            let path = self.directory.join(name);
            let content = match std::fs::read(&path) {
                Ok(content) => content,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(TrackingError::disk("read", &path)(error)),
            };
            let key = format!("artifact/{name}#{}", blake3::hash(&content).to_hex());
            journal.append(now_ms(), &[(Some(key), Event::Artifact { file: (*name).into() })])?;
        }
        Ok(())
    }

    fn json(&self, name: &str) -> Result<Option<Value>, TrackingError> {
        let path = self.directory.join(name);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(TrackingError::disk("read", &path)(error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| TrackingError::Content {
            path,
            line: None,
            expected: "what the run wrote there, in JSON",
            found: error.to_string(),
        })
    }
}

/// The numbers of an evaluation; none where there was no evaluation.
fn evaluation(key: &str, step: u64, report: &Value) -> (Option<String>, Event) {
    let values: Vec<(String, Number)> = numbers(report, "eval");
    (Some(key.to_owned()), Event::Metrics { step, values })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::event::Entry;

    fn facts() -> Facts {
        let pair = |a: &str, b: &str| vec![(a.to_owned(), b.to_owned())];
        Facts {
            run_id: "first-abc".into(),
            name: "first".into(),
            params: pair("run.seed", "1"),
            tags: pair("octet.config_digest", "abc"),
            steps: 2,
        }
    }

    fn events(journal: &Journal) -> Vec<Event> {
        let entries = journal.entries(0, 1000).unwrap();
        entries.into_iter().map(|Entry { event, .. }| event).collect()
    }

    #[test]
    fn a_run_that_nobody_watched_is_tracked_whole_and_once() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
        let mut journal = Journal::open(home.path(), "first-abc").unwrap();
        write("config.toml", "[run]\n");
        write("metrics.jsonl", "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":0.25}\n{\"st");
        collect(home.path(), facts(), &mut journal).unwrap();
        let loss = |step, loss| {
            let values = vec![("loss".to_owned(), Number(loss))];
            Event::Metrics { step, values }
        };
        let file = |file: &str| Event::Artifact { file: file.into() };
        let begun = [
            Event::Params { values: facts().params },
            Event::Tags { values: facts().tags },
            file("config.toml"),
            loss(1, 0.5),
            loss(2, 0.25),
        ];
        assert_eq!(events(&journal), begun);

        write(
            "summary.json",
            "{\"before\": {\"reward\": 0.5}, \"steps\": 2, \"weights_digest\": \"d1\"}",
        );
        write("curves.svg", "<svg/>");
        collect(home.path(), facts(), &mut journal).unwrap();
        let at = |step, name: &str, value| {
            let values = vec![(name.to_owned(), Number(value))];
            Event::Metrics { step, values }
        };
        let ended = [
            at(0, "eval/reward", 0.5),
            at(2, "summary/steps", 2.0),
            Event::Tags { values: vec![("octet.weights_digest".into(), "d1".into())] },
            file("summary.json"),
            file("curves.svg"),
            Event::Status { status: Status::Finished },
        ];
        assert_eq!(events(&journal)[begun.len()..], ended);
        // Again: nothing is new, but for a file that changed.
        write("curves.svg", "<svg></svg>");
        collect(home.path(), facts(), &mut journal).unwrap();
        assert_eq!(events(&journal)[begun.len() + ended.len()..], [file("curves.svg")]);
    }

    #[test]
    fn a_status_is_told_when_it_changes() {
        let home = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(home.path(), "first-abc").unwrap();
        let source = Source::new(home.path(), facts());
        let seen =
            [Status::Running, Status::Killed, Status::Killed, Status::Running, Status::Finished];
        for status in seen {
            source.status(&mut journal, status).unwrap();
        }
        let told: Vec<Event> = [Status::Killed, Status::Running, Status::Finished]
            .map(|status| Event::Status { status })
            .into();
        assert_eq!(events(&journal), told);
    }

    #[test]
    fn a_damaged_line_is_passed_over() {
        let home = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(home.path(), "first-abc").unwrap();
        let lines = "{\"step\":1,\"loss\":0.5}\nnothing\n{\"step\":3,\"loss\":0.5}\n";
        std::fs::write(home.path().join("metrics.jsonl"), lines).unwrap();
        let mut source = Source::new(home.path(), facts());
        assert_eq!(source.follow(&mut journal).unwrap(), 3);
        assert_eq!(events(&journal).len(), 2);
    }
}
