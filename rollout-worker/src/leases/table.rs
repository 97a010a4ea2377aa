//! The leases that are held.
//!
//! Invariant: a note about an older lease of a group changes nothing.

use std::collections::BTreeMap;

use octet_proto::coordinator::LeaseRef;
use octet_proto::{GroupIndex, LeaseEpoch};

use crate::groups::LeaseKey;

/// The leases by group.
#[derive(Debug, Default)]
pub(super) struct Table {
    held: BTreeMap<GroupIndex, Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    epoch: LeaseEpoch,
    /// Completions that are not sampled yet.
    left: usize,
}

impl Table {
    /// Takes a lease of so many completions in; a newer one of the same group replaces the older one.
    pub(super) fn grant(&mut self, key: LeaseKey, completions: usize) {
        self.held.insert(key.group, Held { epoch: key.epoch, left: completions });
    }

    /// So many completions of a group are left to sample.
    pub(super) fn sampled(&mut self, key: LeaseKey, left: usize) {
        if let Some(held) = self.held.get_mut(&key.group).filter(|held| held.epoch == key.epoch) {
            held.left = left;
        }
    }

    /// Takes a lease out; false when it is not held.
    pub(super) fn remove(&mut self, key: LeaseKey) -> bool {
        let held = self.held.get(&key.group).is_some_and(|held| held.epoch == key.epoch);
        held && self.held.remove(&key.group).is_some()
    }

    /// How many more groups can be taken: the completions of `capacity` being sampled, whichever groups they are of,
    /// and as many groups again being scored and delivered, which is what the coordinator allows.
    pub(super) fn want(&self, capacity: u32, completions: usize) -> u32 {
        let capacity = capacity as usize;
        let sampling: usize = self.held.values().map(|held| held.left).sum();
        let room = (capacity * completions).saturating_sub(sampling) / completions.max(1);
        let total = (2 * capacity).saturating_sub(self.held.len());
        u32::try_from(room.min(total)).unwrap_or(u32::MAX)
    }

    pub(super) fn refs(&self) -> Vec<LeaseRef> {
        let held = self.held.iter();
        held.map(|(group, held)| LeaseRef { group: group.get(), epoch: held.epoch.get() }).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}
