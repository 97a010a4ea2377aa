//! SwiGLU (Shazeer 2020): `silu(gate) · up`, and its gradient.
//!
//! Invariant: elementwise; gradients are computed from the inputs, nothing else is kept.

use super::math::exp;
use super::parallel::{SharedMut, for_each_chunk};
use super::simd::widest;

const CHUNK: usize = 16_384;

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    // exp's argument is never positive, so nothing overflows.
    let e = exp(-x.abs());
    let positive = 1.0 / (1.0 + e);
    if x < 0.0 { e * positive } else { positive }
}

/// `out = silu(gate) · up`.
pub fn forward(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for_each_chunk(out, CHUNK, |task, out| {
        let from = task * CHUNK;
        widest(|| {
            for ((o, &g), &u) in out.iter_mut().zip(&gate[from..]).zip(&up[from..]) {
                *o = g * sigmoid(g) * u;
            }
        });
    });
}

/// Replaces `gate` and `up` by their gradients, given `dout`.
pub fn backward(gate: &mut [f32], up: &mut [f32], dout: &[f32]) {
    let ups = SharedMut::new(up);
    for_each_chunk(gate, CHUNK, |task, gates| {
        let from = task * CHUNK;
        // SAFETY: each task has its own chunk of both slices.
        let up = unsafe { ups.part(from, gates.len()) };
        widest(|| {
            for ((g, u), &d) in gates.iter_mut().zip(up).zip(&dout[from..]) {
                let s = sigmoid(*g);
                let silu = *g * s;
                let slope = s * (1.0 - s).mul_add(*g, 1.0);
                (*g, *u) = (d * *u * slope, d * silu);
            }
        });
    });
}
