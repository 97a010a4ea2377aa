//! Which groups are in the spool and not yet consumed, and by which leases they came.
//!
//! Invariant: pure. It holds only groups that no committed step consumed, and the leases of one step
//! more, so the lag bounds it.

use octet_proto::{GroupIndex, LeaseEpoch};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What is on the learner's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    committed: u64,
    next: GroupIndex,
    spooled: BTreeSet<GroupIndex>,
    /// By which lease the groups came that this process took in. Kept for a step longer than they wait,
    /// because a step may be committed before anybody was told of its last group.
    leases: BTreeMap<GroupIndex, LeaseEpoch>,
}

impl Inventory {
    /// `committed` steps; `next` is the first group that none of them consumed.
    pub fn new(
        committed: u64,
        next: GroupIndex,
        spooled: impl IntoIterator<Item = GroupIndex>,
    ) -> Self {
        let spooled = spooled.into_iter().filter(|group| *group >= next).collect();
        Self { committed, next, spooled, leases: BTreeMap::new() }
    }

    /// Steps that are committed.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Groups that wait for their step.
    pub fn spooled(&self) -> &BTreeSet<GroupIndex> {
        &self.spooled
    }

    /// By which lease each group came first, as far as this process took it in.
    pub fn leases(&self) -> &BTreeMap<GroupIndex, LeaseEpoch> {
        &self.leases
    }

    /// Groups were spooled, each by a lease. Whether any of them is news.
    pub fn add(&mut self, groups: impl IntoIterator<Item = (GroupIndex, LeaseEpoch)>) -> bool {
        let before = self.spooled.len();
        for (group, lease) in groups {
            if group >= self.next && self.spooled.insert(group) {
                self.leases.insert(group, lease);
            }
        }
        self.spooled.len() > before
    }

    /// A step consumed all groups before `next`.
    pub fn commit(&mut self, committed: u64, next: GroupIndex) {
        self.committed = committed;
        self.leases = self.leases.split_off(&self.next);
        self.next = next;
        self.spooled = self.spooled.split_off(&next);
    }

    /// How many groups of a range are missing, and the first of them.
    pub fn missing(&self, range: &Range<GroupIndex>) -> Option<(u64, GroupIndex)> {
        let all = (range.start.get()..range.end.get()).map(GroupIndex);
        let mut missing = all.filter(|group| !self.spooled.contains(group));
        let first = missing.next()?;
        Some((1 + missing.count() as u64, first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: u64, to: u64) -> Range<GroupIndex> {
        GroupIndex(from)..GroupIndex(to)
    }

    #[test]
    fn it_knows_what_a_step_still_lacks() {
        let mut inventory = Inventory::new(1, GroupIndex(4), [2, 5, 8].map(GroupIndex));
        assert_eq!(inventory.spooled().len(), 2, "group 2 was consumed");
        assert_eq!(inventory.missing(&range(4, 8)), Some((3, GroupIndex(4))));
        let by = |lease: u64| move |group: u64| (GroupIndex(group), LeaseEpoch(lease));
        assert!(inventory.add([4, 6, 7].map(by(10))));
        assert!(!inventory.add([3, 7].map(by(11))), "a duplicate and a consumed one are no news");
        assert_eq!(inventory.missing(&range(4, 8)), None);
        inventory.commit(2, GroupIndex(8));
        assert_eq!(inventory.committed(), 2);
        assert_eq!(inventory.spooled().iter().copied().collect::<Vec<_>>(), [GroupIndex(8)]);
        let told: Vec<_> =
            inventory.leases().iter().map(|(g, lease)| (g.get(), lease.get())).collect();
        assert_eq!(
            told,
            [(4, 10), (6, 10), (7, 10)],
            "who was first, a step longer than the groups"
        );
        inventory.commit(3, GroupIndex(12));
        assert!(inventory.leases().is_empty());
    }
}
