//! Groups without a receipt.
//!
//! Invariant: a group stays until its receipt is there; after [`Outbox::rewind`] all of them are
//! sent again, the lowest first.

use std::collections::BTreeMap;

use octet_proto::GroupIndex;
use octet_proto::learner::ScoredGroup;
use tokio::time::Instant;

/// The groups, each with when it was sent on the stream that is open.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    groups: BTreeMap<GroupIndex, (ScoredGroup, Option<Instant>)>,
}

impl Outbox {
    pub(super) fn put(&mut self, group: ScoredGroup) {
        self.groups.insert(GroupIndex(group.group), (group, None));
    }

    /// Takes out a group that has its receipt; false when it is not there.
    pub(super) fn remove(&mut self, group: GroupIndex) -> bool {
        self.groups.remove(&group).is_some()
    }

    /// A new stream: nothing was sent on it.
    pub(super) fn rewind(&mut self) {
        self.groups.values_mut().for_each(|(_, sent)| *sent = None);
    }

    /// The lowest group that was not sent on this stream, sent now.
    pub(super) fn send(&mut self, now: Instant) -> Option<ScoredGroup> {
        let (group, sent) = self.groups.values_mut().find(|(_, sent)| sent.is_none())?;
        *sent = Some(now);
        Some(group.clone())
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.groups.values().any(|(_, sent)| sent.is_none())
    }

    /// When the group was sent that has waited longest for its receipt.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.groups.values().filter_map(|(_, sent)| *sent).min()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }
}
