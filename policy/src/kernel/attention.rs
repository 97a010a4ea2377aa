//! Causal grouped-query attention of packed groups: a shared prefix, and suffixes that see it.
//!
//! Invariant: a query's result is a function of the query, of the prefix keys and of its own suffix's
//! keys that it may see, in this order, whatever block it is computed in. Keys it may not see get
//! the weight 0.0 exactly, which leaves every chain unchanged, so decoding one token at a time and learning
//! a whole suffix give the same bits.

use super::gemm::{Mat, Rhs, Start, gemm_serial};
use super::math;
use super::panels::{NR, Panels};
use super::parallel::{self, SharedMut};
use super::simd::widest;

/// Keys and values of one head and one range of positions.
#[derive(Clone, Copy)]
pub struct KeyValues<'a> {
    /// `dim × positions` panels.
    pub keys: &'a Panels,
    /// `positions × dim` panels.
    pub values: &'a Panels,
}

/// Consecutive queries of a block that share a suffix.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// How many queries.
    pub queries: usize,
    /// The suffix's keys and values; `None` for queries of the prefix itself.
    pub suffix: Option<KeyValues<'a>>,
}

/// What one query may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Positions of the prefix.
    pub prefix: usize,
    /// Positions of its own suffix.
    pub suffix: usize,
}

/// Memory of one block, reused from block to block.
#[derive(Default)]
pub struct Block {
    /// `queries × (prefix + suffix)` weights, not yet divided by their sums.
    pub weights: Vec<f32>,
    /// Per query: largest scaled score, and the sum of weights.
    pub tops: Vec<f32>,
    pub(super) sums: Vec<f32>,
    /// Columns of `weights`.
    pub width: usize,
    /// Column where the suffix begins.
    pub suffix_at: usize,
}

impl Block {
    /// Softmax weights of `queries` (rows of `dim` floats) into the block.
    pub fn score(
        &mut self,
        queries: &[f32],
        dim: usize,
        scale: f32,
        prefix: KeyValues<'_>,
        runs: &[Run<'_>],
        sights: &[Sight],
    ) {
        let m = sights.len();
        let furthest = |f: fn(&Sight) -> usize| sights.iter().map(f).max().unwrap_or(0);
        let seen = furthest(|s| s.prefix);
        self.suffix_at = seen.next_multiple_of(NR);
        self.width = self.suffix_at + furthest(|s| s.suffix).next_multiple_of(NR);
        let width = self.width;
        // Cleared: the columns past what a query sees must be finite zeros, not an old block's.
        self.weights.clear();
        self.weights.resize(m * width, 0.0);
        let q = Mat::rows(queries, dim);
        let keys = Rhs::Packed(prefix.keys);
        gemm_serial((m, seen, dim), q, keys, &mut self.weights, width, Start::Zero);
        let mut row = 0;
        for run in runs {
            let rows = row..row + run.queries;
            if let Some(suffix) = run.suffix {
                let seen = sights[rows.clone()].iter().map(|s| s.suffix).max().unwrap_or(0);
                let q = Mat::rows(&queries[rows.start * dim..], dim);
                let c = &mut self.weights[rows.start * width + self.suffix_at..];
                let keys = Rhs::Packed(suffix.keys);
                gemm_serial((run.queries, seen, dim), q, keys, c, width, Start::Zero);
            }
            row = rows.end;
        }
        self.tops.clear();
        self.sums.clear();
        for (weights, sight) in self.weights.chunks_exact_mut(width.max(1)).zip(sights) {
            let (prefix, suffix) = weights.split_at_mut(self.suffix_at);
            let (p, hidden_p) = prefix.split_at_mut(sight.prefix);
            let (s, hidden_s) = suffix.split_at_mut(sight.suffix);
            let (top, total) = widest(|| {
                let top = math::max(p).max(math::max(s));
                (top, math::exp_row(p, top, scale) + math::exp_row(s, top, scale))
            });
            hidden_p.fill(0.0);
            hidden_s.fill(0.0);
            self.tops.push(top * scale);
            self.sums.push(total);
        }
    }

    /// `out = weights · values / sums`, rows of `dim` floats.
    pub fn mix(&self, dim: usize, prefix: KeyValues<'_>, runs: &[Run<'_>], out: &mut [f32]) {
        let (m, width) = (self.sums.len(), self.width);
        let seen = self.suffix_at.min(prefix.values.depth());
        let values = Rhs::Packed(prefix.values);
        let weights = Mat::rows(&self.weights, width);
        gemm_serial((m, dim, seen), weights, values, out, dim, Start::Zero);
        let mut row = 0;
        for run in runs {
            if let Some(suffix) = run.suffix {
                let seen = (width - self.suffix_at).min(suffix.values.depth());
                let weights = Mat::rows(&self.weights[row * width + self.suffix_at..], width);
                let shape = (run.queries, dim, seen);
                let values = Rhs::Packed(suffix.values);
                let out = &mut out[row * dim..];
                gemm_serial(shape, weights, values, out, dim, Start::Continue);
            }
            row += run.queries;
        }
        for (out, sum) in out.chunks_exact_mut(dim).zip(&self.sums) {
            let inverse = 1.0 / sum;
            out.iter_mut().for_each(|x| *x *= inverse);
        }
    }

