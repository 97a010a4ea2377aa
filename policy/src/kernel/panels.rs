//! Column panels: the layout in which the right-hand matrix of a product is read.
//!
//! Invariant: a `k × n` matrix is `ceil(n / NR)` panels one after the other, each `[k][NR]`; columns past
//! `n` are zero. Weights are packed once per policy version, keys and values once per prompt.

#[cfg(target_arch = "x86_64")]
mod transpose;

use super::gemm::Mat;
use std::ops::Range;

/// Columns of a panel: two registers of eight floats.
pub const NR: usize = 16;

/// Floats of a step in a strip of rows that is narrower than a panel.
pub const STRIP: usize = 8;

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
    super::parallel::room(out, count * k * NR);
    let panels = Slots { count, size: NR, exact: true };
    pack(b, depth, panels, out, |i| {
        let from = columns.start + i * NR;
        from..columns.end.min(from + NR)
    });
}

/// Packs `strips` ranges of rows of a left-hand matrix, each into `[depth][size]`, a size of [`NR`] or [`STRIP`]. What is
/// past a range's last row is anything.
pub(super) fn pack_strips(
    a: Mat<'_>,
    depth: Range<usize>,
    (count, size): (usize, usize),
    out: &mut Vec<f32>,
    strip: impl Fn(usize) -> Range<usize>,
) {
    super::parallel::room(out, count * depth.len() * size);
    pack(a.turned(), depth, Slots { count, size, exact: false }, out, strip);
}

/// How columns are laid out: `count` times `[depth][size]`.
#[derive(Clone, Copy)]
struct Slots {
    count: usize,
    size: usize,
    /// Whether what is past a range's last column must be zero.
    exact: bool,
}

/// Rows that are copied together: read one after the other, written to all slots in pieces of some lines.
const TOGETHER: usize = 4;

fn pack(
    b: Mat<'_>,
    depth: Range<usize>,
    slots: Slots,
    out: &mut [f32],
    columns: impl Fn(usize) -> Range<usize>,
) {
    let (k, size) = (depth.len(), slots.size);
    if k == 0 {
        return;
    }
    let each = out.chunks_exact_mut(k * size).take(slots.count).enumerate();
    if b.col_stride() != 1 {
        for (i, panel) in each {
            let columns = columns(i);
            if columns.len() < size && slots.exact {
                panel.fill(0.0);
            }
            transpose_into(b, columns, depth.clone(), size, panel);
        }
        return;
    }
    if slots.exact {
        for (i, panel) in each {
            if columns(i).len() < size {
                panel.fill(0.0);
            }
        }
    }
    for p0 in (0..k).step_by(TOGETHER) {
        for i in 0..slots.count {
            let columns = columns(i);
            let whole = columns.len() == size || !slots.exact;
            for p in p0..k.min(p0 + TOGETHER) {
                let slot = &mut out[(i * k + p) * size..][..size];
                let row = &b.data()[b.at(depth.start + p, columns.start)..];
                match row.get(..size) {
                    Some(row) if whole && size == NR => copy_line::<NR>(row, slot),
                    Some(row) if whole => copy_line::<STRIP>(row, slot),
                    _ => slot[..columns.len()].copy_from_slice(&row[..columns.len()]),
                }
            }
        }
    }
}

/// A copy whose length the compiler knows.
#[inline(always)]
fn copy_line<const N: usize>(from: &[f32], to: &mut [f32]) {
    if let (Some(from), Some(to)) = (from.first_chunk::<N>(), to.first_chunk_mut::<N>()) {
        *to = *from;
    }
}

/// Columns whose elements are adjacent in k: blocks of sixteen keep both sides in the cache.
fn transpose_into(
    b: Mat<'_>,
    columns: Range<usize>,
    depth: Range<usize>,
    size: usize,
    panel: &mut [f32],
) {
    const BLOCK: usize = 16;
    for p0 in (0..depth.len()).step_by(BLOCK) {
        let rows = BLOCK.min(depth.len() - p0);
        let block = &mut panel[p0 * size..][..rows * size];
        #[cfg(target_arch = "x86_64")]
        if rows == BLOCK && size == NR && columns.len() == NR && b.row_stride() == 1 {
            let from = &b.data()[b.at(depth.start + p0, columns.start)..];
            if transpose::sixteen(from, b.col_stride(), block) {
                continue;
            }
        }
        for column in 0..columns.len() {
            let from = b.at(depth.start + p0, columns.start + column);
            if b.row_stride() == 1 {
                let source = &b.data()[from..][..rows];
                for (slot, x) in block.chunks_exact_mut(size).zip(source) {
                    slot[column] = *x;
                }
            } else {
                for (p, slot) in block.chunks_exact_mut(size).enumerate() {
                    slot[column] = b.data()[from + p * b.row_stride()];
                }
            }
        }
    }
}
