//! Gives versions out by broadcast: the root's store.
//!
//! Invariant: what is broadcast is what is published, manifest and bytes.

use super::Publication;
use bytes::Bytes;
use octet_broadcast::{Store, parcel};
use octet_proto::PolicyVersion;

/// Where broadcasts come from.
pub(crate) struct Outbox(pub Publication);

impl Store for Outbox {
    fn outgoing(&mut self, version: u64) -> Result<Vec<Bytes>, String> {
        let published = self.0.get(PolicyVersion(version)).map_err(|error| error.to_string())?;
        let data = published.data().map_err(|error| error.to_string())?;
        Ok(parcel::pack(published.manifest(), data))
    }

    fn expected(&mut self, version: u64) -> Result<usize, String> {
        Err(format!(
            "expected to send version {version}, and was not made the root: the learner is"
        ))
    }

    fn arrived(&mut self, version: u64, _: Bytes) -> Result<(), String> {
        self.expected(version).map(drop)
    }
}
