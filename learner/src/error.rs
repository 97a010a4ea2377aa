//! Every way in which a learner ends badly.
//!
//! Invariant: each has a stable kind; what sampling and learning must agree on (the gap between the
//! two, a group delivered twice) is an error of its own and never a warning.

use crate::advantage::RewardsError;
use crate::commit::CommitError;
use crate::config::LearnerConfigError;
use crate::metrics::MetricsError;
use crate::objective::ObjectiveError;
use crate::plan::MemoryError;
use crate::spool::{ImpureDuplicate, SpoolError};
use crate::step::LogprobGap;
use crate::update::UpdateError;
use octet_policy::policy::PolicyError;
use octet_proto::GroupIndex;
use octet_proto::transport::AddressError;
use octet_runtime::net::NetError;
use octet_runtime::supervise::{Exit, RunFailure};
use octet_runtime::wait::WaitedInVain;
use std::path::PathBuf;

/// Why a learner could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum LearnerError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] LearnerConfigError),
    /// Prompts that the model cannot read.
    #[error(
        "the data set's longest prompt has {prompt} tokens, and the context of the model in {} is {context}: expected room for at least one token of a completion; leave the longest rows out, or choose a model with a longer context",
        model.display()
    )]
    Context {
        /// The model's directory.
        model: PathBuf,
        /// Tokens of the longest prompt.
        prompt: usize,
        /// Positions of the model.
        context: usize,
    },
    /// A step would not fit into memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The policy cannot be loaded.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Checkpoints cannot be read or written.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The spool cannot be read or written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The metrics cannot be read or written.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A group was delivered twice and is not the same: the purity check.
    #[error(transparent)]
    Impure(#[from] ImpureDuplicate),
    /// Sampler and learner disagree.
    #[error(transparent)]
    Gap(#[from] LogprobGap),
    /// A group's rewards.
    #[error("group {group}: {source}")]
    Rewards {
        /// The group.
        group: GroupIndex,
        /// What is wrong with them.
        source: RewardsError,
    },
    /// The loss of a completion.
    #[error("group {group}, sample {sample}: {source}")]
    Objective {
        /// The group.
        group: GroupIndex,
        /// The completion.
        sample: u32,
        /// What is wrong.
        source: ObjectiveError,
    },
    /// A step's groups make no batch.
    #[error("step {step}: {source}")]
    Batch {
        /// The step, from 0.
        step: u64,
        /// What is wrong.
        source: ObjectiveError,
    },
    /// Forward, backward or update.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// A forward pass beside the update: of the reference, or of the version that sampled.
    #[error("the model's computation failed: {0}")]
    Compute(#[from] candle_core::Error),
    /// A thread that could not be started, or panicked.
    #[error("the learner's thread `{what}`: {reason}")]
    Threads {
        /// A thread or a pool.
        what: &'static str,
        /// What the system says.
        reason: String,
    },
    /// The coordinator's address.
    #[error("the coordinator's {0}")]
    Address(#[from] AddressError),
    /// The coordinator turned the learner away.
    #[error("the coordinator refused the learner ({kind}): {message}")]
    Refused {
        /// The coordinator's stable name for it.
        kind: String,
        /// Its message.
        message: String,
    },
    /// The coordinator was away for too long.
    #[error("{wait}: {last}; start the coordinator and resume, what was committed is whole")]
    Unreachable {
        /// The wait that ended in vain.
        wait: WaitedInVain,
        /// The last failure.
        last: String,
    },
    /// Listening or serving.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A part of the learner ended as it should not, or too late.
    #[error("the learner: {0}")]
    Actor(RunFailure),
}

impl LearnerError {
    /// A stable, machine-readable name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Config(_) => "bad-config",
            Self::Context { .. } => "prompt-too-long",
            Self::Memory(_) => "not-enough-memory",
            Self::Policy(_) => "bad-policy",
            Self::Commit(_) => "commit",
            Self::Spool(_) => "spool",
            Self::Metrics(_) => "metrics",
            Self::Impure(_) => "impure-duplicate",
            Self::Gap(_) => "logprob-gap",
            Self::Rewards { .. } => "bad-rewards",
            Self::Objective { .. } | Self::Batch { .. } => "bad-loss",
            Self::Update(_) | Self::Compute(_) => "update",
            Self::Threads { .. } => "threads",
            Self::Address(_) => "bad-address",
            Self::Refused { .. } => "refused",
            Self::Unreachable { .. } => "unreachable",
            Self::Net(_) => "network",
            Self::Actor(_) => "actor",
        }
    }
}

impl From<RunFailure> for LearnerError {
    /// What an actor failed with is the error; who it was is only told where that says more.
    fn from(mut failure: RunFailure) -> Self {
        match failure.cause.take() {
            Some((actor, Exit::Failed(error))) => match error.downcast::<Self>() {
                Ok(error) => *error,
                Err(other) => {
                    failure.cause = Some((actor, Exit::Failed(other)));
                    Self::Actor(failure)
                }
            },
            cause => {
                failure.cause = cause;
                Self::Actor(failure)
            }
        }
    }
}
