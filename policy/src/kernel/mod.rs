//! The CPU's arithmetic, on plain `f32` slices.
//!
//! Invariant: every output element is computed by one chain of operations whose order depends only
//! on the element's own inputs. How many other rows there are, how the work is cut into tiles and how
//! many threads run it changes no bit. All chains use fused multiply-add, so the bits do not depend on
//! the vector width of the machine either.

pub mod attention;
pub mod attention_backward;
pub mod gemm;
pub mod head;
pub mod math;
pub mod norm;
pub mod panels;
pub mod parallel;
pub mod rope;
pub mod simd;
pub mod swiglu;
