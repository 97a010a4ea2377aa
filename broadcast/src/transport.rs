//! What carries a broadcast: NCCL, or in the tests something that can be told to misbehave.
//!
//! Invariant: no call is meant to wait for another member; what does is begun and then asked after. A library
//! may break that, so whatever is under way can be aborted from another thread.

use std::sync::Arc;

use crate::words::{Place, UniqueId};

/// What carries a broadcast. It has at most one communicator.
pub trait Transport {
    /// Draws an identifier.
    ///
    /// # Errors
    /// The library cannot.
    fn unique_id(&mut self) -> Result<UniqueId, Fault>;

    /// Begins to form a communicator.
    ///
    /// # Errors
    /// The library refuses.
    fn form(&mut self, place: &Place) -> Result<(), Fault>;

    /// Begins to broadcast a version from rank 0, or to receive it.
    ///
    /// # Errors
    /// The library refuses, or the version is not there to be sent.
    fn broadcast(&mut self, version: u64) -> Result<(), Fault>;

    /// How far that is.
    ///
    /// # Errors
    /// The communicator is broken.
    fn poll(&mut self) -> Result<Progress, Fault>;

    /// Gives the communicator up at once, also in the middle of something.
    fn abort(&mut self);

    /// What does the same from another thread, while a call of this one does not return.
    fn abort_handle(&self) -> Arc<dyn Abort>;
}

/// Gives up the communicator that its transport has at that moment, if it has one.
pub trait Abort: Send + Sync {
    /// Does it, so that whichever call is inside of the library returns. It may be called at any time, from
    /// any thread, and more than once.
    fn abort(&self);
}

impl<F: Fn() + Send + Sync> Abort for F {
    fn abort(&self) {
        self();
    }
}

impl<T: Transport + ?Sized> Transport for Box<T> {
    fn unique_id(&mut self) -> Result<UniqueId, Fault> {
        (**self).unique_id()
    }

    fn form(&mut self, place: &Place) -> Result<(), Fault> {
        (**self).form(place)
    }

    fn broadcast(&mut self, version: u64) -> Result<(), Fault> {
        (**self).broadcast(version)
    }

    fn poll(&mut self) -> Result<Progress, Fault> {
        (**self).poll()
    }

    fn abort(&mut self) {
        (**self).abort();
    }

    fn abort_handle(&self) -> Arc<dyn Abort> {
        (**self).abort_handle()
    }
}

/// How far a transport is with what was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Under way.
    Busy,
    /// Nothing is under way any more.
    Idle,
}

/// What went wrong in a transport.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{doing}: {problem}")]
pub struct Fault {
    /// What was being done.
    pub doing: &'static str,
    /// What the library says.
    pub problem: String,
}
