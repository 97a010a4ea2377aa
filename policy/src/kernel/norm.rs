//! RMSNorm and its gradient, row by row.
//!
//! `y = x / sqrt(mean(x²) + ε) · w` (Zhang & Sennrich 2019, as Llama and Qwen2 use it). Invariant: a row's
//! result depends on that row alone; the gradient of `w` sums over rows in order.

use super::math::{dot, sum};
use super::parallel::{SharedMut, for_each, for_each_chunk, rows_per_task};

/// `y[r] = x[r] · scale[r] · w` with `scale[r] = 1 / sqrt(mean(x[r]²) + eps)`; rows of `w.len()` floats.
pub fn forward(x: &[f32], w: &[f32], eps: f32, y: &mut [f32], scale: &mut [f32]) {
    let width = w.len();
    let rows = rows_per_task(width);
    let scales = SharedMut::new(scale);
    for_each_chunk(y, rows * width, |task, out| {
        for (i, y) in out.chunks_exact_mut(width).enumerate() {
            let row = task * rows + i;
            let x = &x[row * width..][..width];
            let s = 1.0 / (dot(x, x) / width as f32 + eps).sqrt();
            // SAFETY: each task writes the scales of its own rows.
            unsafe { scales.part(row, 1)[0] = s };
            for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
                *y = (x * s) * w;
            }
        }
    });
}

/// Adds the gradient with respect to `x` to `dx` (which holds the residual's).
pub fn backward(x: &[f32], w: &[f32], scale: &[f32], dy: &[f32], dx: &mut [f32]) {
    let width = w.len();
    let rows = rows_per_task(width);
    for_each_chunk(dx, rows * width, |task, out| {
        let mut weighted = vec![0f32; width];
        for (i, dx) in out.chunks_exact_mut(width).enumerate() {
            let row = task * rows + i;
            let (x, dy) = (&x[row * width..][..width], &dy[row * width..][..width]);
            for ((g, &d), &w) in weighted.iter_mut().zip(dy).zip(w) {
                *g = d * w;
            }
            let s = scale[row];
            let shared = dot(&weighted, x) * s * s / width as f32;
            for ((dx, &g), &x) in dx.iter_mut().zip(&weighted).zip(x) {
                *dx += s * (g - x * shared);
            }
        }
    });
}

/// Adds the gradient with respect to the norm's weight to `dw`: columns in parallel, rows in order.
pub fn weight_backward(x: &[f32], scale: &[f32], dy: &[f32], dw: &mut [f32]) {
    let width = dw.len();
    const COLUMNS: usize = 64;
    let out = SharedMut::new(dw);
    for_each(width.div_ceil(COLUMNS), |task| {
        let from = task * COLUMNS;
        let len = COLUMNS.min(width - from);
        // SAFETY: each task writes its own columns.
        let dw = unsafe { out.part(from, len) };
        for (row, s) in scale.iter().enumerate() {
            let at = row * width + from;
            for ((dw, &x), &d) in dw.iter_mut().zip(&x[at..][..len]).zip(&dy[at..][..len]) {
                *dw = (x * s).mul_add(d, *dw);
            }
        }
    });
}

/// `db[j] += Σ dy[r][j]`, rows in order: the gradient of a bias.
pub fn column_sums(dy: &[f32], db: &mut [f32]) {
    let width = db.len();
    for dy in dy.chunks_exact(width) {
        for (b, d) in db.iter_mut().zip(dy) {
            *b += d;
        }
    }
}

/// The Euclidean norm of a slice, for tests and reports.
pub fn norm(x: &[f32]) -> f32 {
    sum(&x.iter().map(|v| v * v).collect::<Vec<_>>()).sqrt()
}
