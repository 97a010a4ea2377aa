//! The join token: what a node shows with every call, and what a service demands of it.
//!
//! Invariants: a token is never printed. It travels in the headers, so that a stranger is turned away
//! before a byte of a message is read; comparing takes as long whatever is presented.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::metadata::BinaryMetadataValue;
use tonic::service::Interceptor;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::error::{ServiceError, to_status};

/// The metadata key that carries the token; binary, so that any text can be one.
pub const JOIN_TOKEN: &str = "octet-join-token-bin";

/// A run's join token.
#[derive(Clone)]
pub struct JoinToken(Arc<str>);

impl JoinToken {
    /// A token as it comes from a file, the environment or a generator.
    pub fn new(token: impl AsRef<str>) -> Self {
        Self(token.as_ref().into())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is what was presented. Digests are compared, in constant time, so that neither the
    /// length nor the beginning of the token can be found out by trying.
    pub fn matches(&self, presented: &[u8]) -> bool {
        !self.is_empty() && blake3::hash(self.0.as_bytes()) == blake3::hash(presented)
    }

    /// The header's value; unlike a metadata value, it does not print what it holds.
    fn header(&self) -> Option<http::HeaderValue> {
        let value = BinaryMetadataValue::from_bytes(self.0.as_bytes());
        let mut value = http::HeaderValue::from_bytes(value.as_encoded_bytes()).ok()?;
        value.set_sensitive(true);
        (!self.is_empty()).then_some(value)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(hidden)")
    }
}

impl From<&str> for JoinToken {
    fn from(token: &str) -> Self {
        Self::new(token)
    }
}

/// A channel that shows a join token with every call. Made of a bare channel, it shows none.
#[derive(Clone, Debug)]
pub struct Line {
    channel: Channel,
    token: Option<http::HeaderValue>,
}

impl Line {
    /// Shows `token` with every call on `channel`.
    pub fn new(channel: Channel, token: &JoinToken) -> Self {
        Self { channel, token: token.header() }
    }
}

impl From<Channel> for Line {
    fn from(channel: Channel) -> Self {
        Self { channel, token: None }
    }
}

impl Service<http::Request<Body>> for Line {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = <Channel as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Some(token) = &self.token {
            let name = http::HeaderName::from_static(JOIN_TOKEN);
            request.headers_mut().insert(name, token.clone());
        }
        self.channel.call(request)
    }
}

/// Lets in who shows the run's token. Goes in front of a service.
#[derive(Clone, Debug)]
pub struct Demand {
    token: JoinToken,
    service: &'static str,
}

impl Demand {
    /// Demands `token` for `service`, which is how errors call it.
    pub fn new(token: JoinToken, service: &'static str) -> Self {
        Self { token, service }
    }
}

impl Interceptor for Demand {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let service = self.service;
        let shown = request.metadata().get_bin(JOIN_TOKEN).map(BinaryMetadataValue::to_bytes);
        match shown {
            Some(Ok(shown)) if self.token.matches(&shown) => Ok(request),
            Some(Ok(shown)) if !shown.is_empty() => {
                Err(to_status(&Unwelcome::WrongToken { service }))
            }
            Some(Err(_garbled)) => Err(to_status(&Unwelcome::WrongToken { service })),
            _ => Err(to_status(&Unwelcome::NoToken { service })),
        }
    }
}

/// Why a caller is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwelcome {
    /// It showed nothing.
    #[error(
        "the {service} expected the run's join token, found none: give it to the caller with --join-token or OCTET_JOIN_TOKEN"
    )]
    NoToken {
        /// Who demands it.
        service: &'static str,
    },
    /// It showed another run's.
    #[error(
        "the {service} expected the run's join token, found another one: give the caller the token that this run was started with"
    )]
    WrongToken {
        /// Who demands it.
        service: &'static str,
    },
}

impl ServiceError for Unwelcome {
    fn kind(&self) -> &'static str {
        match self {
            Self::NoToken { .. } => "no-token",
            Self::WrongToken { .. } => "wrong-token",
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::NoToken { .. } => Code::Unauthenticated,
            Self::WrongToken { .. } => Code::PermissionDenied,
        }
    }
}

/// Whether a call was turned away for its token: trying again changes nothing.
pub fn is_unwelcome(status: &Status) -> bool {
    matches!(crate::error::error_kind(status), Some("no-token" | "wrong-token"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::error_kind;
    use proptest::prelude::*;

    fn knock(token: &JoinToken, shown: Option<&[u8]>) -> Result<(), Status> {
        let mut request = Request::new(());
        if let Some(shown) = shown {
            let value = BinaryMetadataValue::from_bytes(shown);
            request.metadata_mut().insert_bin(JOIN_TOKEN, value);
        }
        Demand::new(token.clone(), "learner").call(request).map(drop)
    }

    fn kind(answer: &Result<(), Status>) -> Option<&str> {
        answer.as_ref().err().and_then(error_kind)
    }

    #[test]
    fn only_the_token_itself_opens() {
        let token = JoinToken::new("öpen sesame");
        assert!(knock(&token, Some("öpen sesame".as_bytes())).is_ok());
        assert_eq!(kind(&knock(&token, None)), Some("no-token"));
        assert_eq!(kind(&knock(&token, Some(b""))), Some("no-token"));
        for wrong in ["öpen sesamE", "öpen sesam", "öpen sesameo", "öpen sesameöpen sesame"] {
            let answer = knock(&token, Some(wrong.as_bytes()));
            assert_eq!(kind(&answer), Some("wrong-token"), "{wrong}");
            assert!(answer.is_err_and(|status| is_unwelcome(&status)));
        }
        assert!(!format!("{token:?} {:?}", token.header()).contains("sesame"));
    }

    #[test]
    fn an_empty_token_opens_nothing() {
        assert!(knock(&JoinToken::new(""), Some(b"")).is_err());
        assert!(knock(&JoinToken::new(""), None).is_err());
    }

    proptest! {
        #[test]
        fn a_token_opens_exactly_itself(ours in "\\PC{1,40}", theirs: Vec<u8>) {
            let token = JoinToken::new(&ours);
            prop_assert!(token.matches(ours.as_bytes()));
            prop_assert_eq!(token.matches(&theirs), ours.as_bytes() == theirs.as_slice());
        }
    }
}
