#![allow(clippy::unwrap_used)]
use super::*;
use crate::disk::DiskError;
use crate::group::GroupParts;
use crate::group::tests::parts;
use octet_proto::{LeaseEpoch, PolicyVersion, RevisionNumber};
use proptest::prelude::*;
use std::fs;
use tempfile::TempDir;

fn group(index: u64) -> ScoredGroup {
    ScoredGroup::new(parts(index)).unwrap()
}

fn changed(index: u64, change: impl FnOnce(&mut GroupParts)) -> ScoredGroup {
    let mut parts = parts(index);
    change(&mut parts);
    ScoredGroup::new(parts).unwrap()
}

fn range(start: u64, end: u64) -> Range<GroupIndex> {
    GroupIndex(start)..GroupIndex(end)
}

fn spool() -> (TempDir, Spool) {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(&folder.path().join("spool.sqlite")).unwrap();
    (folder, spool)
}

#[test]
fn groups_come_back_in_order_and_equal() {
    let (_folder, mut spool) = spool();
    assert_eq!(spool.append(&[group(3), group(1)]).unwrap(), [Ok(Stored::New), Ok(Stored::New)]);
    assert_eq!(spool.append(&[group(2)]).unwrap(), [Ok(Stored::New)]);
    assert_eq!(spool.present(range(0, 3)).unwrap(), [GroupIndex(1), GroupIndex(2)]);
    assert_eq!(spool.read(range(1, 4)).unwrap(), [group(1), group(2), group(3)]);
    assert_eq!(spool.append(&[]).unwrap(), []);
    assert_eq!(spool.read(range(7, 7)).unwrap(), []);
}

#[test]
fn missing_groups_are_named() {
    let (_folder, mut spool) = spool();
    spool.append(&[group(4), group(6)]).unwrap();
    let missing = |range| match spool.read(range).unwrap_err() {
        SpoolError::Missing { first, missing, .. } => (first.get(), missing),
        other => panic!("{other}"),
    };
    assert_eq!(missing(range(4, 8)), (5, 2));
    assert_eq!(missing(range(3, 5)), (3, 1));
    assert_eq!(missing(range(6, 8)), (7, 1));
    let error = spool.read(range(4, 8)).unwrap_err().to_string();
    assert!(error.starts_with("expected all of the groups 4 to 7 in "), "{error}");
}

#[test]
fn what_only_tells_who_did_the_work_may_differ() {
    let (_folder, mut spool) = spool();
    let again = changed(1, |parts| {
        parts.worker = "worker-2".to_owned();
        parts.lease_epoch = LeaseEpoch(4);
        parts.completions[0].detail = "put otherwise".to_owned();
    });
    let receipts = spool.append(&[group(1), again]).unwrap();
    assert_eq!(receipts, [Ok(Stored::New), Ok(Stored::Duplicate)]);
    assert_eq!(spool.read(range(1, 2)).unwrap(), [group(1)]);
}

type Change = fn(&mut GroupParts);

#[test]
fn each_impurity_is_named_with_both_values() {
    let (_folder, mut spool) = spool();
    spool.append(&[group(1)]).unwrap();
    let cases: [(Change, &str); 8] = [
        (|parts| parts.policy_version = PolicyVersion(3), "policy version was 2, now 3"),
        (|parts| parts.reward_revision = RevisionNumber(2), "reward revision was 1, now 2"),
        (
            |parts| parts.example_json = "{\"data_source\":\"best\"}".to_owned(),
            "example was t at position 16, now b at position 16",
        ),
        (
            |parts| parts.prompt_tokens[1] = 9,
            "prompt token was 2 at position 1, now 9 at position 1",
        ),
        (|parts| drop(parts.completions.pop()), "number of completions was 8, now 7"),
        (
            |parts| {
                parts.completions[2].tokens.truncate(2);
                parts.completions[2].logprobs.truncate(2);
            },
            "sample 2: token was 15 at position 2, now ended after 2",
        ),
        (
            |parts| parts.completions[3].logprobs[1] = (-0.35f32).next_up(),
            "sample 3: log-probability was -0.35 at position 1, now -0.34999996 at position 1",
        ),
        (|parts| parts.completions[7].reward = 0.25, "sample 7: reward was 0.5, now 0.25"),
    ];
    for (change, expected) in cases {
        let receipts = spool.append(&[changed(1, change)]).unwrap();
        let impure = receipts[0].clone().unwrap_err();
        assert_eq!((impure.group, impure.differences.len()), (GroupIndex(1), 1));
        assert_eq!(impure.differences[0].to_string(), expected);
        assert!(impure.to_string().contains(expected), "{impure}");
    }
    assert_eq!(spool.read(range(1, 2)).unwrap(), [group(1)]);
}

#[test]
fn an_impure_duplicate_does_not_hold_up_its_batch() {
    let (_folder, mut spool) = spool();
    spool.append(&[group(1)]).unwrap();
    let impure = changed(1, |parts| parts.completions[0].reward = 1.0);
    let receipts = spool.append(&[group(0), impure, group(2)]).unwrap();
    assert!(receipts[0].is_ok() && receipts[1].is_err() && receipts[2].is_ok());
    assert_eq!(spool.present(range(0, 9)).unwrap().len(), 3);
}

