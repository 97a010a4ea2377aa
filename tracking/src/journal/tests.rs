//! The journal: once by key, whole after a crash, and refused when it is something else.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::event::{Number, Status};

fn step(step: u64) -> (Option<String>, Event) {
    let values = vec![("loss".to_owned(), Number(0.5))];
    (Some(format!("step/{step}")), Event::Metrics { step, values })
}

fn target() -> Target {
    Target { url: "http://here".into(), experiment: "octet".into() }
}

#[test]
fn an_event_with_a_key_is_there_once_with_its_first_time() {
    let home = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(home.path(), "run").unwrap();
    assert_eq!(journal.append(10, &[step(1), step(2)]).unwrap(), 2);
    assert_eq!(journal.append(20, &[step(2), step(3)]).unwrap(), 1);
    drop(journal);
    let journal = Journal::open(home.path(), "run").unwrap();
    let entries = journal.entries(0, 100).unwrap();
    let found: Vec<(i64, i64)> = entries.iter().map(|entry| (entry.id, entry.at_ms)).collect();
    assert_eq!(found, [(1, 10), (2, 10), (3, 20)]);
    assert_eq!(journal.entries(2, 1).unwrap(), entries[1..2]);
    assert!(journal.has("step/3").unwrap() && !journal.has("step/4").unwrap());
}

#[test]
fn an_event_without_items_is_none() {
    let home = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(home.path(), "run").unwrap();
    assert_eq!(journal.append(1, &[(None, Event::Params { values: Vec::new() })]).unwrap(), 0);
    assert_eq!(journal.count(0).unwrap(), 0);
}

#[test]
fn what_a_server_has_is_remembered_by_server_and_experiment() {
    let home = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(home.path(), "run").unwrap();
    assert_eq!(journal.server(&target()).unwrap(), (None, Position::START));
    let done = Position { event: 4, item: 7 };
    let aside = SetAside {
        at: Position { event: 3, item: 1 },
        what: "the tag x".into(),
        reason: "no".into(),
    };
    journal.advance(&target(), done, Some(&aside)).unwrap();
    let text = |text: &str| text.to_owned();
    let bound = Bound {
        experiment_id: text("1"),
        parent_id: text("p"),
        run_id: text("r"),
        artifact_uri: text("mlflow-artifacts:/1/r/artifacts"),
    };
    journal.bind(&target(), &bound).unwrap();
    let journal = Journal::open(home.path(), "run").unwrap();
    assert_eq!(journal.server(&target()).unwrap(), (Some(bound), done));
    assert_eq!(journal.refused(&target()).unwrap(), [(text("the tag x"), text("no"))]);
    let other = Target { experiment: "other".into(), ..target() };
    assert_eq!(journal.server(&other).unwrap(), (None, Position::START));
    assert!(journal.refused(&other).unwrap().is_empty());
}

#[test]
fn a_refused_file_is_sent_once_more_when_asked() {
    let home = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(home.path(), "run").unwrap();
    let file = Event::Artifact { file: "curves.png".into() };
    journal.append(5, &[(Some("a".into()), file.clone()), step(1)]).unwrap();
    for (event, what) in [(1, "the file"), (2, "loss of step 1")] {
        let at = Position { event, item: 0 };
        let aside = SetAside { at, what: what.into(), reason: "no".into() };
        journal.advance(&target(), Position { event: 3, item: 0 }, Some(&aside)).unwrap();
    }
    assert_eq!(journal.retry_files(&target()).unwrap(), 1);
    let again = journal.entries(3, 10).unwrap();
    assert_eq!(again, [Entry { id: 3, at_ms: 5, event: file }]);
    assert_eq!(journal.refused(&target()).unwrap().len(), 1);
    assert_eq!(journal.retry_files(&target()).unwrap(), 0);
}

#[test]
fn the_last_status_is_found() {
    let home = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(home.path(), "run").unwrap();
    assert_eq!(journal.last_status().unwrap(), None);
    let status = |status| (None, Event::Status { status });
    journal.append(1, &[status(Status::Killed), status(Status::Running), step(1)]).unwrap();
    assert_eq!(journal.last_status().unwrap(), Some(Event::Status { status: Status::Running }));
}

#[test]
fn forgetting_a_server_changes_the_name_for_servers() {
    let home = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(home.path(), "a run/with \"quotes\"").unwrap();
    let key = journal.key().unwrap();
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    assert!(key.chars().all(safe), "{key}");
    journal.advance(&target(), Position { event: 9, item: 0 }, None).unwrap();
    std::thread::sleep(Duration::from_millis(2));
    journal.forget(&target(), "run").unwrap();
    assert_eq!(journal.server(&target()).unwrap(), (None, Position::START));
    assert_ne!(journal.key().unwrap(), key);
}

#[test]
fn another_database_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(JOURNAL_FILE);
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE x (y)").unwrap();
    let error = Journal::open(home.path(), "run").unwrap_err().to_string();
    assert!(
        error.contains("expected a tracking journal of version 1, found another database"),
        "{error}"
    );
    std::fs::write(&path, "not a database, but long enough to be read as one").unwrap();
    assert!(Journal::open(home.path(), "run").is_err());
}
