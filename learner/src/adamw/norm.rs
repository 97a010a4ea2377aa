//! The global gradient norm.
//!
//! Invariant: the order of the additions depends on the tensors' sizes alone. Within a chunk eight
//! lanes run side by side and are added in order; chunks are added in order; so are tensors.

use super::CHUNK;
use octet_policy::kernel::simd::widest;
use rayon::prelude::*;

const LANES: usize = 8;

/// The square root of the sum of all elements' squares, in f64.
pub fn gradient_norm<'a>(gradients: impl IntoIterator<Item = &'a [f32]>) -> f64 {
    let mut sum = 0.0;
    for gradient in gradients {
        let partials: Vec<f64> =
            gradient.par_chunks(CHUNK).map(|chunk| widest(|| sum_of_squares(chunk))).collect();
        sum += partials.into_iter().sum::<f64>();
    }
    sum.sqrt()
}

#[inline(always)]
fn sum_of_squares(chunk: &[f32]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (rows, rest) = chunk.as_chunks::<LANES>();
    for row in rows {
        for (lane, value) in lanes.iter_mut().zip(row) {
            *lane += f64::from(*value) * f64::from(*value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(*value) * f64::from(*value);
    }
    lanes.into_iter().sum()
}
