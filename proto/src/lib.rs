//! The wire: what nodes say to each other, and how they say it.
//!
//! The one idea of this crate is that the contracts live in one place. Generated code stays private;
//! what leaves are messages by service ([`coordinator`], [`broadcast`], [`reward`], [`learner`], [`weights`]),
//! newtypes where two numbers could be confused ([`ids`]), one way to open a connection on each
//! side ([`transport`]), one way to show who may call ([`auth`]) and one way to carry an error across
//! ([`error`]).
//!
//! Invariant: this crate knows no other crate of the workspace, and decides nothing.

mod generated;

pub mod admin;
pub mod auth;
pub mod broadcast;
pub mod coordinator;
pub mod error;
pub mod ids;
pub mod learner;
pub mod reward;
pub mod transport;
pub mod weights;

pub use ids::{
    ConfigDigest, GroupIndex, LeaseEpoch, PolicyVersion, RevisionNumber, SampleIndex, StepIndex,
    WorkerId,
};

/// The version of the contracts that this build speaks. A reward service tells its own in `Describe`.
pub const CONTRACT_VERSION: u32 = 1;

/// The descriptors of all contracts, encoded, as gRPC server reflection wants them.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/octet.v1.bin"));
