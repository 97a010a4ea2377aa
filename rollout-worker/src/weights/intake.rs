//! Takes a version's bytes in, chunk by chunk, and verifies each tensor as it ends.
//!
//! Invariants: what is kept was verified, or belongs to the one tensor that has not ended; after
//! a wrong digest the offset is back at the beginning of that tensor, so that only it is fetched again.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::error::Damage;
use super::manifest::Manifest;

/// A version on its way.
#[derive(Debug)]
pub struct Intake {
    manifest: Arc<Manifest>,
    /// The verified tensors, for whoever passes them on as well.
    whole: watch::Sender<Vec<Bytes>>,
    /// The beginning of the tensor that follows those that are whole.
    part: Vec<u8>,
    hasher: Box<blake3::Hasher>,
}

impl Intake {
    /// Nothing of `manifest`'s version so far.
    pub fn new(manifest: Arc<Manifest>) -> Self {
        let (whole, part) = (watch::Sender::default(), Vec::new());
        let mut intake = Self { manifest, whole, part, hasher: Box::default() };
        intake.restart();
        intake
    }

    /// What is being taken in.
    pub const fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The byte that is expected next: where to resume.
    pub fn offset(&self) -> u64 {
        self.tensor_start() + self.part.len() as u64
    }

    /// The first byte of the tensor that has not ended.
    pub(crate) fn tensor_start(&self) -> u64 {
        let start = self.manifest.entries().get(self.done()).map(|entry| entry.start);
        start.unwrap_or(self.manifest.total())
    }

    /// Whether no tensor is half there.
    pub(crate) fn is_between_tensors(&self) -> bool {
        self.part.is_empty()
    }

    /// The verified tensors, as they come.
    pub(crate) fn verified(&self) -> watch::Receiver<Vec<Bytes>> {
        self.whole.subscribe()
    }

    fn done(&self) -> usize {
        self.whole.borrow().len()
    }

    /// Whether all is there.
    pub fn is_whole(&self) -> bool {
        self.done() == self.manifest.entries().len()
    }

    /// The verified bytes of every tensor, in order; the intake back if some are missing.
    ///
    /// # Errors
    /// Not all is there.
    pub fn into_tensors(self) -> Result<Vec<Bytes>, Self> {
        if self.is_whole() { Ok(self.whole.borrow().clone()) } else { Err(self) }
    }

    /// Takes a chunk in.
    ///
    /// # Errors
    /// It does not follow what is there, or ends a tensor that is not the published one.
    pub fn take(&mut self, offset: u64, mut data: &[u8]) -> Result<(), Damage> {
        let expected = self.offset();
        if offset != expected {
            return Err(Damage::Offset { expected, found: offset });
        }
        while !data.is_empty() {
            let manifest = Arc::clone(&self.manifest);
            let Some(entry) = manifest.entries().get(self.done()) else {
                return Err(Damage::TooLong { expected: manifest.total() });
            };
            // Lengths were checked against a model in memory, so they fit.
            let missing = entry.bytes as usize - self.part.len();
            let (here, rest) = data.split_at(missing.min(data.len()));
            self.part.extend_from_slice(here);
            self.hasher.update(here);
            data = rest;
            if here.len() < missing {
                break;
            }
            let found = self.hasher.finalize();
            if found != entry.digest {
                self.restart();
                let (name, start) = (entry.name.clone(), entry.start);
                let (expected, found) = (entry.digest.to_string(), found.to_string());
                return Err(Damage::Tensor { name, start, expected, found });
            }
            let tensor = Bytes::from(std::mem::take(&mut self.part));
            self.whole.send_modify(|whole| whole.push(tensor));
            self.restart();
        }
        Ok(())
    }

    /// Begins the current tensor anew.
    fn restart(&mut self) {
        self.hasher.reset();
        self.part.clear();
        let next = self.manifest.entries().get(self.done());
        self.part.reserve_exact(next.map_or(0, |entry| entry.bytes as usize));
    }
}
