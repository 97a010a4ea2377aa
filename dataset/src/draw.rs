//! Counter-based randomness: a generator keyed by what is drawn for, never by what was drawn before.
//!
//! Invariant: the numbers depend on the key alone. The bounded draw, the shuffle and the weighted
//! choice are our own, so that an upgrade of a random-number crate cannot change a run's order.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a stream of random numbers is for; two purposes never share numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The order of the examples in an epoch.
    EpochOrder,
    /// The plan (behaviour and phrasing by index) of a generated set.
    Plan,
    /// One row of a generated set.
    Row,
    /// The wording of a reference answer.
    Answer,
    /// One cold-start drill.
    Drill,
}

impl Purpose {
    const fn tag(self) -> u64 {
        match self {
            Purpose::EpochOrder => 0x6f72_6465_725f_3031,
            Purpose::Plan => 0x706c_616e_5f30_3031,
            Purpose::Row => 0x726f_775f_3030_3031,
            Purpose::Answer => 0x616e_7377_5f30_3031,
            Purpose::Drill => 0x6472_696c_5f30_3031,
        }
    }
}

/// A stream of random draws.
#[derive(Debug, Clone)]
pub struct Draw {
    rng: ChaCha8Rng,
}

impl Draw {
    /// The stream for `(purpose, seed, a, b)`.
    pub fn keyed(purpose: Purpose, seed: u64, a: u64, b: u64) -> Self {
        let mut key = [0u8; 32];
        for (slot, word) in key.chunks_exact_mut(8).zip([seed, purpose.tag(), a, b]) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        Draw { rng: ChaCha8Rng::from_seed(key) }
    }

    /// A number in `0..n`, each equally likely. `n` of 0 gives 0.
    pub fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        if n <= 1 {
            return 0;
        }
        // Values under `2^64 mod n` are drawn again: what is left is a whole number of cycles of n.
        let refused = n.wrapping_neg() % n;
        loop {
            let draw = self.rng.next_u64();
            if draw >= refused {
                return (draw % n) as usize;
            }
        }
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True in `per_cent` of a hundred draws.
    pub fn chance(&mut self, per_cent: usize) -> bool {
        self.below(100) < per_cent
    }

    /// True with this probability (a fraction from 0 to 1).
    pub fn fraction(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A number in `[0, 1)`, a multiple of 2⁻⁵³.
    pub fn unit(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One of the items. The slice must not be empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// An index, with probability proportional to its weight.
    pub fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut left = self.below(weights.iter().sum());
        for (index, &weight) in weights.iter().enumerate() {
            if left < weight {
                return index;
            }
            left -= weight;
        }
        0
    }

    /// Fisher-Yates, from the end.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }

    /// `count` different indices out of `0..n`, in random order (all of them when `count > n`).
    pub fn some(&mut self, n: usize, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..n).collect();
        self.shuffle(&mut all);
        all.truncate(count);
        all
    }
}
