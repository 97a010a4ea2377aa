//! What is shown to the server: the header, made once.
//!
//! Invariant: it is never printed.

use crate::error::TrackingError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// An `Authorization` header.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(String);

impl Credentials {
    /// As MLflow's own client chooses: user and password where both are there, else the token.
    ///
    /// # Errors
    /// One of user and password without the other, or a value that no header can hold.
    pub fn new(
        user: Option<String>,
        password: Option<String>,
        token: Option<String>,
    ) -> Result<Option<Self>, TrackingError> {
        let alone = |variable, other: &str| TrackingError::Variable {
            variable,
            expected: format!("{other} beside it"),
            found: "nothing".into(),
        };
        let header = match (user, password, token) {
            (Some(user), Some(password), _) => {
                format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
            }
            (Some(_), None, None) => {
                return Err(alone("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"));
            }
            (None, Some(_), None) => {
                return Err(alone("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_USERNAME"));
            }
            (_, _, Some(token)) => format!("Bearer {}", token.trim()),
            (None, None, None) => return Ok(None),
        };
        if ureq::http::HeaderValue::from_str(&header).is_err() {
            return Err(TrackingError::Variable {
                variable: "MLFLOW_TRACKING_TOKEN",
                expected: "one line of visible characters".into(),
                found: "something else".into(),
            });
        }
        Ok(Some(Self(header)))
    }

    pub(super) fn header(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn header(user: Option<&str>, password: Option<&str>, token: Option<&str>) -> Option<String> {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let made = Credentials::new(own(user), own(password), own(token)).unwrap();
        made.map(|made| made.header().to_owned())
    }

    #[test]
    fn user_and_password_come_before_the_token() {
        // RFC 7617, section 2.
        let basic = header(Some("Aladdin"), Some("open sesame"), Some("token"));
        assert_eq!(basic.unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(header(None, None, Some("abc\n")).unwrap(), "Bearer abc");
        assert_eq!(header(Some("me"), None, Some("abc")).unwrap(), "Bearer abc");
        assert_eq!(header(None, None, None), None);
    }

    #[test]
    fn half_of_them_is_refused_and_nothing_is_printed() {
        let half = Credentials::new(Some("me".into()), None, None).unwrap_err();
        assert_eq!(
            half.to_string(),
            "MLFLOW_TRACKING_USERNAME: expected MLFLOW_TRACKING_PASSWORD beside it, found nothing"
        );
        assert!(Credentials::new(None, None, Some("a\nb".into())).is_err());
        let made = Credentials::new(None, None, Some("secret".into())).unwrap();
        assert!(!format!("{made:?}").contains("secret"));
    }
}
