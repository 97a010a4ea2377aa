//! Everything that ends a worker.
//!
//! Invariant: what passes by itself (a peer that is gone, a stream that broke) is never an error
//! here; what is here will not pass by waiting.

use octet_dataset::RowFaults;
use octet_policy::policy::PolicyError;
use octet_proto::GroupIndex;
use octet_proto::transport::AddressError;
use octet_runtime::mailbox::{MailboxError, Undelivered};
use octet_runtime::net::NetError;
use octet_runtime::supervise::{Exit, RunFailure};
use octet_runtime::wait::WaitedInVain;

use crate::assembly::AssemblyError;
use crate::weights::WeightsError;

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A setting holds what it cannot.
    #[error("worker configuration, `{field}`: expected {expected}, found {found}")]
    BadConfig {
        /// The setting.
        field: &'static str,
        /// What it may hold.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
    /// The model directory cannot be used.
    #[error("load the policy")]
    Policy(#[source] PolicyError),
    /// A peer's address cannot be dialled.
    #[error("dial the {peer}")]
    Address {
        /// Who.
        peer: &'static str,
        /// What is wrong with it.
        source: AddressError,
    },
    /// The coordinator does not take this worker.
    #[error("the coordinator refuses worker {worker} ({kind}): {message}")]
    Unwelcome {
        /// The worker's name.
        worker: String,
        /// The error's stable name.
        kind: String,
        /// The coordinator's words.
        message: String,
    },
    /// The coordinator was away for too long.
    #[error("{0}; start the coordinator, and this worker again")]
    Unreachable(WaitedInVain),
    /// A node of the run does not take this worker's join token.
    #[error("{peer} turns this worker away: {message}")]
    TurnedAway {
        /// Its address.
        peer: String,
        /// Its words.
        message: String,
    },
    /// The service for other workers.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A lease that this worker cannot work on.
    #[error("lease of group {group}: {problem}")]
    BadLease {
        /// The group.
        group: GroupIndex,
        /// What is wrong with it.
        problem: String,
    },
    /// The leased example cannot be read.
    #[error("read the example of group {group}")]
    Example {
        /// The group.
        group: GroupIndex,
        /// What is wrong with it, field by field.
        source: RowFaults,
    },
    /// The example cannot be made a prompt, or a completion not a text.
    #[error("turn group {group} into tokens or back")]
    Text {
        /// The group.
        group: GroupIndex,
        /// Why.
        source: PolicyError,
    },
    /// The prompt leaves no room for a completion.
    #[error(
        "prompt of group {group}: expected fewer than {context} tokens, the policy's context, found {found}: leave the row out of the data set, or use a policy with a longer context"
    )]
    PromptTooLong {
        /// The group.
        group: GroupIndex,
        /// Tokens that the context holds.
        context: usize,
        /// Tokens of the prompt.
        found: usize,
    },
    /// The weights of a version cannot be had or used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The model's computation failed.
    #[error("sample with the policy")]
    Compute(#[source] candle_core::Error),
    /// The engine's thread could not be started.
    #[error("start the engine's thread")]
    Thread(#[source] std::io::Error),
    /// The thread for broadcasts could not be started.
    #[error("start the thread for broadcasts of weights")]
    BroadcastThread(#[source] std::io::Error),
    /// The engine's thread panicked.
    #[error("the engine's thread ended without a word: it panicked; this is a bug")]
    EngineLost,
    /// A completion got no reward, and the configuration says that this ends the run.
    #[error(
        "no reward for sample {sample} of group {group} ({kind}): {message}: mend the reward function, or set `on_reward_failure` to `zero`"
    )]
    Reward {
        /// The group.
        group: GroupIndex,
        /// Its sample.
        sample: u32,
        /// The failure's stable name.
        kind: String,
        /// The reward service's words.
        message: String,
    },
    /// The learner holds other bits of a group that this worker delivers.
    #[error(
        "the learner refuses group {group} (impure-duplicate): {message}: two workers sampled the same group to different results, so the run is not a pure function of its configuration; compare their builds and devices"
    )]
    Impure {
        /// The group.
        group: GroupIndex,
        /// The learner's words.
        message: String,
    },
    /// The learner refuses a group for a reason that no new sample would change.
    #[error("the learner refuses group {group} ({kind}): {message}")]
    Refused {
        /// The group.
        group: GroupIndex,
        /// The refusal's stable name.
        kind: String,
        /// The learner's words.
        message: String,
    },
    /// Completions and rewards that do not make a group.
    #[error(transparent)]
    Assembly(#[from] AssemblyError),
    /// A task inside an actor panicked.
    #[error("the task for {what} ended without a word: {problem}; this is a bug")]
    Lost {
        /// What it was doing.
        what: &'static str,
        /// What is known of its end.
        problem: String,
    },
    // A source, not transparent: the supervisor looks for it to tell causes from consequences.
    /// Another part of the worker does not keep up, or has ended.
    #[error("hand work to another part of the worker")]
    Mailbox(#[source] MailboxError),
    /// A part of the worker panicked or did not stop in time.
    #[error("worker: {0}")]
    Run(RunFailure),
}

impl WorkerError {
    pub(crate) fn lost(what: &'static str, problem: &dyn std::error::Error) -> Self {
        Self::Lost { what, problem: problem.to_string() }
    }
}

impl From<MailboxError> for WorkerError {
    fn from(error: MailboxError) -> Self {
        Self::Mailbox(error)
    }
}

impl<T> From<Undelivered<T>> for WorkerError {
    fn from(undelivered: Undelivered<T>) -> Self {
        Self::Mailbox(undelivered.why)
    }
}

impl From<RunFailure> for WorkerError {
    /// The error of the actor that was the cause, if it has one.
    fn from(mut failure: RunFailure) -> Self {
        match failure.cause.take() {
            Some((actor, Exit::Failed(cause))) => match cause.downcast::<Self>() {
                Ok(error) => *error,
                Err(cause) => {
                    failure.cause = Some((actor, Exit::Failed(cause)));
                    Self::Run(failure)
                }
            },
            cause => {
                failure.cause = cause;
                Self::Run(failure)
            }
        }
    }
}
