//! What a convener tells of itself, for `status`.

use std::fmt;
use std::time::Duration;

use crate::words::{Epoch, Member};

/// What the membership is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// There is no communicator.
    Apart,
    /// The learner draws the identifier of the next one.
    Naming,
    /// The roster forms it.
    Forming,
    /// It is up and idle.
    Together,
    /// The roster broadcasts this version.
    Sending(u64),
}

/// A member that an epoch ended without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// The epoch.
    pub epoch: Epoch,
    /// The member.
    pub member: Member,
    /// Why.
    pub why: Why,
    /// When.
    pub at: Duration,
    /// Until when it is not asked again.
    pub rests_until: Duration,
}

/// Why an epoch ended without a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The deadline came, and it had not begun.
    NotBegun(Phase),
    /// The deadline came and everybody had begun: somebody hangs, and it may be this one.
    NotEnded(Phase),
    /// Its transport reported fault after fault.
    Faults,
    /// Nothing was heard of it.
    Silent,
    /// It left, or was given up.
    Left,
    /// It came back as another process.
    Reborn,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apart => f.write_str("apart"),
            Self::Naming => f.write_str("drawing an identifier"),
            Self::Forming => f.write_str("forming the communicator"),
            Self::Together => f.write_str("together"),
            Self::Sending(version) => write!(f, "broadcasting version {version}"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBegun(phase) => write!(f, "at the deadline for {phase} it had not begun"),
            Self::NotEnded(phase) => {
                write!(f, "at the deadline for {phase} all had begun and it had not ended")
            }
            Self::Faults => f.write_str("its transport reported fault after fault"),
            Self::Silent => f.write_str("nothing was heard of it"),
            Self::Left => f.write_str("it left, or was given up"),
            Self::Reborn => f.write_str("it came back as another process"),
        }
    }
}
