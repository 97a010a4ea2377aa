//! The groups under way, each from its lease to its receipt.
//!
//! Invariants: one job for each group; an event of an older job of the same group is dropped; what
//! was sampled is kept until the learner has it, or its lease is taken away before it was delivered.

mod actor;
mod job;
mod lease;

use octet_policy::sampler::Completion;
use octet_proto::{GroupIndex, LeaseEpoch, PolicyVersion};

pub(crate) use actor::{Groups, Text};
pub(crate) use lease::Granted;

use crate::delivery::Receipt;
use crate::scoring::Settled;

/// One attempt at a group by this worker; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JobId(pub u64);

/// A group and the epoch of its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseKey {
    pub group: GroupIndex,
    pub epoch: LeaseEpoch,
}

/// What happens to groups.
#[derive(Debug)]
pub(crate) enum Event {
    /// The coordinator leased a group.
    Granted(Box<Granted>),
    /// The coordinator took a lease away.
    Revoked(LeaseKey),
    /// The run is complete: nothing that is under way is of use.
    Complete,
    /// A version is on the shelf.
    Ready(PolicyVersion),
    /// A completion ended.
    Sampled {
        /// Whose it is.
        job: JobId,
        /// The completion.
        completion: Completion,
    },
    /// A completion has its reward, or will have none.
    Scored(Settled),
    /// The learner answered a delivery.
    Receipt {
        /// The group.
        group: GroupIndex,
        /// The answer.
        receipt: Receipt,
    },
}
