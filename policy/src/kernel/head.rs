//! The distribution over the vocabulary that one row of logits stands for, its draw, and its gradient.
//!
//! Invariant: sampler and learner compute a row's distribution with this code and no other, so the
//! log-probability that is recorded is that of the distribution really sampled from, temperature, top-k
//! and top-p included, and the learner finds the same bits again.

use super::math;
use super::simd::widest;

/// How logits become a distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shaping {
    /// Logits are divided by it; 0 means the most likely token, always.
    pub temperature: f32,
    /// Only the smallest set of most likely tokens with at least this much probability; 1 for all.
    pub top_p: f32,
    /// Only this many most likely tokens; 0 for all.
    pub top_k: usize,
}

impl Default for Shaping {
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, top_k: 0 }
    }
}

/// A row's distribution: token `j` has probability `exp((l[j] - top) · inverse) / total` where
/// `l[j] >= floor`, else 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowDistribution {
    top: f32,
    inverse: f32,
    floor: f32,
    total: f32,
}

/// Logits of a block of the cumulative sum.
const BLOCK: usize = 64;

impl RowDistribution {
    /// Reads a row of logits. Tokens whose logits equal the last kept one's are all kept.
    pub fn new(logits: &[f32], shaping: Shaping) -> Self {
        let top = widest(|| math::max(logits));
        if shaping.temperature <= 0.0 {
            // All mass on the largest logit: its neighbours are below the floor.
            return Self { top, inverse: 1.0, floor: top, total: 1.0 };
        }
        let inverse = 1.0 / shaping.temperature;
        let mut row = Self { top, inverse, floor: f32::NEG_INFINITY, total: 0.0 };
        if shaping.top_k > 0 && shaping.top_k < logits.len() {
            let mut sorted = logits.to_vec();
            let last = shaping.top_k - 1;
            let (_, kth, _) = sorted.select_nth_unstable_by(last, |a, b| b.total_cmp(a));
            row.floor = *kth;
        }
        row.total = widest(|| row.sum(logits));
        if shaping.top_p < 1.0 {
            row.floor = row.nucleus(logits, shaping.top_p);
            row.total = widest(|| row.sum(logits));
        }
        row
    }

    /// Log-probability of a token with this logit; negative infinity for one that was cut.
    pub fn log_prob(&self, logit: f32) -> f32 {
        if logit < self.floor {
            return f32::NEG_INFINITY;
        }
        (logit - self.top).mul_add(self.inverse, -self.total.ln())
    }

    /// The token at quantile `u` of `[0, 1)`, tokens in the order of their ids.
    pub fn draw(&self, logits: &[f32], u: f32) -> u32 {
        let wanted = u * self.total;
        let mut before = 0f32;
        let mut last = 0;
        for (block, chunk) in logits.chunks(BLOCK).enumerate() {
            let here = widest(|| self.sum(chunk));
            if here == 0.0 {
                continue;
            }
            if before + here <= wanted {
                before += here;
                last = block;
                continue;
            }
            return (block * BLOCK + self.within(chunk, wanted - before)) as u32;
        }
        // Rounding put the quantile past the last block's end: its last possible token.
        let chunk = &logits[last * BLOCK..];
        (last * BLOCK + self.within(&chunk[..BLOCK.min(chunk.len())], f32::INFINITY)) as u32
    }

    fn within(&self, chunk: &[f32], wanted: f32) -> usize {
        let (mut sum, mut last) = (0f32, 0);
        for (j, &logit) in chunk.iter().enumerate() {
            let weight = self.weight(logit);
            if weight > 0.0 {
                sum += weight;
                last = j;
                if sum > wanted {
                    break;
                }
            }
        }
        last
    }

    /// Replaces logits by `d loss / d logits`, given `(token, d loss / d log-probability)` pairs.
    pub fn slope(&self, logits: &mut [f32], targets: impl Iterator<Item = (u32, f32)> + Clone) {
        let all: f32 = targets.clone().map(|(_, d)| d).sum();
        let factor = -all * self.inverse / self.total;
        widest(|| logits.iter_mut().for_each(|logit| *logit = factor * self.weight(*logit)));
        for (token, d) in targets {
            logits[token as usize] += d * self.inverse;
        }
    }

    /// Entropy in nats.
    pub fn entropy(&self, logits: &[f32]) -> f32 {
        let sum = widest(|| self.weighted(logits));
        self.total.ln() - sum / self.total
    }

    /// `Σ weight · (l - top) · inverse`, cut tokens left out and not added as zeros: their logit may be infinite.
    #[inline(always)]
    fn weighted(&self, logits: &[f32]) -> f32 {
        let mut lanes = [0f32; math::LANES];
        let (chunks, rest) = logits.as_chunks::<{ math::LANES }>();
        for chunk in chunks {
            for l in 0..math::LANES {
                let weight = self.weight(chunk[l]);
                let more = lanes[l] + weight * (chunk[l] - self.top) * self.inverse;
                lanes[l] = if weight > 0.0 { more } else { lanes[l] };
            }
        }
        for (lane, &logit) in lanes.iter_mut().zip(rest) {
            let weight = self.weight(logit);
            if weight > 0.0 {
                *lane += weight * (logit - self.top) * self.inverse;
            }
        }
        math::tree(lanes)
    }

    #[inline(always)]
    fn weight(&self, logit: f32) -> f32 {
        let weight = math::exp((logit - self.top) * self.inverse);
        if logit < self.floor { 0.0 } else { weight }
    }

    #[inline(always)]
    fn sum(&self, logits: &[f32]) -> f32 {
        let mut lanes = [0f32; math::LANES];
        let chunks = logits.chunks_exact(math::LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for l in 0..math::LANES {
                lanes[l] += self.weight(chunk[l]);
            }
        }
        for (lane, &logit) in lanes.iter_mut().zip(rest) {
            *lane += self.weight(logit);
        }
        math::tree(lanes)
    }

    /// The floor of the smallest likeliest set with probability `p`.
    fn nucleus(&self, logits: &[f32], p: f32) -> f32 {
        let mut kept: Vec<f32> = logits.iter().copied().filter(|&l| l >= self.floor).collect();
        kept.sort_unstable_by(|a, b| b.total_cmp(a));
        let wanted = p * self.total;
        let mut sum = 0f32;
        for &logit in &kept {
            sum += self.weight(logit);
            if sum >= wanted {
                return logit;
            }
        }
        self.floor
    }
}

#[cfg(test)]
mod tests;
