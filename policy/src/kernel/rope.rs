//! Rotary position embedding (Su et al. 2021) in the half-split layout of Hugging Face's Llama and Qwen2.
//!
//! Invariant: a rotation by the negative angle is the gradient, so both directions are one function.

use super::parallel::{for_each_chunk, rows_per_task};
use super::simd::widest;

/// Rotates each head of each row in place: `rows × heads × dim`, row `r` at `positions[r]`.
///
/// `cos` and `sin` are `positions × dim / 2`; `direction` is 1 forward and -1 for the gradient.
pub fn rotate(
    x: &mut [f32],
    positions: &[u32],
    heads: usize,
    dim: usize,
    (cos, sin): (&[f32], &[f32]),
    direction: f32,
) {
    let (width, half) = (heads * dim, dim / 2);
    let rows = rows_per_task(width);
    for_each_chunk(x, rows * width, |task, chunk| {
        for (i, row) in chunk.chunks_exact_mut(width).enumerate() {
            let at = positions[task * rows + i] as usize * half;
            let (c, s) = (&cos[at..][..half], &sin[at..][..half]);
            widest(|| {
                for head in row.chunks_exact_mut(dim) {
                    let (low, high) = head.split_at_mut(half);
                    for (((a, b), &c), &s) in low.iter_mut().zip(high).zip(c).zip(s) {
                        let (x, y, s) = (*a, *b, s * direction);
                        *a = x.mul_add(c, -(y * s));
                        *b = y.mul_add(c, x * s);
                    }
                }
            });
        }
    });
}
