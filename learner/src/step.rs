//! One step: from the spooled groups to the next policy version.
//!
//! Invariant: what is decided ([`batch`], [`cost`], [`gap`]) is a pure function of the groups and the
//! recipe; the trainer computes and commits it, on a thread of its own. The groups come sorted by
//! index, so neither their arrival nor a restart changes a bit.

pub mod batch;
pub mod cost;
pub mod gap;
mod record;
pub(crate) mod trainer;

pub use batch::StepBatch;
pub use cost::ModelCost;
pub use gap::{Gap, LogprobGap};
