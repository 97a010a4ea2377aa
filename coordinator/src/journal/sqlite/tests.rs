#![allow(clippy::unwrap_used)]
use super::*;

fn digest() -> ConfigDigest {
    ConfigDigest::new("cafe")
}

fn records() -> Vec<Record> {
    let revision = |number, port| Revision {
        number: RevisionNumber(number),
        name: "tool-call".into(),
        digest: "a".into(),
        endpoints: vec![format!("http://[::1]:{port}"), "http://b:2".into()],
    };
    vec![
        Record::IdsReserved { below: 1025 },
        Record::RevisionBound { revision: revision(1, 1), from_step: StepIndex(0) },
        Record::StepsLeased { below: StepIndex(3) },
        Record::RevisionBound { revision: revision(2, 1), from_step: StepIndex(3) },
        Record::RevisionBound { revision: revision(1, 9), from_step: StepIndex(0) },
        Record::IdsReserved { below: 2049 },
        Record::RunCompleted,
    ]
}

#[test]
fn what_was_appended_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("coordinator.sqlite");
    let (mut journal, begun) = SqliteJournal::open(&path, "run", &digest()).unwrap();
    assert_eq!(begun, Recovered::default());
    let mut expected = Recovered::default();
    for record in records() {
        journal.append(std::slice::from_ref(&record)).unwrap();
        expected.absorb(&record);
        // Not dropped, as after kill -9: the file alone has to tell.
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        let copied = copy.path().join("coordinator.sqlite");
        let (_, recovered) = SqliteJournal::open(&copied, "run", &digest()).unwrap();
        assert_eq!(recovered, expected);
    }
}

#[test]
fn the_last_to_open_a_journal_owns_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("coordinator.sqlite");
    let (mut first, _) = SqliteJournal::open(&path, "run", &digest()).unwrap();
    let (mut second, _) = SqliteJournal::open(&path, "run", &digest()).unwrap();
    let error = first.append(&records()).unwrap_err();
    assert!(matches!(error, JournalError::TakenOver { .. }), "{error}");
    second.append(&records()).unwrap();
    let (_, recovered) = SqliteJournal::open(&path, "run", &digest()).unwrap();
    assert_eq!(recovered.ids_below, 2049);
}

#[test]
fn another_runs_journal_is_refused_with_both_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("coordinator.sqlite");
    SqliteJournal::open(&path, "first", &digest()).unwrap();
    for (run, digest) in [("other", digest()), ("first", ConfigDigest::new("beef"))] {
        let text = SqliteJournal::open(&path, run, &digest).unwrap_err().to_string();
        for part in ["first", "cafe", run, digest.as_str(), "coordinator.sqlite"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

#[test]
fn what_is_no_journal_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(
        &text,
        "not a database, and longer than the header of one would have to be. ".repeat(4),
    )
    .unwrap();
    let before = std::fs::read(&text).unwrap();
    let error = SqliteJournal::open(&text, "run", &digest()).unwrap_err();
    assert!(matches!(error, JournalError::Foreign { .. }), "{error}");
    assert_eq!(std::fs::read(&text).unwrap(), before);

    let other = folder.path().join("other.sqlite");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let error = SqliteJournal::open(&other, "run", &digest()).unwrap_err();
    assert!(matches!(error, JournalError::Foreign { .. }), "{error}");

    let nowhere = folder.path().join("missing").join("coordinator.sqlite");
    let error = SqliteJournal::open(&nowhere, "run", &digest()).unwrap_err();
    assert!(matches!(error, JournalError::Sqlite { action: "open", .. }), "{error}");
    assert!(error.to_string().contains("missing"));
}

#[test]
fn a_damaged_journal_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("coordinator.sqlite");
    let (mut journal, _) = SqliteJournal::open(&path, "run", &digest()).unwrap();
    journal.append(&records()).unwrap();
    journal.connection.execute("UPDATE reward_revision SET endpoints = '[1'", []).unwrap();
    drop(journal);
    let error = SqliteJournal::open(&path, "run", &digest()).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("endpoints of reward revision 1"), "{error}");
}
