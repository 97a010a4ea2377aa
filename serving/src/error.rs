//! Why a request gets no completion, and how that looks in OpenAI's error JSON.
//!
//! Invariant: each has one status, one `type` and one `code`, so clients decide by them; a message says what was
//! expected, what was found, and what to do.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use axum::http::{Response, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

/// Why a request is refused, or has failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The body is no JSON object.
    #[error("expected a JSON object as the body, found {found}")]
    Body {
        /// What is wrong with it.
        found: String,
    },
    /// A parameter means nothing, or asks for what is not done here.
    #[error("`{param}`: expected {expected}, found {found}")]
    Parameter {
        /// Where it stands, e.g. `messages[2].role`.
        param: String,
        /// What would be accepted.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A parameter that is not known.
    #[error("`{param}`: there is no such parameter{}", nearest(near))]
    Unknown {
        /// Its name.
        param: String,
        /// The nearest one that there is.
        near: Option<String>,
    },
    /// The model's chat template cannot write the conversation.
    #[error("`messages`: the model's chat template refuses the conversation: {0}")]
    Template(String),
    /// The prompt leaves no room.
    #[error(
        "`messages`: the prompt has {found} tokens, expected at most {most} (the model's context is {context}); \
         shorten the conversation or the tools' schemas"
    )]
    PromptTooLong {
        /// Its tokens.
        found: usize,
        /// The most that are taken.
        most: usize,
        /// Tokens of prompt and completion together.
        context: usize,
    },
    /// The body is too long.
    #[error("the body has more than {most} bytes, which is the most that is read")]
    BodyTooLarge {
        /// The limit.
        most: usize,
    },
    /// The body did not come in time.
    #[error("the body was not there within {0:?}")]
    BodyLate(Duration),
    /// The wrong key, or none.
    #[error(
        "expected the header `authorization: Bearer KEY` with this server's key, found {found}"
    )]
    Key {
        /// What was there.
        found: &'static str,
    },
    /// Another model than the one that is served.
    #[error("`model`: expected {served:?}, which is served here, found {found:?}")]
    Model {
        /// The model that was asked for.
        found: String,
        /// The one that there is.
        served: String,
    },
    /// Nothing is at that path.
    #[error(
        "nothing is at {path}: there are /v1/chat/completions, /v1/models, /invocations, /ping, /healthz, /metrics"
    )]
    Path {
        /// The path.
        path: String,
    },
    /// The path takes another method.
    #[error("{path} does not take {method}")]
    Method {
        /// The path.
        path: String,
        /// The method that was used.
        method: String,
    },
    /// The queue is full.
    #[error("{waiting} requests wait already, the most that may; try again in {} s", after.as_secs())]
    Busy {
        /// Places of the queue.
        waiting: usize,
        /// When it is worth trying again.
        after: Duration,
    },
    /// The server is about to end.
    #[error("the server is stopping and takes no more requests; ask another one")]
    Stopping,
    /// The server ended while the request was under way.
    #[error("the server stopped before the completion was finished; ask another one")]
    CutOff,
    /// It took too long.
    #[error(
        "the completion was not finished within {0:?}, the longest that a request may take here"
    )]
    Late(Duration),
    /// The computation failed.
    #[error("the server failed: {0}")]
    Failed(String),
}

fn nearest(near: &Option<String>) -> String {
    near.as_ref().map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

impl Refusal {
    /// A parameter that means nothing.
    pub(crate) fn parameter(
        param: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        let (param, expected, found) = (param.into(), expected.into(), found.into());
        Self::Parameter { param, expected, found }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Body { .. }
            | Self::Parameter { .. }
            | Self::Unknown { .. }
            | Self::Template(_)
            | Self::PromptTooLong { .. } => StatusCode::BAD_REQUEST,
            Self::Key { .. } => StatusCode::UNAUTHORIZED,
            Self::Model { .. } | Self::Path { .. } => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyLate(_) => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Stopping | Self::CutOff => StatusCode::SERVICE_UNAVAILABLE,
            Self::Late(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// OpenAI's `type`: whose fault it is.
    fn kind(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "rate_limit_error",
            Self::Stopping | Self::CutOff | Self::Late(_) | Self::Failed(_) => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// OpenAI's `code`, where it has one for this.
    fn code(&self) -> Option<&'static str> {
        match self {
            Self::Unknown { .. } => Some("unknown_parameter"),
            Self::PromptTooLong { .. } => Some("context_length_exceeded"),
            Self::Key { .. } => Some("invalid_api_key"),
            Self::Model { .. } => Some("model_not_found"),
            Self::Busy { .. } => Some("rate_limit_exceeded"),
            Self::Stopping | Self::CutOff => Some("stopping"),
            Self::Late(_) => Some("timeout"),
            _ => None,
        }
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::Parameter { param, .. } | Self::Unknown { param, .. } => Some(param),
            Self::Template(_) | Self::PromptTooLong { .. } => Some("messages"),
            Self::Model { .. } => Some("model"),
            _ => None,
        }
    }

    /// The error object, as a body has it and a stream that has begun.
    pub fn json(&self) -> Value {
        json!({ "error": {
            "message": self.to_string(),
            "type": self.kind(),
            "param": self.param(),
            "code": self.code(),
        }})
    }

    /// The whole answer.
    pub(crate) fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.json().to_string()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let after = match self {
            Self::Busy { after, .. } => Some(after.as_secs()),
            Self::Stopping | Self::CutOff => Some(1),
            _ => None,
        };
        if let Some(after) = after {
            headers.insert(RETRY_AFTER, HeaderValue::from(after));
        }
        response
    }
}
