//! Exponential back-off with jitter, as a pure function of a seed and the attempt.
//!
//! Invariant: a delay lies between half of its step and its step, and never above the ceiling, for
//! every attempt there is. The same seed gives the same delays; different seeds spread out.

use std::time::Duration;

/// How long to pause between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The step of the first pause; every later one doubles.
    pub first: Duration,
    /// The ceiling of the steps.
    pub most: Duration,
    /// Keys the jitter. Nodes take different ones, so that they do not return all at once.
    pub seed: u64,
}

/// A seed for the pauses of the node of that name.
pub fn seed_of(name: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(name.as_bytes()).as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl Backoff {
    /// From 50 ms up to 2 s: quick enough that a peer which is back is found again at once.
    pub const fn quick(seed: u64) -> Self {
        Self { first: Duration::from_millis(50), most: Duration::from_secs(2), seed }
    }

    /// From 50 ms up to 800 ms: for peers without which nothing moves, and which a short pause does not
    /// overload.
    pub const fn brisk(seed: u64) -> Self {
        Self { most: Duration::from_millis(800), ..Self::quick(seed) }
    }

    /// The pause after failed attempt `attempt`, counted from 0.
    pub fn delay(&self, attempt: u32) -> Duration {
        let doubled = 2u32.checked_pow(attempt).and_then(|factor| self.first.checked_mul(factor));
        let step = doubled.map_or(self.most, |step| step.min(self.most));
        // The top 53 bits make a fraction in [0, 1).
        let fraction = (mix(self.seed, attempt) >> 11) as f64 / (1u64 << 53) as f64;
        step.mul_f64(0.5 + 0.5 * fraction).min(step)
    }

    /// Counts attempts from here on.
    pub const fn attempts(self) -> Attempts {
        Attempts { backoff: self, failed: 0 }
    }
}

/// The attempts made so far at one thing.
#[derive(Clone, Debug)]
pub struct Attempts {
    backoff: Backoff,
    failed: u32,
}

impl Attempts {
    /// How often it failed since the last success.
    pub const fn failed(&self) -> u32 {
        self.failed
    }

    /// Counts a failure and says how long to pause for it.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.backoff.delay(self.failed);
        self.failed = self.failed.saturating_add(1);
        delay
    }

    /// It succeeded: the next failure starts from the first step.
    pub const fn reset(&mut self) {
        self.failed = 0;
    }
}

/// `SplitMix64`'s finaliser: every bit of the input moves every bit of the result.
const fn mix(seed: u64, attempt: u32) -> u64 {
    let mut z = seed.wrapping_add((attempt as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn steps_double_up_to_the_ceiling_and_start_again() {
        let backoff =
            Backoff { first: Duration::from_secs(1), most: Duration::from_secs(5), seed: 9 };
        let mut attempts = backoff.attempts();
        for step in [1, 2, 4, 5, 5] {
            let delay = attempts.next_delay();
            assert!(delay >= Duration::from_secs(step) / 2 && delay <= Duration::from_secs(step));
        }
        assert_eq!(attempts.failed(), 5);
        attempts.reset();
        assert_eq!(attempts.next_delay(), backoff.delay(0));
    }

    #[test]
    fn nodes_with_different_seeds_do_not_return_together() {
        let delays: std::collections::BTreeSet<_> =
            (0..64).map(|seed| Backoff::quick(seed).delay(5)).collect();
        assert_eq!(delays.len(), 64);
    }

    proptest! {
        #[test]
        fn every_delay_is_within_its_step(
            first in 0u64..100_000, most in 0u64..100_000, seed: u64, attempt: u32,
        ) {
            let (first, most) = (Duration::from_millis(first), Duration::from_millis(most));
            let backoff = Backoff { first, most, seed };
            let delay = backoff.delay(attempt);
            let step = first.saturating_mul(2u32.saturating_pow(attempt)).min(most);
            prop_assert!(delay <= most);
            prop_assert!(delay <= step);
            prop_assert!(delay + Duration::from_nanos(1) >= step / 2);
            prop_assert_eq!(delay, backoff.delay(attempt));
        }
    }
}
