//! Ctrl-C and SIGTERM as one cancellation token.
//!
//! Invariant: the first signal asks everything to stop in its own order; the second ends the process
//! at once, because whoever sends it has decided not to wait.

use std::io;

use tokio_util::sync::CancellationToken;

/// The exit code after a second signal, as shells report an interrupted process.
const ABORTED: i32 = 130;

/// Listens from now on. The token is cancelled at the first signal.
///
/// # Errors
/// The process may not handle signals.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut signals = Signals::listen()?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        let name = signals.next().await;
        tracing::info!(signal = name, "stopping; a second signal ends the process at once");
        cancel.cancel();
        let name = signals.next().await;
        tracing::warn!(signal = name, "ending at once, as asked by a second signal");
        std::process::exit(ABORTED);
    });
    Ok(token)
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> &'static str {
        match tokio::signal::ctrl_c().await {
            Ok(()) => "Ctrl-C",
            // The handler could not be set: no signal will ever come.
            Err(_) => std::future::pending().await,
        }
    }
}
