//! The weights of policy versions: fetched, verified, and kept.
//!
//! Invariant: a model that is on the [`Shelf`] has, tensor by tensor, the digests of its manifest.
//! The shelf keeps the manifest beside the model, so that whoever holds a version can serve it on.

mod actor;
mod error;
mod fetch;
mod intake;
mod manifest;
mod shelf;
#[cfg(test)]
mod tests;

pub(crate) use actor::{Command, Librarian};
pub use error::{Damage, WeightsError};
pub(crate) use fetch::{Fetcher, Local};
pub use intake::Intake;
pub use manifest::{Entry, Manifest};
pub use shelf::{Held, Shelf};
