//! The token that nodes present to join a run.
//!
//! Invariant: it is never printed, and comparing takes as long whatever is presented.

use std::fmt;

use crate::error::CoordinatorError;

/// A run's join token.
#[derive(Clone)]
pub struct JoinToken(String);

impl JoinToken {
    /// A token as it comes from a file, the environment or a generator.
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets `node` in if it presents this token.
    pub(crate) fn check(&self, node: &str, presented: &str) -> Result<(), CoordinatorError> {
        let node = node.chars().take(128).collect();
        if presented.is_empty() {
            return Err(CoordinatorError::NoToken { node });
        }
        let (ours, theirs) = (self.0.as_bytes(), presented.as_bytes());
        let differing = (0..theirs.len()).fold(ours.len() ^ theirs.len(), |seen, index| {
            seen | usize::from(ours[index % ours.len()] ^ theirs[index])
        });
        if differing == 0 { Ok(()) } else { Err(CoordinatorError::WrongToken { node }) }
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_opens() {
        let token = JoinToken::new("open sesame");
        assert!(token.check("w", "open sesame").is_ok());
        assert!(matches!(token.check("w", ""), Err(CoordinatorError::NoToken { .. })));
        for wrong in ["open sesamE", "open sesam", "open sesameo", "open sesameopen sesame"] {
            let error = token.check("w", wrong);
            assert!(matches!(error, Err(CoordinatorError::WrongToken { .. })), "{wrong}");
        }
        assert!(!format!("{token:?}").contains("sesame"));
    }
}
