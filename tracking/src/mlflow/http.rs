//! One HTTP call with its deadline, and what its answer means.
//!
//! Invariants: connecting takes at most [`CONNECT`], a call at most [`CALL`], and no more of an answer is read than
//! [`MOST_ANSWER`]. No redirect is followed: what is posted must not become a question to somebody else.

use super::{Failure, Settings, is_loopback};
use crate::error::TrackingError;
use serde_json::Value;
use std::time::Duration;
use ureq::http::{Method, Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, Timeout};

/// How long connecting may take.
pub const CONNECT: Duration = Duration::from_secs(5);
/// How long a call may take in all.
pub const CALL: Duration = Duration::from_secs(30);
/// The most bytes of an answer.
const MOST_ANSWER: u64 = 8 << 20;
/// The most characters of an error that are repeated.
const MOST_SAID: usize = 400;

/// A tracking server.
#[derive(Debug)]
pub struct Server {
    agent: Agent,
    settings: Settings,
}

impl Server {
    /// Speaks to nobody yet.
    ///
    /// # Errors
    /// The certificates cannot be read.
    pub fn new(settings: Settings) -> Result<Self, TrackingError> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("octet/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            // MLflow's server closes idle connections after five seconds; one that is closing fails the next call.
            .max_idle_age(Duration::from_secs(3))
            .timeout_global(Some(CALL));
        if is_loopback(&settings.host) {
            // A proxy of the environment does not know this machine's servers.
            config = config.proxy(None);
        }
        if let Some(path) = &settings.authority {
            let text = std::fs::read(path).map_err(TrackingError::disk("read", path))?;
            let items = ureq::tls::parse_pem(&text);
            let certificates: Vec<Certificate<'static>> = items
                .filter_map(|item| match item {
                    Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect();
            if certificates.is_empty() {
                return Err(TrackingError::Content {
                    path: path.clone(),
                    line: None,
                    expected: "certificates in PEM (MLFLOW_TRACKING_SERVER_CERT_PATH)",
                    found: "none".into(),
                });
            }
            let roots = RootCerts::new_with_certs(&certificates);
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(Self { agent: config.build().into(), settings })
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Asks for something by name.
    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        json(&self.call(Method::GET, &self.api(path), &[])?)
    }

    /// Tells it something.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        json(&self.call(Method::POST, &self.api(path), body.to_string().as_bytes())?)
    }

    /// Gives it a file, which replaces one of that address. It says nothing to that.
    pub(super) fn put(&self, url: &str, content: &[u8]) -> Result<(), Failure> {
        self.call(Method::PUT, url, content).map(drop)
    }

    fn api(&self, path: &str) -> String {
        format!("{}/api/2.0/mlflow/{path}", self.settings.base)
    }

    fn call(&self, method: Method, url: &str, body: &[u8]) -> Result<String, Failure> {
        let kind = match method {
            Method::PUT => "application/octet-stream",
            _ => "application/json",
        };
        let mut request = Request::builder().method(&method).uri(url).header("content-type", kind);
        if let Some(credentials) = &self.settings.credentials {
            request = request.header("authorization", credentials.header());
        }
        let stranger = |error: ureq::http::Error| Failure::Stranger(error.to_string());
        let answered = match method {
            Method::GET => self.agent.run(request.body(()).map_err(stranger)?),
            _ => self.agent.run(request.body(body).map_err(stranger)?),
        };
        read(answered.map_err(transport)?)
    }
}

fn transport(error: ureq::Error) -> Failure {
    match error {
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            Failure::Unreachable(format!("no connection within {CONNECT:?}"))
        }
        ureq::Error::Timeout(_) => Failure::Overdue(CALL),
        other => Failure::Unreachable(other.to_string()),
    }
}

fn json(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|_| Failure::Stranger("HTTP 200 without JSON".into()))
}

/// What an answer says, or why it is none.
fn read(mut response: Response<Body>) -> Result<String, Failure> {
    let status = response.status();
    let location = response.headers().get("location").and_then(|to| to.to_str().ok());
    let location = location.map(str::to_owned);
    let body = response.body_mut().with_config().limit(MOST_ANSWER).read_to_vec();
    let text = String::from_utf8_lossy(&body.map_err(transport)?).into_owned();
    if status.is_success() {
        return Ok(text);
    }
    let said = serde_json::from_str::<Value>(&text);
    let word = |name: &str| {
        let value = said.as_ref().ok().and_then(|said| said.get(name));
        value.and_then(Value::as_str).map(|text| crate::flatten::cut(text, MOST_SAID))
    };
    let message = word("message").unwrap_or_else(|| match text.trim() {
        "" => "no explanation".into(),
        other => crate::flatten::cut(other, MOST_SAID),
    });
    Err(match (status.as_u16(), word("error_code")) {
        (301..=399, _) => {
            let to = location.unwrap_or_else(|| "nowhere".into());
            Failure::Stranger(format!("HTTP {status} sends to {to}"))
        }
        (status @ (401 | 403), _) => Failure::Denied(status),
        (status @ (408 | 425 | 429 | 500..=599), _) => Failure::Broken { status, message },
        (413, _) => Failure::Refused { code: "HTTP 413".into(), message },
        (_, Some(code)) => Failure::Refused { code, message },
        (_, None) => Failure::Stranger(format!("HTTP {status}: {message}")),
    })
}
