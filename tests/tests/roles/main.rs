//! The roles together: in a simulated network, over loopback with a scripted transport, and against each other.
//!
//! One program, because what takes long to build is the roles and not the tests. `strangers` is another, since it
//! watches its process's memory; `soak` does too, and runs only when it is asked for.
#![allow(clippy::unwrap_used)]

mod blocked_wires;
mod broadcast_roles;
mod broadcasting;
mod cluster;
mod comes_back;
mod simulated;
mod simulation;
mod soak;
mod soak_worker;
mod weights_spread;
