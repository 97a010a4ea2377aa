//! The coordinator: it leases the work of a run and keeps the run true.
//!
//! The one idea of this crate is that all decisions are one state machine ([`machine`]) without I/O,
//! clock or randomness, and that the learner's disk is the only truth about groups and steps. The
//! [`journal`] keeps the little that the learner cannot tell; the [`service`] brings time and network.
//!
//! Invariant: the coordinator calls nobody. Nodes come to it, and may come back at any time, to it or
//! to the one that replaces it.

pub mod error;
mod examples;
pub mod journal;
pub mod machine;
pub mod plan;
pub mod service;

pub use error::CoordinatorError;
pub use examples::Rows;
pub use machine::{Reward, Snapshot};
pub use octet_proto::auth::JoinToken;
pub use plan::{RunPlan, Timing};
pub use service::{Config, Coordinator, Handle, JOURNAL_FILE, Progress, serve};
