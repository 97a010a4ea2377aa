//! The weights of policy versions: fetched, verified, and kept.
//!
//! Invariant: a model that is on the [`Shelf`] has, tensor by tensor, the digests of its manifest.
//! The shelf keeps the manifest beside the model, so that whoever holds a version can serve it on.

mod actor;
mod broadcast;
mod error;
mod fetch;
mod intake;
mod manifest;
mod route;
mod serve;
mod shelf;
#[cfg(test)]
mod tests;
mod transfer;

pub(crate) use actor::{Command, Librarian};
pub(crate) use broadcast::Inbox;
pub use error::{Damage, WeightsError};
pub use fetch::build;
pub(crate) use fetch::{Fetcher, Local};
pub use intake::Intake;
pub use manifest::{Entry, Manifest, Refused};
pub(crate) use route::{Sources, learn};
pub(crate) use serve::Serving;
pub use serve::{MOST_STREAMS, ServeError};
pub use shelf::{Held, Shelf};
