//! What every role needs around its decisions: actors, deadlines, sockets, configuration and logs.
//!
//! The one idea of this crate is that nothing waits in silence and nothing ends without a reason.
//! A [`mailbox`] is bounded and its senders have deadlines; a [`wait`] has a name, a deadline and an
//! entry in the status, as its [`queues`] have, and so has a [`membership`] in broadcasts; a [`supervise::Supervisor`] names who ended, how, and why first.
//!
//! Invariant: no run logic lives here. Any role could be removed without a change in this crate.

pub mod backoff;
pub mod config;
pub mod mailbox;
pub mod membership;
pub mod net;
pub mod queues;
pub mod rendezvous;
pub mod shutdown;
pub mod supervise;
pub mod telemetry;
pub mod wait;

pub use tokio_util::sync::CancellationToken;
