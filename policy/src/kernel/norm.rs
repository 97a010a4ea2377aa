//! RMSNorm and its gradient, row by row.
//!
//! `y = x / sqrt(mean(x²) + ε) · w` (Zhang & Sennrich 2019, as Llama and Qwen2 use it). Invariant: a row's
//! result depends on that row alone; the gradient of `w` sums over rows in order.

use super::math::{dot, sum};
use super::parallel::{SharedMut, for_each, for_each_chunk, rows_per_task};
use super::simd::widest;

/// `y[r] = x[r] · scale[r] · w` with `scale[r] = 1 / sqrt(mean(x[r]²) + eps)`; rows of `w.len()` floats.
pub fn forward(x: &[f32], w: &[f32], eps: f32, y: &mut [f32], scale: &mut [f32]) {
    let width = w.len();
    let rows = rows_per_task(width);
    let scales = SharedMut::new(scale);
    for_each_chunk(y, rows * width, |task, out| {
        for (i, y) in out.chunks_exact_mut(width).enumerate() {
            let row = task * rows + i;
            let x = &x[row * width..][..width];
            let s = widest(|| {
                let s = 1.0 / (dot(x, x) / width as f32 + eps).sqrt();
                for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
                    *y = (x * s) * w;
                }
                s
            });
            // SAFETY: each task writes the scales of its own rows.
            unsafe { scales.part(row, 1)[0] = s };
        }
    });
}

/// `y[r] = x[r] · scale[r] · w`: what [`forward`] computed, from the scales that it gave.
pub fn again(x: &[f32], w: &[f32], scale: &[f32], y: &mut [f32]) {
    let width = w.len();
    let rows = rows_per_task(width);
    for_each_chunk(y, rows * width, |task, out| {
        widest(|| {
            for (i, y) in out.chunks_exact_mut(width).enumerate() {
                let row = task * rows + i;
                let s = scale[row];
                for ((y, &x), &w) in y.iter_mut().zip(&x[row * width..]).zip(w) {
                    *y = (x * s) * w;
                }
            }
        });
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
            widest(|| backward_row((x, w, dy), scale[row], &mut weighted, dx));
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
        widest(|| backward_weight((&x[from..], &dy[from..]), width, scale, dw));
    });
}

#[inline(always)]
fn backward_row(
    (x, w, dy): (&[f32], &[f32], &[f32]),
    s: f32,
    weighted: &mut [f32],
    dx: &mut [f32],
) {
    for ((g, &d), &w) in weighted.iter_mut().zip(dy).zip(w) {
        *g = d * w;
    }
    let shared = dot(weighted, x) * s * s / w.len() as f32;
    for ((dx, &g), &x) in dx.iter_mut().zip(&*weighted).zip(x) {
        *dx += s * (g - x * shared);
    }
}

#[inline(always)]
fn backward_weight((x, dy): (&[f32], &[f32]), width: usize, scale: &[f32], dw: &mut [f32]) {
    for ((x, dy), s) in x.chunks(width).zip(dy.chunks(width)).zip(scale) {
        for ((dw, &x), &d) in dw.iter_mut().zip(x).zip(dy) {
            *dw = (x * s).mul_add(d, *dw);
        }
    }
}

/// `db[j] += Σ dy[r][j]`, rows in order: the gradient of a bias.
pub fn column_sums(dy: &[f32], db: &mut [f32]) {
    const COLUMNS: usize = 64;
    let (width, out) = (db.len(), SharedMut::new(db));
    for_each(width.div_ceil(COLUMNS), |task| {
        let from = task * COLUMNS;
        let len = COLUMNS.min(width - from);
        // SAFETY: each task writes its own columns.
        let db = unsafe { out.part(from, len) };
        widest(|| {
            for dy in dy.chunks_exact(width) {
                db.iter_mut().zip(&dy[from..][..len]).for_each(|(b, d)| *b += d);
            }
        });
    });
}

/// Adds row `r` of `dy`, of `width` floats, to row `rows[r]` of `sums`, in order.
pub fn add_rows(rows: &[u32], dy: &[f32], width: usize, sums: &mut [f32]) {
    const COLUMNS: usize = 64;
    let sums = SharedMut::new(sums);
    for_each(width.div_ceil(COLUMNS), |task| {
        let from = task * COLUMNS;
        let len = COLUMNS.min(width - from);
        for (&row, dy) in rows.iter().zip(dy.chunks_exact(width)) {
            // SAFETY: each task writes its own columns.
            let sum = unsafe { sums.part(row as usize * width + from, len) };
            sum.iter_mut().zip(&dy[from..]).for_each(|(sum, d)| *sum += d);
        }
    });
}

/// The Euclidean norm of a slice, for tests and reports.
pub fn norm(x: &[f32]) -> f32 {
    sum(&x.iter().map(|v| v * v).collect::<Vec<_>>()).sqrt()
}
