//! Why a call was not answered as wanted, and what that means for what was sent.
//!
//! Invariant: only [`Failure::Refused`] says that the server read what was sent and will never take it; every
//! other failure may end by itself, or by somebody mending something, and what was sent is sent again.

use std::time::Duration;

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection, or it broke.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// No answer in time. The server may have done what was asked.
    #[error("did not answer within {0:?}")]
    Overdue(Duration),
    /// It has too much to do, or is broken.
    #[error("answered HTTP {status}: {message}")]
    Broken {
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// It wants to know who is calling.
    #[error(
        "turned the call away with HTTP {0}: set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and \
         MLFLOW_TRACKING_PASSWORD, to those of somebody who may write there"
    )]
    Denied(u16),
    /// It is no MLflow server, or not at this path.
    #[error("does not answer as MLflow does: {0}; check tracking.mlflow")]
    Stranger(String),
    /// It understood, and will not.
    #[error("refused it: {code}: {message}")]
    Refused {
        /// MLflow's word for the reason.
        code: String,
        /// Its explanation.
        message: String,
    },
}

impl Failure {
    /// Whether the server said so with this word.
    pub fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == wanted)
    }
}
