//! The gradient of packed attention, recomputing the weights from the kept log-sums.
//!
//! Invariant: one task owns one group's key head, so the sums over queries run in row order whatever the
//! number of threads.

use super::attention::{Heads, Sight};
use super::gemm::{Mat, Rhs, Start, gemm_serial};
use super::math;
use super::panels::{NR, Panels};
use super::parallel::{self, SharedMut};
use super::simd::widest;
use crate::layout::GroupRows;
use std::ops::Range;

/// Query entries (row × head) of a block.
const ENTRIES: usize = 48;

/// What the forward pass had and gave. All row-major: `rows × heads × dim`, `log_sums` `rows × heads`.
pub struct Kept<'a> {
    /// Rotated queries.
    pub q: &'a [f32],
    /// Rotated keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
    /// The output.
    pub out: &'a [f32],
    /// Logarithms of the softmax's denominators.
    pub log_sums: &'a [f32],
}

/// Gradients of the packed groups' attention, given `dout`; the three results are overwritten.
pub fn backward(
    groups: &[GroupRows],
    heads: Heads,
    kept: &Kept<'_>,
    dout: &[f32],
    (dq, dk, dv): (&mut [f32], &mut [f32], &mut [f32]),
) {
    let shared = [SharedMut::new(dq), SharedMut::new(dk), SharedMut::new(dv)];
    parallel::for_each(groups.len() * heads.keys, |task| {
        let (group, head) = (&groups[task / heads.keys], task % heads.keys);
        let mut work = HeadTask::new(group, head, heads, kept, dout, shared);
        for block in blocks(group.prefix.clone(), heads.repeat()) {
            work.block(block, None);
        }
        for (index, suffix) in group.suffixes.iter().enumerate() {
            for block in blocks(suffix.clone(), heads.repeat()) {
                work.block(block, Some(index));
            }
        }
        work.finish();
    });
}

/// Cuts rows into blocks of about [`ENTRIES`] entries.
pub fn blocks(rows: Range<usize>, repeat: usize) -> impl Iterator<Item = Range<usize>> {
    let step = (ENTRIES / repeat).max(1);
    let end = rows.end;
    rows.step_by(step).map(move |from| from..(from + step).min(end))
}

/// Keys and values of one range of rows in the forms that the products want, and their gradients.
struct Side {
    rows: Range<usize>,
    keys_by_dim: Panels,
    values_by_dim: Panels,
    keys_by_row: Panels,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

impl Side {
    fn new(rows: Range<usize>, k: &[f32], v: &[f32], stride: usize, at: usize, dim: usize) -> Self {
        let n = rows.len();
        let from = rows.start * stride + at;
        let (k, v) = if n == 0 { (&[][..], &[][..]) } else { (&k[from..], &v[from..]) };
        Self {
            rows,
            keys_by_dim: Panels::pack(Mat::transposed(k, stride), dim, n),
            values_by_dim: Panels::pack(Mat::transposed(v, stride), dim, n),
            keys_by_row: Panels::pack(Mat::rows(k, stride), n, dim),
            dk: vec![0.0; n * dim],
            dv: vec![0.0; n * dim],
        }
    }
}

struct HeadTask<'a> {
    heads: Heads,
    head: usize,
    kept: &'a Kept<'a>,
    dout: &'a [f32],
    shared: [SharedMut; 3],
    prefix: Side,
    suffixes: Vec<Side>,
    q: Vec<f32>,
    d: Vec<f32>,
    deltas: Vec<f32>,
    dq: Vec<f32>,
    weights: Vec<f32>,
    slopes: Vec<f32>,
}

impl<'a> HeadTask<'a> {
    fn new(
        group: &GroupRows,
        head: usize,
        heads: Heads,
        kept: &'a Kept<'a>,
        dout: &'a [f32],
        shared: [SharedMut; 3],
    ) -> Self {
        let (stride, dim) = (heads.keys * heads.dim, heads.dim);
        let side =
            |rows: &Range<usize>| Side::new(rows.clone(), kept.k, kept.v, stride, head * dim, dim);
        Self {
            heads,
            head,
            kept,
            dout,
            shared,
            prefix: side(&group.prefix),
            suffixes: group.suffixes.iter().map(side).collect(),
            q: Vec::new(),
            d: Vec::new(),
            deltas: Vec::new(),
            dq: Vec::new(),
            weights: Vec::new(),
            slopes: Vec::new(),
        }
    }

