//! Has completions scored by the replicas of their revision.
//!
//! Invariant: every question is settled exactly once, with a reward or a named failure, unless it is
//! taken back. What a replica left unanswered goes to another one; with none left it waits.

mod actor;
mod book;
mod health;
mod replica;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use octet_proto::RevisionNumber;

pub(crate) use actor::{Command, Scoring};

use crate::assembly::Reward;
use crate::groups::JobId;

/// One immutable version of the reward, as a lease names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revision {
    pub number: RevisionNumber,
    pub name: String,
    pub digest: String,
    pub endpoints: Vec<String>,
}

/// A completion that wants its reward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub job: JobId,
    pub group: u64,
    pub sample: u32,
    pub completion: String,
    pub example_json: Arc<str>,
}

/// A completion's end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settled {
    pub job: JobId,
    pub group: u64,
    pub sample: u32,
    pub outcome: Result<Reward, Failure>,
}

/// Why there is no reward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// A stable name.
    pub kind: String,
    /// For a person.
    pub message: String,
    /// Whether asking again may help.
    pub retryable: bool,
}
