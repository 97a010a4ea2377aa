use octet_proto::{GroupIndex, LeaseEpoch};

use super::table::Table;
use crate::groups::LeaseKey;

fn key(group: u64, epoch: u64) -> LeaseKey {
    LeaseKey { group: GroupIndex(group), epoch: LeaseEpoch(epoch) }
}

#[test]
fn there_is_room_for_one_round_sampled_and_one_scored() {
    let mut table = Table::default();
    assert_eq!(table.want(2, 8), 2);
    table.grant(key(0, 1), 8);
    table.grant(key(1, 2), 8);
    assert_eq!(table.want(2, 8), 0, "two are being sampled");
    table.sampled(key(0, 1), 0);
    assert_eq!(table.want(2, 8), 1);
    table.grant(key(2, 3), 8);
    table.sampled(key(1, 2), 0);
    table.grant(key(3, 4), 8);
    table.sampled(key(2, 3), 0);
    table.sampled(key(3, 4), 0);
    assert_eq!(table.want(2, 8), 0, "nothing is sampled, but four wait for scores and receipts");
    assert!(table.remove(key(0, 1)));
    assert_eq!(table.want(2, 8), 1);
}

#[test]
fn what_has_ended_in_two_groups_makes_room_for_a_third() {
    let mut table = Table::default();
    table.grant(key(0, 1), 8);
    table.grant(key(1, 2), 8);
    table.sampled(key(0, 1), 5);
    assert_eq!(table.want(2, 8), 0, "three places are free");
    table.sampled(key(1, 2), 3);
    assert_eq!(table.want(2, 8), 1, "eight places are free");
    table.grant(key(2, 3), 8);
    assert_eq!(table.want(2, 8), 0);
}

#[test]
fn a_note_about_an_older_lease_changes_nothing() {
    let mut table = Table::default();
    table.grant(key(0, 1), 8);
    table.grant(key(0, 5), 8);
    table.sampled(key(0, 1), 0);
    assert_eq!(table.want(1, 8), 0, "the new lease is not sampled");
    assert!(!table.remove(key(0, 1)));
    let refs = table.refs();
    assert_eq!(refs.len(), 1);
    assert_eq!((refs[0].group, refs[0].epoch), (0, 5));
    assert!(table.remove(key(0, 5)) && table.is_empty());
}
