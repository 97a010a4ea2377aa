//! The machine's own speeds: f32 matrix products and memory.
//!
//! Invariant: measured with the threads that the rest is measured with, so a share is one of the same machine.

use super::report::{Findings, Quantity};
use crate::machine::gflops;
use anyhow::{Context, Result};
use rayon::prelude::*;
use serde_json::Map;
use std::time::{Duration, Instant};

/// What the rest is held against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine {
    one_thread: f64,
    /// f32 product, all threads, in 10⁹ operations a second.
    pub gflops: f64,
    /// Memory triad, all threads, in 10⁹ bytes a second.
    pub bandwidth: f64,
}

/// Floats of each array of the triad: 64 MiB, more than caches hold.
const TRIAD: usize = 16 << 20;
/// Floats that a thread takes at once.
const CHUNK: usize = 1 << 18;

impl Machine {
    /// Measures for about two seconds.
    pub fn measure() -> Result<Self> {
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let one = one.context("starting a thread")?;
        Ok(Self { one_thread: one.install(gflops), gflops: gflops(), bandwidth: triad() })
    }

    /// As readings.
    pub fn findings(&self) -> Findings {
        let mut found = Findings::new("machine", "f32".into(), Map::new());
        found.add("one_thread", Quantity::Flops, self.one_thread);
        found.add("all_threads", Quantity::Flops, self.gflops);
        found.add("triad", Quantity::Bandwidth, self.bandwidth);
        found
    }
}

/// `a = b + 3 · c`, two reads and a write counted; the best of repeated passes over half a second.
fn triad() -> f64 {
    let (b, c) = (vec![1f32; TRIAD], vec![2f32; TRIAD]);
    let mut a = vec![0f32; TRIAD];
    let (begin, mut best) = (Instant::now(), Duration::MAX);
    while begin.elapsed() < Duration::from_millis(500) {
        let start = Instant::now();
        let inputs = b.par_chunks(CHUNK).zip(c.par_chunks(CHUNK));
        a.par_chunks_mut(CHUNK).zip(inputs).for_each(|(a, (b, c))| {
            a.iter_mut().zip(b.iter().zip(c)).for_each(|(a, (b, c))| *a = 3f32.mul_add(*c, *b));
        });
        best = best.min(start.elapsed());
    }
    std::hint::black_box(&a);
    (3 * size_of::<f32>() * TRIAD) as f64 / best.as_secs_f64() / 1e9
}
