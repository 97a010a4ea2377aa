//! The learner: turns scored groups into the next policy version.
//!
//! The one idea: a step is a function of the groups in the [`spool`] and of the last [`commit`], and
//! of nothing else, so a learner that is killed and started again makes the same weights to the bit.
//!
//! From the inside out: rewards become [`advantage`]s, advantages and log-probabilities a loss and
//! its gradient ([`objective`]), gradients an update ([`adamw`], [`schedule`], [`update`]); these and
//! [`config`], [`plan`] and most of [`step`] decide without clock, disk or network. What must survive
//! a crash is kept by two modules and no other: the [`spool`] (scored groups, durable before they are
//! acknowledged) and the [`commit`] (a whole step under one atomic rename). [`service`] takes groups
//! in and gives weights out; [`learner`] runs it all.

pub mod adamw;
pub mod advantage;
pub mod board;
pub mod commit;
pub mod config;
pub mod disk;
pub mod error;
pub mod group;
pub mod learner;
pub mod metrics;
pub mod objective;
pub mod plan;
pub mod schedule;
pub mod service;
pub mod spool;
pub mod step;
mod thread;
pub mod update;

pub use board::{Handle, Totals};
pub use config::{LearnerConfig, RunShape};
pub use error::LearnerError;
pub use learner::{Config, Learner, Summary, run};
