//! The four roles of a run as processes, each on a host of its own if need be.
//!
//! Invariant: a role is wired here and decided in its crate; the same recipe gives it the same digest as
//! `octet train`, and so the run the same weights.

mod coordinator;
mod layers;
mod learner;
pub mod metrics;
mod process;
mod reward;
mod reward_service;
mod rollout_worker;
mod transport;

pub use coordinator::{CoordinatorArgs, run as coordinator};
pub use layers::layered;
pub use learner::{LearnerArgs, run as learner};
pub use reward_service::{ServiceArgs, run as reward_service};
pub use rollout_worker::{WorkerArgs, run as rollout_worker};
