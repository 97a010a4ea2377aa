//! The machine's own speed: what every other number is held against.

use octet_policy::kernel::gemm::{Mat, Rhs, Start, gemm};
use octet_policy::kernel::panels::Panels;
use octet_policy::config::ModelConfig;
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

/// Necessary floating-point operations of one token's forward pass that sees `context` positions:
/// two for each weight of a matrix, and attention's two products. The head is counted where `head`.
pub fn forward_flops(config: &ModelConfig, context: f64, head: bool) -> f64 {
    let hidden = config.hidden_size as f64;
    let queries = (config.num_attention_heads * config.head_dim) as f64;
    let keys = (config.num_key_value_heads * config.head_dim) as f64;
    let inner = config.intermediate_size as f64;
    let layer = 2.0 * hidden * (2.0 * queries + 2.0 * keys + 3.0 * inner) + 4.0 * queries * context;
    let head = if head { 2.0 * hidden * config.vocab_size as f64 } else { 0.0 };
    layer * config.num_hidden_layers as f64 + head
}