#[test]
fn it_outlives_the_process_and_others_can_read_it_meanwhile() {
    let (folder, mut spool) = spool();
    spool.append(&[group(1), group(2)]).unwrap();
    let path = spool.path().to_owned();
    let reader = Connection::open(&path).unwrap();
    let (count, mean): (i64, f64) = reader
        .query_row("SELECT count(*), avg(reward) FROM completions", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!((count, mean), (16, 3.5 / 8.0));
    let row: i64 = reader
        .query_row("SELECT example ->> 'row' FROM groups WHERE group_index = 2", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(row, 2);
    spool.append(&[group(3)]).unwrap();
    drop((spool, reader));
    let spool = Spool::open(&path).unwrap();
    assert_eq!(spool.read(range(1, 4)).unwrap().len(), 3);
    assert!(folder.path().exists());
}

#[test]
fn a_full_disk_is_told_with_path_and_bytes_and_loses_nothing() {
    let (_folder, mut spool) = spool();
    spool.append(&[group(1)]).unwrap();
    let pages: i64 = spool.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    // SQLite answers with the same code as when the file system is full.
    spool.connection.pragma_update(None, "max_page_count", pages).unwrap();
    let many: Vec<ScoredGroup> = (2..200).map(group).collect();
    match spool.append(&many).unwrap_err() {
        SpoolError::Disk(DiskError::Full { path, bytes }) => {
            assert_eq!(path, spool.path());
            assert!(bytes > 198 * 8 * 64, "{bytes}");
        }
        other => panic!("{other}"),
    }
    spool.connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    assert_eq!(spool.present(range(0, 1000)).unwrap(), [GroupIndex(1)]);
    assert_eq!(spool.append(&many).unwrap().len(), 198);
}

#[test]
fn damaged_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.sqlite");
    fs::write(&path, "this is a text file, and long enough to have a header".repeat(9)).unwrap();
    let error = Spool::open(&path).unwrap_err();
    assert!(matches!(error, SpoolError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("spool.sqlite"), "{error}");
    let folderless = Spool::open(&folder.path().join("no/such/folder/spool.sqlite")).unwrap_err();
    assert!(folderless.to_string().starts_with("cannot open "), "{folderless}");
}

#[test]
fn a_changed_row_is_found_by_its_digest() {
    let (_folder, mut spool) = spool();
    spool.append(&[group(1)]).unwrap();
    let tamper = |sql: &str| {
        spool.connection.execute_batch(&format!("BEGIN; {sql};")).unwrap();
        let error = spool.read(range(1, 2)).unwrap_err();
        spool.connection.execute_batch("ROLLBACK").unwrap();
        assert!(matches!(error, SpoolError::Corrupt { .. }), "{error}");
        error.to_string()
    };
    let error = tamper("UPDATE completions SET reward = 1.0 WHERE sample = 0");
    assert!(error.contains("group 1: expected digest"), "{error}");
    let error = tamper("UPDATE completions SET tokens = x'010203' WHERE sample = 0");
    assert!(error.contains("a blob of 3 bytes"), "{error}");
    let error = tamper("UPDATE completions SET finish = 'bored' WHERE sample = 0");
    assert!(error.contains("an unknown finish reason 'bored'"), "{error}");
    tamper("DELETE FROM completions WHERE sample = 7");
    tamper("UPDATE groups SET policy_version = -1");
    assert_eq!(spool.read(range(1, 2)).unwrap(), [group(1)]);
}

#[test]
fn a_spool_of_another_version_is_refused() {
    let (_folder, spool) = spool();
    spool.connection.pragma_update(None, "user_version", 7).unwrap();
    let error = Spool::open(spool.path()).unwrap_err();
    assert!(matches!(error, SpoolError::Version { expected: 1, found: 7, .. }), "{error}");
}

#[test]
fn a_commit_waits_for_the_disk() {
    let (_folder, spool) = spool();
    let pragma = |name: &str| -> String {
        let sql = format!("SELECT cast(\"{name}\" AS TEXT) FROM pragma_{name}");
        spool.connection.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!((pragma("journal_mode"), pragma("synchronous")), ("wal".into(), "2".into()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_numbers_survive(
        tokens in prop::collection::vec((any::<u32>(), -1e30f32..1e30), 1..40),
        reward in any::<f64>().prop_filter("finite", |reward| reward.is_finite()),
        text in any::<String>(),
        index in 0u64..=i64::MAX as u64,
    ) {
        let (_folder, mut spool) = spool();
        let group = changed(index, |parts| {
            parts.completions[0].tokens = tokens.iter().map(|token| token.0).collect();
            parts.completions[0].logprobs = tokens.iter().map(|token| token.1).collect();
            parts.completions[0].reward = reward;
            parts.completions[0].detail = text.clone();
            parts.worker = text.clone();
        });
        let groups = [group.clone(), group.clone()];
        prop_assert_eq!(spool.append(&groups).unwrap(), [Ok(Stored::New), Ok(Stored::Duplicate)]);
        let stored = load(&spool.connection, &spool.path, GroupIndex(index)).unwrap();
        prop_assert_eq!(stored, Some(group));
    }
}
