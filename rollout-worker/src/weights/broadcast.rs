//! Takes in versions that are broadcast.
//!
//! Invariant: what goes on from here is, tensor by tensor, what the learner published: the manifest has
//! the published digest, and each tensor the manifest's. Anything else is dropped and a fault of the
//! transport, and the version is fetched.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use octet_broadcast::{Store, parcel};
use octet_policy::config::TensorSpec;
use octet_proto::PolicyVersion;
use octet_runtime::mailbox::Address;
use octet_runtime::membership::Expected;
use tokio::runtime::Handle as Runtime;

use super::actor::Command;
use super::error::Damage;
use super::manifest::{Manifest, Refused};
use crate::stats::Handle;

/// How long the librarian's mailbox may be full.
const PATIENCE: Duration = Duration::from_secs(10);

/// A version that came by broadcast, verified.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Arrival {
    pub manifest: Arc<Manifest>,
    /// The bytes of its tensors, in order.
    pub tensors: Vec<Bytes>,
}

/// Where broadcasts arrive. Used on a thread of its own.
pub(crate) struct Inbox {
    pub expected: Expected,
    /// The tensors that are trained.
    pub specs: Vec<TensorSpec>,
    pub librarian: Address<Command>,
    pub handle: Handle,
    pub runtime: Runtime,
}

impl Store for Inbox {
    fn outgoing(&mut self, version: u64) -> Result<Vec<Bytes>, String> {
        Err(format!(
            "expected to receive version {version}, and was made the root: only the learner is"
        ))
    }

    fn expected(&mut self, version: u64) -> Result<usize, String> {
        let bytes = self.expected.get(version)?.bytes;
        usize::try_from(bytes).map_err(|_| format!("{bytes} bytes are more than there are"))
    }

    fn arrived(&mut self, version: u64, bytes: Bytes) -> Result<(), String> {
        let (digest, received) = (self.expected.get(version)?.digest, bytes.len());
        let arrival = verify(PolicyVersion(version), &digest, bytes, &self.specs);
        let arrival = arrival.inspect_err(|_| self.handle.counters.transfer_damaged())?;
        self.handle.counters.broadcast(received);
        let sent = self.librarian.send(Command::Arrived(arrival), PATIENCE);
        self.runtime.block_on(sent).map_err(|lost| lost.why.to_string())
    }
}

/// A version out of a parcel, if it is the one that was published.
fn verify(
    version: PolicyVersion,
    digest: &str,
    parcel: Bytes,
    specs: &[TensorSpec],
) -> Result<Arrival, String> {
    let (message, data) = parcel::unpack(parcel)?;
    if message.digest != digest {
        let (expected, found) = (digest.to_owned(), message.digest.chars().take(80).collect());
        return Err(Damage::OtherDigest { version, expected, found }.to_string());
    }
    let manifest = Manifest::check(message, version, specs).map_err(|refused| match refused {
        Refused::Damaged(damage) => damage.to_string(),
        Refused::Never(error) => error.to_string(),
    })?;
    if data.len() as u64 != manifest.total() {
        return Err(format!(
            "expected {} bytes of tensors, found {}",
            manifest.total(),
            data.len()
        ));
    }
    let tensors = manifest.entries().iter().map(|entry| {
        // The lengths add up to what is here, so they fit.
        let (start, end) = (entry.start as usize, (entry.start + entry.bytes) as usize);
        let tensor = data.slice(start..end);
        let found = blake3::hash(&tensor);
        if found == entry.digest {
            return Ok(tensor);
        }
        let (name, start) = (entry.name.clone(), entry.start);
        let (expected, found) = (entry.digest.to_string(), found.to_string());
        Err(Damage::Tensor { name, start, expected, found }.to_string())
    });
    let tensors = tensors.collect::<Result<_, _>>()?;
    Ok(Arrival { manifest: Arc::new(manifest), tensors })
}

#[cfg(test)]
mod tests;
