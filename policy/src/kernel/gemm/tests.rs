//! The one promise of the kernel: each element is the plain chain of fused multiply-adds, to the bit.

#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn chain(k: usize, a: Mat<'_>, b: Mat<'_>, i: usize, j: usize, start: f32) -> f32 {
    (0..k).fold(start, |sum, p| a.data[a.at(i, p)].mul_add(b.data[b.at(p, j)], sum))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn every_element_is_the_plain_chain(
        m in 1usize..40, n in 1usize..70, k in 1usize..900, seed in 1u32..1000,
        ta: bool, tb: bool, packed: bool, carry: bool, threads in 1usize..4,
    ) {
        let (da, db) = (numbers(m * k, seed), numbers(n * k, seed + 1));
        let a = if ta { Mat::transposed(&da, m) } else { Mat::rows(&da, k) };
        let b = if tb { Mat::transposed(&db, k) } else { Mat::rows(&db, n) };
        let before = numbers(m * n, seed + 2);
        let mut c = before.clone();
        let panels = Panels::pack(b, k, n);
        let rhs = if packed { Rhs::Packed(&panels) } else { Rhs::Plain(b) };
        let start = if carry { Start::Continue } else { Start::Zero };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run((m, n, k), a, rhs, &mut c, n, start, 1));
        for i in 0..m {
            for j in 0..n {
                let c0 = if carry { before[i * n + j] } else { 0.0 };
                prop_assert_eq!(c[i * n + j].to_bits(), chain(k, a, b, i, j, c0).to_bits());
            }
        }
    }
}
