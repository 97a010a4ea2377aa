//! Takes a version's bytes in, chunk by chunk, and verifies each tensor as it ends.
//!
//! Invariants: what is kept was verified, or belongs to the one tensor that has not ended; after
//! a wrong digest the offset is back at the beginning of that tensor, so that only it is fetched again.

use std::sync::Arc;

use super::error::Damage;
use super::manifest::Manifest;

/// A version on its way.
#[derive(Debug)]
pub struct Intake {
    manifest: Arc<Manifest>,
    whole: Vec<Vec<u8>>,
    /// The beginning of the tensor that follows those that are whole.
    part: Vec<u8>,
    hasher: Box<blake3::Hasher>,
}

impl Intake {
    /// Nothing of `manifest`'s version so far.
    pub fn new(manifest: Arc<Manifest>) -> Self {
        let mut intake =
            Self { manifest, whole: Vec::new(), part: Vec::new(), hasher: Box::default() };
        intake.restart();
        intake
    }

    /// What is being taken in.
    pub const fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The byte that is expected next: where to resume.
    pub fn offset(&self) -> u64 {
        let start = self.manifest.entries().get(self.whole.len()).map(|entry| entry.start);
        start.unwrap_or(self.manifest.total()) + self.part.len() as u64
    }

    /// Whether all is there.
    pub fn is_whole(&self) -> bool {
        self.whole.len() == self.manifest.entries().len()
    }

    /// The verified bytes of every tensor, in order; the intake back if some are missing.
    ///
    /// # Errors
    /// Not all is there.
    pub fn into_tensors(self) -> Result<Vec<Vec<u8>>, Self> {
        if self.is_whole() { Ok(self.whole) } else { Err(self) }
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
            let Some(entry) = manifest.entries().get(self.whole.len()) else {
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
                let (name, expected) = (entry.name.clone(), entry.digest.to_string());
                return Err(Damage::Tensor { name, expected, found: found.to_string() });
            }
            self.whole.push(std::mem::take(&mut self.part));
            self.restart();
        }
        Ok(())
    }

    /// Begins the current tensor anew.
    fn restart(&mut self) {
        self.hasher.reset();
        self.part.clear();
        let next = self.manifest.entries().get(self.whole.len());
        self.part.reserve_exact(next.map_or(0, |entry| entry.bytes as usize));
    }
}
