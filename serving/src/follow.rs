//! Live reload: a better policy takes over while the server runs.
//!
//! Invariant: another policy is loaded beside the one that serves and takes over whole, between requests; one that
//! cannot be loaded changes nothing and is told once.

use crate::desk::Desk;
use crate::loaded::Loaded;
use candle_core::{DType, Device};
use octet_runtime::CancellationToken;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A policy that is to take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which version it is.
    pub version: u64,
    /// Its Hugging Face directory.
    pub directory: PathBuf,
    /// The digest that its weights must have, hex, where it is known.
    pub digest: Option<String>,
}

/// Where better policies come from.
pub trait Source: Send + 'static {
    /// One that is better than `serving`; blocks while it looks.
    ///
    /// # Errors
    /// Why it cannot be told now.
    fn better(&mut self, serving: Option<u64>) -> Result<Option<Candidate>, String>;
}

/// Looks for better policies every `every` until `stop`, and lets them take over. `serving` is the version that
/// serves at first, if it is one of the source's.
pub async fn follow(
    desk: Arc<Desk>,
    mut source: impl Source,
    mut serving: Option<u64>,
    every: Duration,
    (dtype, device): (DType, Device),
    stop: CancellationToken,
) {
    let mut told = String::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let device = device.clone();
        let look = move || {
            let found = source.better(serving).and_then(|found| {
                let Some(found) = found else { return Ok(None) };
                let digest = found.digest.as_deref();
                let loaded = Loaded::open(&found.directory, dtype, &device, digest);
                loaded.map(|loaded| Some((found, loaded))).map_err(|error| error.to_string())
            });
            (source, found)
        };
        // It ends with an error only when it panicked, which its hook has printed.
        let Ok((back, found)) = tokio::task::spawn_blocking(look).await else { return };
        source = back;
        match found {
            Ok(None) => {}
            Ok(Some((candidate, loaded))) => {
                let (version, weights) = (candidate.version, loaded.fingerprint());
                tracing::info!(version, weights, "another policy takes over");
                serving = Some(version);
                desk.swap(loaded);
                told.clear();
            }
            Err(why) if why == told => {}
            Err(why) => {
                tracing::warn!(why, "keeping the policy that serves; looking again");
                told = why;
            }
        }
    }
}
