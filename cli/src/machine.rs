//! The machine's own speed: what every other number is held against.

use octet_policy::kernel::gemm::{Mat, Rhs, Start, gemm};
use octet_policy::kernel::panels::Panels;
use std::time::{Duration, Instant};

/// Side of the product that is measured.
const SIDE: usize = 1024;

/// f32 matrix-product speed in GFLOP/s with all threads of the current pool: the best of repeated
/// products of 1024 × 1024 matrices over half a second.
pub fn gflops() -> f64 {
    let a: Vec<f32> = (0..SIDE * SIDE).map(|i| (i % 251) as f32 / 251.0 - 0.5).collect();
    let b = Panels::pack(Mat::rows(&a, SIDE), SIDE, SIDE);
    let mut c = vec![0f32; SIDE * SIDE];
    let (begin, mut best) = (Instant::now(), Duration::MAX);
    while begin.elapsed() < Duration::from_millis(500) {
        let start = Instant::now();
        gemm((SIDE, SIDE, SIDE), Mat::rows(&a, SIDE), Rhs::Packed(&b), &mut c, SIDE, Start::Zero);
        best = best.min(start.elapsed());
    }
    2.0 * (SIDE as f64).powi(3) / best.as_secs_f64() / 1e9
}