    /// Per query, the logarithm of the softmax's denominator, for the gradient.
    pub fn log_sums(&self) -> impl Iterator<Item = f32> {
        self.tops.iter().zip(&self.sums).map(|(top, sum)| top + sum.ln())
    }
}

/// Heads of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub queries: usize,
    /// Key and value heads; divides `queries`.
    pub keys: usize,
    /// Floats of a head.
    pub dim: usize,
}

impl Heads {
    /// Query heads that share a key head.
    pub fn repeat(&self) -> usize {
        self.queries / self.keys
    }

    /// What scores are multiplied with.
    pub fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
}

/// Queries of one group and one key head, computed together.
pub struct Job<'a> {
    /// The key head.
    pub head: usize,
    /// The group's shared prefix.
    pub prefix: KeyValues<'a>,
    /// Rows of the query matrix, and what each may see.
    pub rows: Vec<(usize, Sight)>,
    /// How the rows fall into suffixes, in row order; `queries` counts rows.
    pub runs: Vec<Run<'a>>,
}

/// Computes jobs on the current pool: `q` and `out` are `rows × heads × dim`, `log_sums` (when wanted)
/// `rows × heads`.
pub fn attend(
    jobs: &[Job<'_>],
    heads: Heads,
    q: &[f32],
    out: &mut [f32],
    log_sums: Option<&mut [f32]>,
) {
    let (width, dim, repeat) = (heads.queries * heads.dim, heads.dim, heads.repeat());
    let out = SharedMut::new(out);
    let log_sums = log_sums.map(SharedMut::new);
    parallel::for_each(jobs.len(), |index| {
        let job = &jobs[index];
        let at = job.head * repeat * dim;
        let mut gathered = Vec::with_capacity(job.rows.len() * repeat * dim);
        let mut sights = Vec::with_capacity(job.rows.len() * repeat);
        for &(row, sight) in &job.rows {
            gathered.extend_from_slice(&q[row * width + at..][..repeat * dim]);
            sights.extend(std::iter::repeat_n(sight, repeat));
        }
        let runs: Vec<Run<'_>> =
            job.runs.iter().map(|r| Run { queries: r.queries * repeat, ..*r }).collect();
        let mut block = Block::default();
        block.score(&gathered, dim, heads.scale(), job.prefix, &runs, &sights);
        block.mix(dim, job.prefix, &runs, &mut gathered);
        let mut sums = block.log_sums();
        for (&(row, _), mixed) in job.rows.iter().zip(gathered.chunks_exact(repeat * dim)) {
            // SAFETY: no two jobs have the same row and head.
            unsafe { out.part(row * width + at, repeat * dim) }.copy_from_slice(mixed);
            if let Some(all) = log_sums {
                // SAFETY: as above.
                let slot = unsafe { all.part(row * heads.queries + job.head * repeat, repeat) };
                slot.iter_mut().zip(&mut sums).for_each(|(slot, sum)| *slot = sum);
            }
        }
    });
}
