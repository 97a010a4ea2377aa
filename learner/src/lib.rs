//! The learner: turns scored groups into the next policy version.
//!
//! Everything that decides is a pure function of numbers: rewards become [`advantage`]s, advantages
//! and log-probabilities become a loss and its gradient ([`objective`]), gradients become an update
//! ([`adamw`], [`schedule`]). No tensors, no clock and no randomness are in these modules, so that
//! the same groups give the same bits whatever the thread count. What must survive a crash is kept
//! by two modules and no other: the [`spool`] (scored groups, durable before they are acknowledged)
//! and the [`commit`] (a whole step under one atomic rename).

pub mod adamw;
pub mod advantage;
pub mod commit;
pub mod disk;
pub mod group;
pub mod metrics;
pub mod objective;
pub mod schedule;
pub mod spool;
pub mod update;
