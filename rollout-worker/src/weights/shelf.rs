//! The versions that this worker holds, and those that it can pass on.
//!
//! Invariants: what is wanted is never put away, and of the rest only the newest few are kept. The
//! published bytes are kept beside a model only where the worker serves them to others: they cost as
//! much memory as the weights once more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use octet_policy::model::Model;
use octet_proto::PolicyVersion;
use tokio::sync::watch;

use super::manifest::Manifest;

/// A version with its manifest.
#[derive(Clone)]
pub struct Held {
    /// The verified model, packed for sampling.
    pub model: Arc<Model>,
    /// What it was verified against.
    pub manifest: Arc<Manifest>,
}

/// A version's published bytes, whole or still arriving.
#[derive(Clone, Debug)]
pub(crate) struct Stock {
    pub manifest: Arc<Manifest>,
    /// The verified tensors, in order. Closed when there will be no more.
    pub verified: watch::Receiver<Vec<Bytes>>,
}

/// The versions; clones share them.
#[derive(Clone, Default)]
pub struct Shelf {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    books: Mutex<Books>,
    /// Counts what was put on the shelf.
    arrivals: watch::Sender<u64>,
    /// Counts what can be passed on.
    offers: watch::Sender<u64>,
}

#[derive(Default)]
struct Books {
    held: BTreeMap<PolicyVersion, Held>,
    stocks: BTreeMap<PolicyVersion, Stock>,
    serves: bool,
}

impl Stock {
    /// Whether all is here.
    pub(crate) fn is_whole(&self) -> bool {
        self.verified.borrow().len() == self.manifest.entries().len()
    }
}

impl Shelf {
    /// The versions that are held, ascending.
    pub fn versions(&self) -> Vec<PolicyVersion> {
        self.lock().held.keys().copied().collect()
    }

    /// A version, if it is held.
    pub fn get(&self, version: PolicyVersion) -> Option<Held> {
        self.lock().held.get(&version).cloned()
    }

    /// Keeps published bytes from now on, to be passed on.
    pub(crate) fn serve(&self) {
        self.lock().serves = true;
    }

    /// News of what is put on the shelf.
    pub(crate) fn arrivals(&self) -> watch::Receiver<u64> {
        self.inner.arrivals.subscribe()
    }

    /// Offers a version that begins to arrive.
    pub(crate) fn begin(&self, manifest: Arc<Manifest>, verified: watch::Receiver<Vec<Bytes>>) {
        let mut books = self.lock();
        if books.serves {
            books.stocks.insert(manifest.version(), Stock { manifest, verified });
            drop(books);
            self.inner.offers.send_modify(|count| *count += 1);
        }
    }

    /// A version's published bytes, if they are here or arriving.
    pub(crate) fn stock(&self, version: PolicyVersion) -> Option<Stock> {
        let mut books = self.lock();
        let stock = books.stocks.get(&version)?;
        // A transfer that was given up has left a part, which is of no use to anybody.
        if !stock.is_whole() && stock.verified.has_changed().is_err() {
            books.stocks.remove(&version);
            return None;
        }
        Some(stock.clone())
    }

    /// A version's published bytes, once they begin to arrive.
    pub(crate) async fn stock_soon(&self, version: PolicyVersion) -> Stock {
        let mut offers = self.inner.offers.subscribe();
        loop {
            if let Some(stock) = self.stock(version) {
                return stock;
            }
            if offers.changed().await.is_err() {
                // The shelf is borrowed, so its sender lives.
                std::future::pending::<()>().await;
            }
        }
    }

    pub(crate) fn put(&self, held: Held) {
        self.lock().held.insert(held.manifest.version(), held);
        self.inner.arrivals.send_modify(|count| *count += 1);
    }

    /// Keeps the `wanted` versions and the newest `spare` of the others.
    pub(crate) fn tidy(&self, wanted: &BTreeSet<PolicyVersion>, spare: usize) {
        let mut books = self.lock();
        let idle = books.held.keys().rev().filter(|version| !wanted.contains(version));
        let old: Vec<PolicyVersion> = idle.skip(spare).copied().collect();
        books.held.retain(|version, _| !old.contains(version));
        let newest = books.held.keys().next_back().copied();
        let Books { held, stocks, .. } = &mut *books;
        // Of what is not held: what still arrives, and what is being made a model of.
        stocks.retain(|version, stock| {
            held.contains_key(version)
                || stock.verified.has_changed().is_ok()
                || stock.is_whole() && Some(*version) > newest
        });
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        // Nothing panics while it holds the lock; a poisoned one is as good as any.
        self.inner.books.lock().unwrap_or_else(PoisonError::into_inner)
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
