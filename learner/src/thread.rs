//! Work that blocks, on operating system threads of its own.
//!
//! Invariant: outside of simulations the runtime's threads never compute and never wait for a disk; a
//! panic of the work is an error with its name, not a silence.

use crate::error::LearnerError;
use std::time::Duration;
use tokio::sync::oneshot;

/// Where work is done that blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// On a new thread.
    #[default]
    Thread,
    /// Where it is asked for. In a simulation one thread does everything, and time is the test's: work
    /// takes none by itself.
    Here,
}

impl Place {
    /// Does `work`, under that name. In a simulation it takes `simulated` of the runtime's time.
    pub async fn run<T: Send + 'static>(
        self,
        name: &'static str,
        simulated: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LearnerError> {
        match self {
            Self::Thread => on_thread(name, work).await,
            Self::Here => {
                tokio::time::sleep(simulated).await;
                Ok(work())
            }
        }
    }
}

/// Runs `work` on a new, named thread, in the span of whoever asks. Dropping the future does not end the work.
pub(crate) async fn on_thread<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LearnerError> {
    let (done, result) = oneshot::channel();
    let span = tracing::Span::current();
    let failed = |reason| LearnerError::Threads { what: name, reason };
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        // Who waited may be gone; the work is done all the same.
        .spawn(move || drop(done.send(span.in_scope(work))))
        .map_err(|error| failed(error.to_string()))?;
    match result.await {
        Ok(result) => Ok(result),
        // Only a panic drops the sender; its message is on the standard error already.
        Err(_dropped) => {
            let panic = thread.join().err();
            let message = panic.as_ref().and_then(|panic| {
                panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            });
            Err(failed(format!("it panicked: {}", message.unwrap_or_default())))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_with_its_message() {
        let error = on_thread("octet-test", || panic!("seven")).await.map(|(): ()| ()).unwrap_err();
        assert!(error.to_string().contains("octet-test") && error.to_string().contains("seven"));
        assert_eq!(on_thread("octet-test", || 7).await.unwrap(), 7);
    }
}
