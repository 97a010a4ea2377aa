//! Every reason for which the machine says no.
//!
//! Invariant: a refused event has changed nothing.

use octet_proto::{ConfigDigest, RevisionNumber, StepIndex, WorkerId};

use super::ids::LearnerId;

/// A refused event: what was expected, what was found, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The node runs another configuration.
    #[error(
        "configuration digest of {node}: expected {expected}, found {found}: start it with the configuration of run {run_id}"
    )]
    WrongDigest {
        /// Who presented it.
        node: String,
        /// The run.
        run_id: String,
        /// The run's digest.
        expected: ConfigDigest,
        /// The node's digest.
        found: ConfigDigest,
    },
    /// The worker was forgotten, or the coordinator restarted.
    #[error(
        "worker {worker} is not registered (it was silent too long, it left, or the coordinator restarted): register again and go on with the leases that are held"
    )]
    UnknownWorker {
        /// The id that was presented.
        worker: WorkerId,
    },
    /// The coordinator restarted.
    #[error(
        "learner {learner} is not registered (the coordinator restarted): register again with what the spool holds"
    )]
    UnknownLearner {
        /// The id that was presented.
        learner: LearnerId,
    },
    /// A newer learner took over.
    #[error(
        "learner {learner} was superseded by learner {current}: only one may write the run, so this one has to end"
    )]
    SupersededLearner {
        /// The id that was presented.
        learner: LearnerId,
        /// The learner that counts.
        current: LearnerId,
    },
    /// A bound was reached.
    #[error("the run has its limit of {limit} {what}: no more are taken")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// A field holds what it cannot.
    #[error("field `{field}`: expected {expected}, found {found}")]
    BadField {
        /// The field's name on the wire.
        field: &'static str,
        /// What it may hold.
        expected: String,
        /// What it held.
        found: String,
    },
    /// The configured reward is not one of the run's.
    #[error(
        "reward digest: expected one of this run's ({}), found {found}: start the reward service as before, or swap the reward while the run goes on",
        expected.join(", ")
    )]
    RewardChanged {
        /// The digests of the run's revisions.
        expected: Vec<String>,
        /// The configured reward's digest.
        found: String,
    },
    /// Another revision was bound since the caller looked.
    #[error(
        "reward revision: expected {known} to be the newest, found {newest}: look at what changed (`octet reward status`), and swap again if it still is to be"
    )]
    RewardMoved {
        /// The newest that the caller knew of.
        known: RevisionNumber,
        /// The newest.
        newest: RevisionNumber,
    },
    /// Every step has its reward.
    #[error(
        "reward swap: expected a step that was never leased, found all {steps} of the run leased: nothing is left that another reward could score"
    )]
    TooLate {
        /// Steps of the run.
        steps: u64,
    },
    /// The configured schedule is not the one that the run began with.
    #[error(
        "reward schedule: expected the one that the run began with, found the reward {digest} at step {step}, which is not among its revisions: resume with the same schedule, or swap the reward while the run goes on"
    )]
    ScheduleChanged {
        /// The step.
        step: StepIndex,
        /// The scheduled reward's digest.
        digest: String,
    },
}

impl Refusal {
    /// A stable name, for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::WrongDigest { .. } => "wrong-digest",
            Self::UnknownWorker { .. } => "unknown-worker",
            Self::UnknownLearner { .. } => "unknown-learner",
            Self::SupersededLearner { .. } => "superseded-learner",
            Self::TooMany { .. } => "too-many",
            Self::BadField { .. } => "bad-field",
            Self::RewardChanged { .. } => "reward-changed",
            Self::RewardMoved { .. } => "reward-moved",
            Self::TooLate { .. } => "too-late",
            Self::ScheduleChanged { .. } => "schedule-changed",
        }
    }
}
