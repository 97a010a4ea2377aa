//! The learner as a peer that may move, go, and come back.
//!
//! Invariant: one channel per address is kept, so that a reconnect is the transport's business and
//! a new address is noticed at the next use.

use std::time::Duration;

use octet_proto::transport::ClientOptions;
use octet_runtime::net::Dialer;
use octet_runtime::wait::Waits;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::error::WorkerError;

/// How long a run without a learner is nothing to worry about.
const USUAL: Duration = Duration::from_secs(60);

/// Where the learner is, as the coordinator says.
#[derive(Clone, Debug)]
pub(crate) struct Learner {
    dialer: Dialer,
    options: ClientOptions,
    address: watch::Receiver<String>,
    waits: Waits,
    open: Option<(String, Channel)>,
}

impl Learner {
    pub(crate) fn new(
        dialer: Dialer,
        options: ClientOptions,
        address: watch::Receiver<String>,
        waits: Waits,
    ) -> Self {
        Self { dialer, options, address, waits, open: None }
    }

    /// Its address now; empty while there is none.
    pub(crate) fn address(&self) -> String {
        self.address.borrow().clone()
    }

    /// A channel to it, once there is one.
    pub(crate) async fn channel(&mut self) -> Result<Channel, WorkerError> {
        if self.address.borrow().is_empty() {
            let _wait = self.waits.enter("learner", "none has registered yet", USUAL);
            let lost = self.address.wait_for(|address| !address.is_empty()).await.is_err();
            if lost {
                // Whoever would tell the address has ended, and so does this.
                return std::future::pending().await;
            }
        }
        let address = self.address.borrow_and_update().clone();
        if let Some((_, channel)) = self.open.as_ref().filter(|(at, _)| *at == address) {
            return Ok(channel.clone());
        }
        let dialled = self.dialer.dial(&address, &self.options);
        let channel = dialled.map_err(|source| WorkerError::Address { peer: "learner", source })?;
        self.open = Some((address, channel.clone()));
        Ok(channel)
    }

    /// Completes when the learner has moved since the last [`Learner::channel`].
    pub(crate) async fn moved(&mut self) {
        if self.address.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
