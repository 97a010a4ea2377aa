//! What is between a transport and the role that it works for: a version's bytes in the host's memory.
//!
//! Invariant: bytes that a store takes in are the published ones, or are refused; so a version that was
//! broadcast is as true as one that was fetched.

use std::fmt;

use bytes::Bytes;

use crate::transport::{Fault, Transport};

/// Where a member has the versions that it sends, and puts those that come.
pub trait Store: Send {
    /// The bytes of a version in pieces, in their order. The root alone is asked.
    ///
    /// # Errors
    /// It does not hold the version.
    fn outgoing(&mut self, version: u64) -> Result<Vec<Bytes>, String>;

    /// How many bytes will come.
    ///
    /// # Errors
    /// It was not told.
    fn expected(&mut self, version: u64) -> Result<usize, String>;

    /// Takes in what came, once it is verified.
    ///
    /// # Errors
    /// It is not the published version.
    fn arrived(&mut self, version: u64, bytes: Bytes) -> Result<(), String>;
}

/// Makes a member's transport around its store, on the thread that will drive it.
pub struct Factory(Box<Make>);

type Make = dyn FnOnce(Box<dyn Store>) -> Result<Box<dyn Transport>, Fault> + Send;

impl Factory {
    /// What makes it.
    pub fn new<T: Transport + 'static>(
        make: impl FnOnce(Box<dyn Store>) -> Result<T, Fault> + Send + 'static,
    ) -> Self {
        Self(Box::new(move |store| Ok(Box::new(make(store)?))))
    }

    pub(crate) fn make(self, store: Box<dyn Store>) -> Result<Box<dyn Transport>, Fault> {
        (self.0)(store)
    }
}

impl fmt::Debug for Factory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Factory")
    }
}
