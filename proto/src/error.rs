//! How a service's error crosses the wire and is read on the other side.
//!
//! Invariant: what a service refuses carries a stable `kind` in the metadata, and what the network
//! broke does not. A client decides by kind and by [`is_transport_failure`], never by message text.

use std::error::Error;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// The metadata key that carries an error's kind.
pub const ERROR_KIND: &str = "octet-error-kind";

/// The longest message that crosses; more would burst the peer's header limit and hide the error.
const LONGEST_MESSAGE: usize = 2048;

/// A service's error enum. One per service; [`to_status`] is its one way onto the wire:
///
/// ```
/// use octet_proto::error::{ServiceError, to_status};
/// use tonic::{Code, Status};
///
/// #[derive(Debug, thiserror::Error)]
/// enum CounterError {
///     #[error("counter `{0}` is not known: create it first")]
///     Unknown(String),
/// }
///
/// impl ServiceError for CounterError {
///     fn kind(&self) -> &'static str {
///         "unknown-counter"
///     }
///     fn code(&self) -> Code {
///         Code::NotFound
///     }
/// }
///
/// impl From<CounterError> for Status {
///     fn from(error: CounterError) -> Self {
///         to_status(&error)
///     }
/// }
/// ```
pub trait ServiceError: Error {
    /// A stable, machine-readable name in ASCII, e.g. `wrong-digest`.
    fn kind(&self) -> &'static str;

    /// The gRPC code that says what a client may do about it.
    fn code(&self) -> Code;
}

/// The status for an error: its code, its kind, and its message with all its causes.
pub fn to_status<E: ServiceError>(error: &E) -> Status {
    let mut status = Status::new(error.code(), bounded(&with_causes(error)));
    // A kind is a literal of ours; one that no header can carry would be dropped, not sent broken.
    if let Ok(kind) = MetadataValue::try_from(error.kind()) {
        status.metadata_mut().insert(ERROR_KIND, kind);
    }
    status
}

/// The kind that the service gave its error; none when the network or the transport failed.
pub fn error_kind(status: &Status) -> Option<&str> {
    status.metadata().get(ERROR_KIND).and_then(|kind| kind.to_str().ok())
}

/// Whether the call failed on its way, not in the service: the peer is down, unreachable, too late,
/// or went away half-way. Sending the same request again, with back-off, can help.
pub fn is_transport_failure(status: &Status) -> bool {
    // tonic attaches a source to what it made from a local failure; what a peer sent has none.
    error_kind(status).is_none()
        && (status.source().is_some() || status.code() == Code::Unavailable)
}

/// An error and everything that caused it, on one line, each cause once.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let message = next.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = next.source();
    }
    text
}

/// What is known of a failed call, on one line: the service's words, or what broke on the way.
pub fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(next) = cause {
        let message = next.to_string();
        if !text.contains(&message) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&message);
        }
        cause = next.source();
    }
    if text.is_empty() { status.code().to_string() } else { text }
}

fn bounded(message: &str) -> String {
    match message.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Broken {
        #[error("write the spool")]
        Disk(#[source] std::io::Error),
        #[error("{0}")]
        Long(String),
    }

    impl ServiceError for Broken {
        fn kind(&self) -> &'static str {
            "broken"
        }
        fn code(&self) -> Code {
            Code::DataLoss
        }
    }

    #[test]
    fn a_status_carries_code_kind_and_root_cause() {
        let status =
            to_status(&Broken::Disk(std::io::Error::other("no space left, 12 bytes needed")));
        assert_eq!(status.code(), Code::DataLoss);
        assert_eq!(error_kind(&status), Some("broken"));
        assert_eq!(status.message(), "write the spool: no space left, 12 bytes needed");
        assert!(!is_transport_failure(&status));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let status = to_status(&Broken::Long("é".repeat(5000)));
        assert_eq!(status.message().chars().count(), LONGEST_MESSAGE + 1);
        assert!(status.message().ends_with("é…"));
    }

    #[test]
    fn only_what_the_network_broke_is_a_transport_failure() {
        assert!(is_transport_failure(&Status::unavailable("connection refused")));
        assert!(!is_transport_failure(&Status::invalid_argument("group 7: no completions")));
        assert!(!is_transport_failure(&Status::internal("another language's server threw")));
    }
}
