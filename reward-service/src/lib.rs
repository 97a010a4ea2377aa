//! Rewards: what a completion is worth, and the service that says so.
//!
//! The one idea of this crate is that a reward is a pure function of an example and a completion's text,
//! behind one trait, [`RewardFunction`]. Reading calls ([`parse`]), comparing them ([`compare`]) and reading
//! words ([`language`]) are rules without state, clock or randomness; [`service`] is the shell that runs a
//! function for others, or a user's file in Python for the service, and adds nothing to its verdicts.
//!
//! Invariant: no completion, however long or broken, makes anything here panic or take more than linear
//! time, and none goes without a verdict or a named error.

pub mod alternatives;
pub mod aws_compat;
pub mod bfcl;
pub mod compare;
pub mod function;
pub mod labels;
pub mod language;
pub mod measure;
pub mod registry;
pub mod service;
pub mod shadow;
pub mod tally;
pub mod tool_call;
pub mod trivial;
pub mod tryout;

pub use aws_compat::AwsCompat;
pub use bfcl::Bfcl;
/// Reading the calls in a completion; a crate that serving knows too, so that both read alike.
pub use octet_calls as parse;

pub use function::{RewardFunction, RewardRange, ScoreError, Verdict, score};
pub use registry::{OpenError, RewardSource, UnknownReward, builtin, by_name, open};
pub use service::meter::{Load, Meter};
pub use service::python::{PythonSettings, PythonSource, Shape};
pub use service::{Scorer, ServiceSettings, serve, serve_metered, serve_on, serve_scorer};
pub use tool_call::ToolCall;
