//! The versions that this worker holds.
//!
//! Invariant: what is wanted is never put away, and of the rest only the newest few are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use octet_policy::model::Model;
use octet_proto::PolicyVersion;

use super::manifest::Manifest;

/// A version with its manifest.
#[derive(Clone)]
pub struct Held {
    /// The verified model, packed for sampling.
    pub model: Arc<Model>,
    /// What it was verified against.
    pub manifest: Arc<Manifest>,
}

/// The versions; clones share them.
#[derive(Clone, Default)]
pub struct Shelf {
    held: Arc<Mutex<BTreeMap<PolicyVersion, Held>>>,
}

impl Shelf {
    /// The versions that are held, ascending.
    pub fn versions(&self) -> Vec<PolicyVersion> {
        self.lock().keys().copied().collect()
    }

    /// A version, if it is held.
    pub fn get(&self, version: PolicyVersion) -> Option<Held> {
        self.lock().get(&version).cloned()
    }

    pub(crate) fn put(&self, held: Held) {
        self.lock().insert(held.manifest.version(), held);
    }

    /// Keeps the `wanted` versions and the newest `spare` of the others.
    pub(crate) fn tidy(&self, wanted: &BTreeSet<PolicyVersion>, spare: usize) {
        let mut held = self.lock();
        let idle = held.keys().rev().filter(|version| !wanted.contains(version));
        let old: Vec<PolicyVersion> = idle.skip(spare).copied().collect();
        held.retain(|version, _| !old.contains(version));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PolicyVersion, Held>> {
        // Nothing panics while it holds the lock; a poisoned one is as good as any.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("versions", &self.versions()).finish()
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("version", &self.manifest.version()).finish_non_exhaustive()
    }
}
