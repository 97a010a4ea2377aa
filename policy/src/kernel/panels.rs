//! Column panels: the layout in which the right-hand matrix of a product is read.
//!
//! Invariant: a `k × n` matrix is `ceil(n / NR)` panels one after the other, each `[k][NR]`; columns past
//! `n` are zero. Weights are packed once per policy version, keys and values once per prompt.

use super::gemm::Mat;
use std::ops::Range;

/// Columns of a panel: two registers of eight floats.
pub const NR: usize = 16;

/// A packed `k × n` matrix.
#[derive(Clone, Debug, Default)]
pub struct Panels {
    data: Vec<f32>,
    depth: usize,
    columns: usize,
}

impl Panels {
    /// Packs a `k × n` view.
    pub fn pack(b: Mat<'_>, k: usize, n: usize) -> Self {
        let mut data = Vec::new();
        pack_columns(b, 0..n, 0..k, &mut data);
        Self { data, depth: k, columns: n }
    }

    /// `k`.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// `n`.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Zeros: room for columns or rows to be set one by one.
    pub fn zeros(k: usize, n: usize) -> Self {
        Self { data: vec![0.0; n.div_ceil(NR) * NR * k], depth: k, columns: n }
    }

    /// Sets column `j`, top to bottom.
    pub fn set_column(&mut self, j: usize, values: &[f32]) {
        let panel = &mut self.data[j / NR * NR * self.depth..][..NR * self.depth];
        for (slot, value) in panel[j % NR..].iter_mut().step_by(NR).zip(values) {
            *slot = *value;
        }
    }

    /// Sets row `p`, left to right.
    pub fn set_row(&mut self, p: usize, values: &[f32]) {
        let panels = self.data.chunks_exact_mut(NR * self.depth);
        for (panel, values) in panels.zip(values.chunks(NR)) {
            panel[p * NR..][..values.len()].copy_from_slice(values);
        }
    }

    /// The same columns with room for `k` rows.
    pub fn deepen(&self, k: usize) -> Self {
        let mut deeper = Self::zeros(k, self.columns);
        let old = self.data.chunks_exact((NR * self.depth).max(1));
        for (new, old) in deeper.data.chunks_exact_mut(NR * k).zip(old) {
            new[..old.len()].copy_from_slice(old);
        }
        deeper
    }

    /// The same rows with room for `n` columns.
    pub fn widen(&self, n: usize) -> Self {
        let mut wider = Self::zeros(self.depth, n);
        wider.data[..self.data.len()].copy_from_slice(&self.data);
        wider
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.data.len() * size_of::<f32>()
    }

    /// The panels from the one on that starts at column `j`, a multiple of [`NR`].
    pub(super) fn from(&self, j: usize) -> &[f32] {
        &self.data[j * self.depth..]
    }
}

/// Packs rows `depth` of columns `columns` into panels.
pub fn pack_columns(b: Mat<'_>, columns: Range<usize>, depth: Range<usize>, out: &mut Vec<f32>) {
    let (k, count) = (depth.len(), columns.len().div_ceil(NR));
    out.resize(count * k * NR, 0.0);
    if k == 0 {
        return;
    }
    for (panel, j) in out.chunks_exact_mut(k * NR).zip(columns.clone().step_by(NR)) {
        let width = NR.min(columns.end - j);
        if width < NR {
            panel.fill(0.0);
        }
        if b.col_stride() == 1 {
            for (slot, p) in panel.chunks_exact_mut(NR).zip(depth.clone()) {
                slot[..width].copy_from_slice(&b.data()[b.at(p, j)..][..width]);
            }
        } else {
            transpose_into(b, j, width, depth.clone(), panel);
        }
    }
}

/// Columns whose elements are adjacent in k: blocks of sixteen keep both sides in the cache.
fn transpose_into(b: Mat<'_>, j: usize, width: usize, depth: Range<usize>, panel: &mut [f32]) {
    const BLOCK: usize = 16;
    for p0 in (0..depth.len()).step_by(BLOCK) {
        let rows = BLOCK.min(depth.len() - p0);
        let block = &mut panel[p0 * NR..][..rows * NR];
        for column in 0..width {
            let from = b.at(depth.start + p0, j + column);
            if b.row_stride() == 1 {
                let source = &b.data()[from..][..rows];
                for (slot, x) in block.chunks_exact_mut(NR).zip(source) {
                    slot[column] = *x;
                }
            } else {
                for (p, slot) in block.chunks_exact_mut(NR).enumerate() {
                    slot[column] = b.data()[from + p * b.row_stride()];
                }
            }
        }
    }
}
