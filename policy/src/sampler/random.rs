//! Counter-based randomness: completion `s` of group `g`, token `t`, and nothing else.
//!
//! Invariant: the number at `(seed, group, sample, token)` is a pure function of these four, so a group that
//! is sampled again, anywhere, in any order, is the same group.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The randomness of one completion.
#[derive(Clone, Debug)]
pub struct SampleRandom(ChaCha8Rng);

impl SampleRandom {
    /// Keyed by run seed, group index and sample index.
    pub fn new(seed: u64, group: u64, sample: u32) -> Self {
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&group.to_le_bytes());
        key[16..20].copy_from_slice(&sample.to_le_bytes());
        key[24..].copy_from_slice(b"sampling");
        Self(ChaCha8Rng::from_seed(key))
    }

    /// A number in `[0, 1)` for the token at this index of the completion, on a grid of 2⁻²⁴.
    pub fn uniform(&mut self, token: usize) -> f32 {
        self.0.set_word_pos(token as u128);
        (self.0.next_u32() >> 8) as f32 / (1 << 24) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_depends_on_its_place_alone() {
        let mut forward = SampleRandom::new(7, 3, 5);
        let all: Vec<f32> = (0..40).map(|t| forward.uniform(t)).collect();
        let mut again = SampleRandom::new(7, 3, 5);
        for t in (0..40).rev() {
            assert_eq!(again.uniform(t), all[t]);
        }
        for other in [(8, 3, 5), (7, 4, 5), (7, 3, 6)] {
            assert_ne!(SampleRandom::new(other.0, other.1, other.2).uniform(0), all[0]);
        }
        assert!(all.iter().all(|u| (0.0..1.0).contains(u)));
    }

    #[test]
    fn the_stream_never_changes() {
        let mut random = SampleRandom::new(1, 2, 3);
        let words: Vec<u32> =
            (0..4).map(|t| (random.uniform(t) * (1 << 24) as f32) as u32).collect();
        assert_eq!(words, PINNED);
    }

    const PINNED: [u32; 4] = [11_992_141, 8_797_543, 797_632, 4_697_096];
}
