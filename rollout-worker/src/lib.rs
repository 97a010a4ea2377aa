//! The rollout worker: it leases groups, samples them, has them scored, and delivers them.
//!
//! The one idea of this crate is that a worker owns nothing but work under way. Whoever it speaks to
//! (coordinator, learner, reward replicas) may go and come back at any time; the worker keeps what it
//! has, tries again with back-off, and says in its heartbeat what it waits for. Decisions are pure
//! ([`assembly`], and the books inside the actors); the actors around them do the waiting.
//!
//! Invariant: a group that was sampled is kept until the learner has it on disk, refuses it, or the
//! coordinator takes its lease away. It is never sampled with two policy versions, nor scored by two
//! reward revisions.

pub mod assembly;
pub mod config;
mod delivery;
mod engine;
pub mod error;
mod groups;
mod leases;
mod peer;
mod scoring;
pub mod stats;
pub mod weights;
mod worker;

pub use config::{Config, Limits, OnRewardFailure, SamplingSettings};
pub use error::WorkerError;
pub use stats::{Handle, Totals};
pub use worker::{Worker, run};
