//! What a run shows of itself to experiment trackers: MLflow over its REST API, TensorBoard by event files.
//!
//! A tracker reads what the run writes to its directory anyway, and the run does not know of it. What it found
//! is appended to a journal on the disk, once ([`journal`]); everything after that is a function of the journal:
//! the event file of TensorBoard ([`tensorboard`]) and the calls to the server ([`outbox`], [`mlflow`]), which
//! one thread makes at the server's pace and the disk remembers.
//!
//! Invariants: nothing here can stop a run or make it wait, until the end, where it waits as long as it was told.
//! What is in the journal is sent until the server has it or has refused it by name; sent again, it is the same
//! to the bit, and the server shows it once.

mod config;
mod error;
pub mod event;
pub mod flatten;
pub mod journal;
pub mod mlflow;
pub mod names;
pub mod outbox;
mod sender;
mod source;
mod tail;
pub mod tensorboard;
mod tracker;

pub use config::{Config, EventFiles, FROM_ENVIRONMENT};
pub use error::TrackingError;
pub use names::Names;
pub use sender::{Delivery, Sender, Undelivered};
pub use source::{Facts, collect};
pub use tracker::{Targets, Tracker};