    /// One block of queries: of the prefix itself, or of a suffix.
    fn block(&mut self, rows: Range<usize>, suffix: Option<usize>) {
        let Heads { queries, dim, .. } = self.heads;
        let repeat = self.heads.repeat();
        let (width, at) = (queries * dim, self.head * repeat * dim);
        self.q.clear();
        self.d.clear();
        self.deltas.clear();
        for row in rows.clone() {
            let here = row * width + at..row * width + at + repeat * dim;
            self.q.extend_from_slice(&self.kept.q[here.clone()]);
            self.d.extend_from_slice(&self.dout[here.clone()]);
            let (out, d) = (&self.kept.out[here.clone()], &self.dout[here]);
            let heads = out.chunks_exact(dim).zip(d.chunks_exact(dim));
            self.deltas.extend(heads.map(|(o, d)| math::dot(o, d)));
        }
        self.dq.clear();
        self.dq.resize(self.q.len(), 0.0);
        let sights: Vec<Sight> = rows
            .clone()
            .map(|row| match suffix {
                None => Sight { prefix: row - self.prefix.rows.start + 1, suffix: 0 },
                Some(s) => Sight {
                    prefix: self.prefix.rows.len(),
                    suffix: row - self.suffixes[s].rows.start + 1,
                },
            })
            .collect();
        let mut prefix = std::mem::replace(&mut self.prefix, Side::new(0..0, &[], &[], 1, 0, 1));
        self.side(&mut prefix, &rows, &sights, |s| s.prefix);
        self.prefix = prefix;
        if let Some(s) = suffix {
            let mut own =
                std::mem::replace(&mut self.suffixes[s], Side::new(0..0, &[], &[], 1, 0, 1));
            self.side(&mut own, &rows, &sights, |s| s.suffix);
            self.suffixes[s] = own;
        }
        for (row, dq) in rows.zip(self.dq.chunks_exact(repeat * dim)) {
            // SAFETY: this task alone has this group's rows of this head.
            unsafe { self.shared[0].part(row * width + at, repeat * dim) }.copy_from_slice(dq);
        }
    }

    /// The block's share of one range of keys.
    fn side(
        &mut self,
        side: &mut Side,
        rows: &Range<usize>,
        sights: &[Sight],
        seen: fn(&Sight) -> usize,
    ) {
        let Heads { queries, dim, .. } = self.heads;
        let (repeat, scale) = (self.heads.repeat(), self.heads.scale());
        let n = sights.iter().map(seen).max().unwrap_or(0);
        let (m, width) = (self.deltas.len(), n.next_multiple_of(NR));
        if n == 0 {
            return;
        }
        self.weights.resize((m * width).max(self.weights.len()), 0.0);
        self.slopes.resize((m * width).max(self.slopes.len()), 0.0);
        let (weights, slopes) = (&mut self.weights[..m * width], &mut self.slopes[..m * width]);
        let (q, d) = (Mat::rows(&self.q, dim), Mat::rows(&self.d, dim));
        gemm_serial((m, n, dim), q, Rhs::Packed(&side.keys_by_dim), weights, width, Start::Zero);
        gemm_serial((m, n, dim), d, Rhs::Packed(&side.values_by_dim), slopes, width, Start::Zero);
        let lines = weights.chunks_exact_mut(width).zip(slopes.chunks_exact_mut(width));
        for (entry, (weights, slopes)) in lines.enumerate() {
            let visible = seen(&sights[entry / repeat]);
            let row = rows.start + entry / repeat;
            let log_sum = self.kept.log_sums[row * queries + self.head * repeat + entry % repeat];
            let delta = self.deltas[entry];
            let pairs = weights[..visible].iter_mut().zip(&mut slopes[..visible]);
            widest(|| {
                for (w, s) in pairs {
                    *w = math::exp(w.mul_add(scale, -log_sum));
                    *s = *w * (*s - delta) * scale;
                }
            });
            weights[visible..].fill(0.0);
            slopes[visible..].fill(0.0);
        }
        let ds = Mat::rows(slopes, width);
        gemm_serial(
            (m, dim, n),
            ds,
            Rhs::Packed(&side.keys_by_row),
            &mut self.dq,
            dim,
            Start::Continue,
        );
        let (ds, w) = (Mat::transposed(slopes, width), Mat::transposed(weights, width));
        gemm_serial((n, dim, m), ds, Rhs::Plain(q), &mut side.dk, dim, Start::Continue);
        gemm_serial((n, dim, m), w, Rhs::Plain(d), &mut side.dv, dim, Start::Continue);
    }

    fn finish(self) {
        let (stride, dim) = (self.heads.keys * self.heads.dim, self.heads.dim);
        for side in std::iter::once(&self.prefix).chain(&self.suffixes) {
            let each = side.dk.chunks_exact(dim).zip(side.dv.chunks_exact(dim));
            for (row, (dk, dv)) in side.rows.clone().zip(each) {
                let at = row * stride + self.head * dim;
                // SAFETY: this task alone has this group's rows of this head.
                unsafe {
                    self.shared[1].part(at, dim).copy_from_slice(dk);
                    self.shared[2].part(at, dim).copy_from_slice(dv);
                }
            }
        }
    }
}
