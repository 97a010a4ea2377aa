//! Muon for the matrices between embedding and head: momentum, orthogonalised.
//!
//! The momentum of a matrix is brought near the closest matrix with orthonormal rows by Newton–Schulz
//! iterations (Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon/>), then scaled so that its
//! elements are about as large as AdamW's (Liu et al. 2025, arXiv:2502.16982): one learning rate and one
//! weight decay serve both.
//!
//! Invariant: the result does not depend on the thread count, to the bit, because the products do not.

use super::{CHUNK, Constants, Parameter, TensorSpec, decays};
use octet_policy::kernel::gemm::{Mat, Rhs, Start, gemm};
use rayon::prelude::*;

/// The constants of the quintic, which lifts small singular values fast.
const QUINTIC: (f32, f32, f32) = (3.4445, -4.775, 2.0315);
/// Iterations: singular values end between about 0.7 and 1.2.
const ITERATIONS: usize = 5;
/// The usual size of an element of AdamW's update.
const USUAL: f64 = 0.2;

/// Whether Muon is meant for a tensor: a layer's matrices, not the embedding or the head.
pub(super) fn takes(spec: &TensorSpec) -> bool {
    spec.shape.len() == 2 && decays(spec) && spec.name.contains("layers.")
}

/// One update of a matrix of `shape`; `momentum` is its running sum of gradients.
pub(super) fn update(
    shape: &[usize],
    momentum: &mut [f32],
    parameter: &mut Parameter<'_>,
    constants: &Constants,
    decay: f32,
) {
    let (rows, columns) = (shape[0], shape[1]);
    let mut direction = vec![0.0; momentum.len()];
    let chunks = direction
        .par_chunks_mut(CHUNK)
        .zip(momentum.par_chunks_mut(CHUNK))
        .zip(parameter.gradient.par_chunks(CHUNK));
    chunks.for_each(|((direction, momentum), gradient)| {
        for ((direction, momentum), gradient) in direction.iter_mut().zip(momentum).zip(gradient) {
            let gradient = gradient * constants.scale;
            *momentum = *momentum * decay + gradient;
            // Nesterov: where the momentum will be after one more gradient like this one.
            *direction = gradient + decay * *momentum;
        }
    });
    let direction = orthogonal(direction, rows, columns);
    let longest = rows.max(columns) as f64;
    let step = (constants.learning_rate * USUAL * longest.sqrt()) as f32;
    let chunks = parameter.values.par_chunks_mut(CHUNK).zip(direction.par_chunks(CHUNK));
    chunks.for_each(|(values, direction)| {
        for (value, direction) in values.iter_mut().zip(direction) {
            *value = *value * constants.keep - step * direction;
        }
    });
}

/// A matrix whose singular values are near 1 and whose singular vectors are those of `matrix`.
fn orthogonal(matrix: Vec<f32>, rows: usize, columns: usize) -> Vec<f32> {
    // The products are between rows: take the fewer.
    if rows > columns {
        let turned = orthogonal(transposed(&matrix, rows, columns), columns, rows);
        return transposed(&turned, columns, rows);
    }
    let (m, n) = (rows, columns);
    let mut x = matrix;
    let norm = super::gradient_norm([x.as_slice()]);
    if norm == 0.0 {
        return x;
    }
    let shrink = (1.0 / norm) as f32;
    x.iter_mut().for_each(|value| *value *= shrink);
    let (a, b, c) = QUINTIC;
    let (mut square, mut fourth, mut next) = (vec![0.0; m * m], vec![0.0; m * m], vec![0.0; m * n]);
    for _ in 0..ITERATIONS {
        let (left, right) = (Mat::rows(&x, n), Rhs::Plain(Mat::transposed(&x, n)));
        gemm((m, m, n), left, right, &mut square, m, Start::Zero);
        let (left, right) = (Mat::rows(&square, m), Rhs::Plain(Mat::rows(&square, m)));
        gemm((m, m, m), left, right, &mut fourth, m, Start::Zero);
        for (fourth, square) in fourth.iter_mut().zip(&square) {
            *fourth = b * square + c * *fourth;
        }
        for (next, x) in next.iter_mut().zip(&x) {
            *next = a * x;
        }
        let (left, right) = (Mat::rows(&fourth, m), Rhs::Plain(Mat::rows(&x, n)));
        gemm((m, n, m), left, right, &mut next, n, Start::Continue);
        std::mem::swap(&mut x, &mut next);
    }
    x
}

fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|j| (0..rows).map(move |i| matrix[i * columns + j])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `x · xᵀ` of the shorter side has the squares of the singular values as its eigenvalues: it is near
    /// the identity where they are near 1.
    #[test]
    fn rows_become_nearly_orthonormal() {
        for (rows, columns) in [(6, 17), (17, 6), (8, 8)] {
            let mut state = 1u32;
            let matrix: Vec<f32> = (0..rows * columns)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) as f32 / 8_388_608.0 - 1.0
                })
                .collect();
            let x = orthogonal(matrix, rows, columns);
            let (short, long) = (rows.min(columns), rows.max(columns));
            let at = |i: usize, k: usize| {
                if rows <= columns { x[i * columns + k] } else { x[k * columns + i] }
            };
            for i in 0..short {
                for j in 0..short {
                    let dot: f32 = (0..long).map(|k| at(i, k) * at(j, k)).sum();
                    let wanted = if i == j { 1.0 } else { 0.0 };
                    assert!((dot - wanted).abs() < 0.55, "{rows}x{columns} ({i}, {j}): {dot}");
                }
            }
        }
        assert_eq!(orthogonal(vec![0.0; 6], 2, 3), vec![0.0; 6]);
    }
}
