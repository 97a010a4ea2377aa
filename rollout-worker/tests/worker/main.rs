//! A real worker with scripted peers around it. One program: the worker takes longer to build than its tests.
#![allow(clippy::unwrap_used, missing_docs)]

mod loopback;
mod support;
mod weights;
