//! What the convener and the players say to each other.
//!
//! Invariant: each message is a whole state, so that one that is lost, doubled or late does no harm.

use std::fmt;
use std::time::Duration;

/// One membership of the communicator, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// A node that takes part: the learner, or a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member(pub u64);

/// What the members of one communicator find each other by; NCCL's `ncclUniqueId`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UniqueId(pub [u8; 128]);

/// A member's place in a communicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The membership.
    pub epoch: Epoch,
    /// The communicator.
    pub id: UniqueId,
    /// The member's rank; the learner's is 0.
    pub rank: usize,
    /// How many members there are.
    pub world: usize,
}

/// What a member shall do, until it is told something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Have no communicator.
    Stand,
    /// Draw an identifier for this epoch. The learner alone is told this.
    Name(Epoch),
    /// Form the communicator, and stay in it.
    Sit(Place),
    /// Take part in the broadcast of a version.
    Send(Place, u64),
}

/// An order with its deadline, and what is to be fetched beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orders {
    /// What to do.
    pub order: Order,
    /// How long that may take from now.
    pub within: Duration,
    /// A version that no broadcast will bring: fetch it over gRPC.
    pub catch_up: Option<u64>,
}

/// What a member says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The newest epoch that it has heard of.
    pub heard: Epoch,
    /// The newest version that it holds.
    pub holds: Option<u64>,
    /// The identifier that it drew, and for which epoch.
    pub named: Option<(Epoch, UniqueId)>,
    /// The epoch whose communicator it is in.
    pub seated: Option<Epoch>,
    /// What it began last: to form an epoch's communicator, or to broadcast a version in it. Who has not
    /// begun what everybody waits for is the one who hangs.
    pub begun: Option<(Epoch, Option<u64>)>,
    /// The last broadcast that it took part in to the end.
    pub done: Option<(Epoch, u64)>,
    /// The last epoch whose communicator it aborted for a fault or a deadline.
    pub failed: Option<Epoch>,
}

impl Epoch {
    /// The one after it.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It lets whoever knows it into the communicator.
        f.write_str("UniqueId(hidden)")
    }
}
