//! Weights from one GPU to many: who takes part, when, and what happens when one does not.
//!
//! The one idea: a broadcast is a collective, so one member that dies or hangs holds up all of them, and
//! the library underneath says nothing about it. So membership is cut into epochs. Each has a roster, a
//! communicator of its own and an identifier that is used once; every phase of it has a deadline; and
//! when one passes, or a member reports a fault, the communicator is aborted and the next epoch is formed
//! without whoever was late. Who is not in an epoch fetches versions over gRPC and enters at a later one.
//!
//! Two pure state machines: the [`Convener`], beside the coordinator, decides the epochs; a [`Player`] on
//! each member follows its orders. They exchange *states*, not events: either may be told twice, late or
//! not at all, so they travel with the heartbeats. A [`Seat`] drives a player on a [`Transport`]: NCCL
//! (feature `cuda`), or in the tests one that hangs, dies half-way or is slow. What it carries comes from
//! a [`Store`], the role's, and goes into one; a [`Station`] is a seat on a thread of its own, so that a
//! library which does not return holds up nothing but that, and beside it a guard, which then aborts.
//!
//! Invariants: nobody waits without a deadline; a member has at most one communicator, and it is of the
//! newest epoch that it knows; at the end of an epoch each member of its roster holds the version or is
//! evicted. The machines have no I/O, clock or randomness: time is an argument.

mod convener;
mod guard;
#[cfg(feature = "cuda")]
pub mod nccl;
pub mod parcel;
mod phase;
mod player;
mod seat;
mod station;
mod store;
mod transport;
pub mod wire;
mod words;

pub use convener::{Convener, Timing};
pub use guard::Patience;
pub use phase::{Eviction, Phase, Why};
pub use player::{Action, Outcome, Player};
pub use seat::Seat;
pub use station::{Report, Station};
pub use store::{Factory, Store};
pub use transport::{Abort, Fault, Progress, Transport};
pub use words::{Epoch, Member, Order, Orders, Place, State, UniqueId};
