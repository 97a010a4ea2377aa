//! How actors end, what that means, and which of several ends was the cause.
//!
//! Invariant: pure. Whatever the order in which exits are noticed, an actor that ended because
//! another one had ended is never reported as the cause.

use std::any::Any;
use std::error::Error;
use std::fmt;

use octet_proto::error::with_causes;

use super::Kind;
use crate::mailbox::MailboxError;

/// What an actor fails with.
pub type Failure = Box<dyn Error + Send + Sync>;

/// How an actor ended.
#[derive(Debug)]
pub enum Exit {
    /// It returned without having been told to stop.
    Quit,
    /// It returned after it was told to stop.
    Cancelled,
    /// It was ended by force, because it did not stop in time.
    Aborted,
    /// It panicked, with this message.
    Panicked(String),
    /// It returned this error.
    Failed(Failure),
}

/// What to do after an actor's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go on without it.
    GoOn,
    /// Start it again.
    Restart,
    /// Stop the run: it is done.
    Finish,
    /// Stop the run: it failed.
    Fail,
}

/// Why a run failed.
#[derive(Debug)]
pub struct RunFailure {
    /// The root cause: the actor, and how it ended. None when all was well until actors were late.
    pub cause: Option<(String, Exit)>,
    /// Other actors that ended badly, in the order in which it was noticed.
    pub others: Vec<(String, Exit)>,
    /// Actors that did not stop within their stage's deadline.
    pub overdue: Vec<String>,
}

impl Kind {
    /// What the end of an actor of this kind means, after `failures` bad ends in a row, this one
    /// included.
    pub const fn after(&self, exit: &Exit, failures: u32) -> Decision {
        match (self, exit) {
            (_, Exit::Cancelled) | (Self::Transient, Exit::Quit) => Decision::GoOn,
            (Self::Main, Exit::Quit) => Decision::Finish,
            (Self::Restarted { give_up_after, .. }, _) if failures < *give_up_after => {
                Decision::Restart
            }
            _ => Decision::Fail,
        }
    }
}

impl Exit {
    /// A panic with what it said.
    pub(super) fn panicked(payload: &(dyn Any + Send)) -> Self {
        let message = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned());
        Self::Panicked(message.unwrap_or_else(|| "(no message)".to_owned()))
    }

    /// Whether the actor ended because another one had: its mailbox was closed.
    pub(super) fn is_consequence(&self) -> bool {
        let Self::Failed(failure) = self else { return false };
        let mut next: Option<&(dyn Error + 'static)> = Some(failure.as_ref());
        while let Some(error) = next {
            if error.downcast_ref::<MailboxError>().is_some_and(MailboxError::is_consequence) {
                return true;
            }
            next = error.source();
        }
        false
    }
}

impl RunFailure {
    /// The failure that these ends amount to; none when nothing went wrong.
    pub(super) fn of(mut exits: Vec<(String, Exit)>, overdue: Vec<String>) -> Option<Self> {
        if exits.is_empty() && overdue.is_empty() {
            return None;
        }
        let root = exits.iter().position(|(_, exit)| !exit.is_consequence()).unwrap_or(0);
        let cause = (root < exits.len()).then(|| exits.remove(root));
        Some(Self { cause, others: exits, overdue })
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quit => f.write_str("quit before the run was over"),
            Self::Cancelled => f.write_str("stopped as told"),
            Self::Aborted => f.write_str("was ended by force"),
            Self::Panicked(message) => write!(f, "panicked: {message}"),
            Self::Failed(failure) => write!(f, "failed: {}", with_causes(failure.as_ref())),
        }
    }
}

impl fmt::Display for RunFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((actor, exit)) = &self.cause {
            write!(f, "actor `{actor}` {exit}")?;
        }
        if !self.overdue.is_empty() {
            let join = if self.cause.is_some() { "; " } else { "" };
            write!(f, "{join}did not stop in time: {}", self.overdue.join(", "))?;
        }
        Ok(())
    }
}

impl Error for RunFailure {}
