//! The learner's two gRPC services.
//!
//! Invariant: nothing here decides about the run. [`intake`] makes groups durable before it says so;
//! [`weights`] gives out what was published, from memory.

pub mod intake;
pub mod weights;
