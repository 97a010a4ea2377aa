//! The learner as a peer that may move, go, and come back.
//!
//! Invariant: one channel per address is kept, so that a reconnect is the transport's business and
//! a new address is noticed at the next use.

use std::time::Duration;

use octet_proto::auth::{JoinToken, Line};
use octet_proto::transport::{AddressError, ClientOptions};
use octet_runtime::net::Dialer;
use octet_runtime::wait::Waits;
use tokio::sync::watch;

use crate::error::WorkerError;

/// How long a run without a learner is nothing to worry about.
const USUAL: Duration = Duration::from_secs(60);

/// How nodes of the run are called.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    pub dialer: Dialer,
    pub options: ClientOptions,
    pub token: JoinToken,
    /// Keys the pauses of this node, so that nodes do not return all at once.
    pub seed: u64,
}

/// Where the learner is, as the coordinator says.
#[derive(Clone, Debug)]
pub(crate) struct Learner {
    peers: Peers,
    address: watch::Receiver<String>,
    waits: Waits,
    open: Option<(String, Line)>,
}

impl Peers {
    /// A line to a node of the run.
    pub(crate) fn line(&self, address: &str) -> Result<Line, AddressError> {
        Ok(Line::new(self.dialer.dial(address, &self.options)?, &self.token))
    }
}

impl Learner {
    pub(crate) fn new(peers: Peers, address: watch::Receiver<String>, waits: Waits) -> Self {
        Self { peers, address, waits, open: None }
    }

    /// Keys the pauses of this node.
    pub(crate) fn seed(&self) -> u64 {
        self.peers.seed
    }

    /// Its address now; empty while there is none.
    pub(crate) fn address(&self) -> String {
        self.address.borrow().clone()
    }

    /// A line to it, once there is one.
    pub(crate) async fn channel(&mut self) -> Result<Line, WorkerError> {
        if self.address.borrow().is_empty() {
            let _wait = self.waits.enter("learner", "none has registered yet", USUAL);
            let lost = self.address.wait_for(|address| !address.is_empty()).await.is_err();
            if lost {
                // Whoever would tell the address has ended, and so does this.
                return std::future::pending().await;
            }
        }
        let address = self.address.borrow_and_update().clone();
        if let Some((_, line)) = self.open.as_ref().filter(|(at, _)| *at == address) {
            return Ok(line.clone());
        }
        let dialled = self.peers.line(&address);
        let line = dialled.map_err(|source| WorkerError::Address { peer: "learner", source })?;
        self.open = Some((address, line.clone()));
        Ok(line)
    }

    /// Completes when the learner has moved since the last [`Learner::channel`].
    pub(crate) async fn moved(&mut self) {
        if self.address.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
