//! The roles together: in a simulated network, over loopback with a scripted transport, and against each other.
//!
//! One program, because what takes long to build is the roles and not the tests. A test that watches this
//! process's memory is a program of its own (`strangers`).
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
