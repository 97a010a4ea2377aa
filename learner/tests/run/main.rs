//! Runs of a real learner with a scripted coordinator and worker around it. One program: the learner takes
//! longer to build than its tests.
#![allow(clippy::unwrap_used)]

mod faults;
mod resume;
mod support;
