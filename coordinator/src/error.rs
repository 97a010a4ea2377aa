//! Every way in which the coordinator fails, and the one mapping of it to gRPC.
//!
//! Invariant: a client can tell by kind and code alone what to do: register again, correct itself,
//! end, or try again later.

use octet_proto::error::{ServiceError, to_status};
use octet_proto::transport::AddressError;
use octet_runtime::mailbox::MailboxError;
use octet_runtime::net::NetError;
use tonic::{Code, Status};

use crate::journal::JournalError;
use crate::machine::{Refusal, Violation};
use crate::plan::PlanError;

/// What goes wrong in, or with, a coordinator.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// The machine says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A node named an address that nobody can dial.
    #[error("field `{field}`")]
    Address {
        /// The field's name on the wire.
        field: &'static str,
        /// What is wrong with it.
        source: AddressError,
    },
    /// The coordinator stops or has ended.
    #[error("the coordinator is stopping: try again, it may be starting anew")]
    Stopping,
    /// The coordinator's actor does not keep up.
    #[error("the coordinator is busy: try again later")]
    Busy(#[source] MailboxError),
    /// The journal cannot be opened or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The plan cannot be run.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The data set is not the planned one.
    #[error(
        "data set: the plan is for {expected} rows, found {found}: use the data set that the configuration names"
    )]
    Rows {
        /// How many rows the plan counts on.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// The run's join token is empty.
    #[error("the join token of a run may not be empty: choose one, or let one be made")]
    EmptyToken,
    /// The state machine contradicts itself.
    #[error(
        "the coordinator found itself in a state that cannot be, and stops rather than train wrongly; this is a bug"
    )]
    Violated(#[from] Violation),
    /// Listening or serving failed.
    #[error(transparent)]
    Net(#[from] NetError),
}

impl From<MailboxError> for CoordinatorError {
    fn from(error: MailboxError) -> Self {
        if error.is_consequence() { Self::Stopping } else { Self::Busy(error) }
    }
}

impl ServiceError for CoordinatorError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.kind(),
            Self::Address { .. } => "bad-address",
            Self::Stopping => "stopping",
            Self::Busy(_) => "busy",
            Self::Journal(_) => "journal",
            Self::Plan(_) => "bad-plan",
            Self::Rows { .. } => "wrong-rows",
            Self::EmptyToken => "empty-token",
            Self::Violated(_) => "violated",
            Self::Net(_) => "network",
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Refused(refusal) => match refusal {
                Refusal::WrongDigest { .. }
                | Refusal::RewardChanged { .. }
                | Refusal::ScheduleChanged { .. }
                | Refusal::TooLate { .. } => Code::FailedPrecondition,
                Refusal::UnknownWorker { .. } | Refusal::UnknownLearner { .. } => Code::NotFound,
                Refusal::SupersededLearner { .. } | Refusal::RewardMoved { .. } => Code::Aborted,
                Refusal::TooMany { .. } => Code::ResourceExhausted,
                Refusal::BadField { .. } => Code::InvalidArgument,
            },
            Self::Address { .. } => Code::InvalidArgument,
            Self::Stopping | Self::Busy(_) => Code::Unavailable,
            Self::Plan(_) | Self::Rows { .. } | Self::EmptyToken => Code::FailedPrecondition,
            Self::Journal(_) | Self::Violated(_) | Self::Net(_) => Code::Internal,
        }
    }
}

impl From<CoordinatorError> for Status {
    fn from(error: CoordinatorError) -> Self {
        match error {
            // No verdict on the request: to a client it is a peer that went away, to be tried again.
            CoordinatorError::Stopping | CoordinatorError::Busy(_) => {
                Status::unavailable(octet_proto::error::with_causes(&error))
            }
            refused => to_status(&refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use octet_proto::WorkerId;
    use octet_proto::error::{error_kind, is_transport_failure};

    use super::*;

    #[test]
    fn a_client_can_tell_register_again_from_try_again() {
        let unknown = Refusal::UnknownWorker { worker: WorkerId(7) };
        let status = Status::from(CoordinatorError::from(unknown));
        assert_eq!((status.code(), error_kind(&status)), (Code::NotFound, Some("unknown-worker")));
        assert!(!is_transport_failure(&status));
        assert!(is_transport_failure(&Status::from(CoordinatorError::Stopping)));
    }
}
