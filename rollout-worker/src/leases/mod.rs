//! The session with the coordinator: register, lease, heartbeat, release.
//!
//! Invariants: a lease is renewed until its group has a receipt or is given up; a coordinator that
//! is gone or has forgotten this worker costs nothing that was sampled; no call holds up another.

mod actor;
mod calls;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use actor::{Leases, Told};

use crate::groups::LeaseKey;

/// What the hub tells about its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// So many completions of the group are left to sample; the others' places are free.
    Sampled(LeaseKey, usize),
    /// The learner has the group.
    Finished(LeaseKey),
    /// The group is given up: the lease goes back.
    Dropped(LeaseKey),
    /// Nothing is under way any more, and nothing will be.
    Drained,
}
