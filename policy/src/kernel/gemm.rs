//! Matrix products: `C (+)= A · B`, any strides.
//!
//! Invariant: `C[i][j]` is the chain `fma(A[i][k-1], B[k-1][j], … fma(A[i][0], B[0][j], c0))` in exactly
//! this order, where `c0` is 0 or the old `C[i][j]`. Cutting `k` into blocks continues the chain from
//! `C`, so neither tile sizes nor threads nor the number of rows can change a bit. A library kernel does
//! not promise that (`gemm` takes another path for a single row), which is why this one exists.

use super::panels::{NR, Panels, pack_columns};
use super::parallel::{self, SharedMut};

/// Rows of a register tile: 6 × 16 accumulators fill twelve of AVX2's sixteen registers.
pub const MR: usize = 6;
/// Depth of a block: a panel of `KC × NR` floats stays in the first-level cache.
const KC: usize = 384;
/// Rows of a block: `MC × KC` floats stay in the second-level cache.
const MC: usize = 192;
/// Below this many multiply-adds a task is not worth handing to another thread.
const MIN_TASK: usize = 1 << 18;

/// A view of a matrix: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: &'a [f32],
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// Rows of `stride` floats one after the other.
    pub fn rows(data: &'a [f32], stride: usize) -> Self {
        Self { data, row_stride: stride, col_stride: 1 }
    }

    /// The transpose of [`Mat::rows`].
    pub fn transposed(data: &'a [f32], stride: usize) -> Self {
        Self { data, row_stride: 1, col_stride: stride }
    }

    /// The rows from `row` on.
    fn below(self, row: usize) -> Self {
        Self { data: &self.data[row * self.row_stride..], ..self }
    }

    pub(super) fn at(&self, i: usize, j: usize) -> usize {
        i * self.row_stride + j * self.col_stride
    }

    pub(super) fn data(&self) -> &'a [f32] {
        self.data
    }

    pub(super) fn col_stride(&self) -> usize {
        self.col_stride
    }

    pub(super) fn row_stride(&self) -> usize {
        self.row_stride
    }

    fn check(&self, rows: usize, cols: usize) {
        assert!(
            rows == 0 || cols == 0 || self.at(rows - 1, cols - 1) < self.data.len(),
            "a {rows}x{cols} view with strides {}, {} does not fit {} floats",
            self.row_stride,
            self.col_stride,
            self.data.len()
        );
    }
}

/// The right-hand matrix: packed once and kept, or packed on the way.
#[derive(Clone, Copy)]
pub enum Rhs<'a> {
    /// `k × n`, packed block by block while multiplying.
    Plain(Mat<'a>),
    /// `k × n` in column panels.
    Packed(&'a Panels),
}

/// What a product starts from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// From zero; `C`'s old contents are not read.
    Zero,
    /// From `C`: the product continues `C`'s chain.
    Continue,
}

/// `C[m × n] (+)= A[m × k] · B[k × n]`, `C` in rows of `ldc` floats; uses the current thread pool.
///
/// # Panics
/// When a view is smaller than its shape says: shapes are the caller's to check.
pub fn gemm(
    (m, n, k): (usize, usize, usize),
    a: Mat<'_>,
    b: Rhs<'_>,
    c: &mut [f32],
    ldc: usize,
    start: Start,
) {
    let panels = n.div_ceil(NR);
    let per_task = if m * n * k < 2 * MIN_TASK {
        panels
    } else {
        let least = MIN_TASK.div_ceil(m * k * NR).max(1);
        panels.div_ceil(parallel::threads() * 4).clamp(least, least.max(16))
    };
    run((m, n, k), a, b, c, ldc, start, per_task.max(1));
}

/// As [`gemm`], on the calling thread alone: for products inside a task.
pub fn gemm_serial(
    (m, n, k): (usize, usize, usize),
    a: Mat<'_>,
    b: Rhs<'_>,
    c: &mut [f32],
    ldc: usize,
    start: Start,
) {
    run((m, n, k), a, b, c, ldc, start, n.div_ceil(NR).max(1));
}

/// As [`gemm`], for a `C` of so few columns that they make no work for several threads: they share its rows. `C` has no
/// gaps. The bits are those of [`gemm`].
///
/// # Panics
/// As [`gemm`].
pub fn gemm_tall(
    (m, n, k): (usize, usize, usize),
    a: Mat<'_>,
    b: Rhs<'_>,
    c: &mut [f32],
    start: Start,
) {
    assert_eq!(c.len(), m * n, "C has gaps");
    let per_task = MIN_TASK.div_ceil((n * k).max(1)).next_multiple_of(MR);
    parallel::for_each_chunk(c, per_task * n, |task, c| {
        gemm_serial((c.len() / n, n, k), a.below(task * per_task), b, c, n, start);
    });
}

fn run(
    (m, n, k): (usize, usize, usize),
    a: Mat<'_>,
    b: Rhs<'_>,
    c: &mut [f32],
    ldc: usize,
    start: Start,
    panels_per_task: usize,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(ldc >= n && (m - 1) * ldc + n <= c.len(), "C is too small for {m}x{n} rows of {ldc}");
    if k == 0 {
        if start == Start::Zero {
            c.chunks_mut(ldc).take(m).for_each(|row| row[..n].fill(0.0));
        }
        return;
    }
    a.check(m, k);
    match b {
        Rhs::Plain(b) => b.check(k, n),
        Rhs::Packed(p) => assert!(p.depth() >= k && p.columns() >= n, "packed for another shape"),
    }
    let out = SharedMut::new(c);
    parallel::for_each(n.div_ceil(NR).div_ceil(panels_per_task), |task| {
        let columns = task * panels_per_task * NR..((task + 1) * panels_per_task * NR).min(n);
        // SAFETY: tasks write disjoint column ranges of rows that were checked to lie inside C.
        let c = unsafe { out.pointer() };
        columns_task(m, k, columns, a, b, c, ldc, start);
    });
}

#[allow(clippy::too_many_arguments)]
fn columns_task(
    m: usize,
    k: usize,
    columns: std::ops::Range<usize>,
    a: Mat<'_>,
    b: Rhs<'_>,
    c: *mut f32,
    ldc: usize,
    start: Start,
) {
    parallel::with_scratch(|scratch| {
        for k0 in (0..k).step_by(KC) {
            let k1 = (k0 + KC).min(k);
            let depth = k1 - k0;
            let (panels, panel_stride): (&[f32], usize) = match b {
                Rhs::Packed(p) => (&p.from(columns.start)[k0 * NR..], p.depth() * NR),
                Rhs::Plain(b) => {
                    pack_columns(b, columns.clone(), k0..k1, &mut scratch.b);
                    (&scratch.b, depth * NR)
                }
            };
            let carry = k0 > 0 || start == Start::Continue;
            for i0 in (0..m).step_by(MC) {
                let rows = i0..(i0 + MC).min(m);
                // Rows that are contiguous in k are read in place; others are gathered into strips.
                let gather = a.col_stride != 1;
                if gather {
                    pack_rows(a, rows.clone(), k0..k1, &mut scratch.a);
                }
                for (panel, j) in columns.clone().step_by(NR).enumerate() {
                    let width = NR.min(columns.end - j);
                    let panel = &panels[panel * panel_stride..][..depth * NR];
                    for i in rows.clone().step_by(MR) {
                        let height = MR.min(rows.end - i);
                        let (strip, rs, cs) = if gather {
                            (&scratch.a[(i - i0) * depth..], 1, height)
                        } else {
                            (&a.data[a.at(i, k0)..], a.row_stride, 1)
                        };
                        // SAFETY: the tile lies inside C (checked in `run`), its strip inside A
                        // (checked there too, or packed just now), and the panel holds depth × NR floats.
                        unsafe {
                            let tile = c.add(i * ldc + j);
                            edge_tile(
                                (height, width),
                                depth,
                                strip.as_ptr(),
                                (rs, cs),
                                panel,
                                tile,
                                ldc,
                                carry,
                            );
                        }
                    }
                }
            }
        }
    });
}

/// Copies rows of A whose elements are far apart in k into strips `[k][height]`.
fn pack_rows(
    a: Mat<'_>,
    rows: std::ops::Range<usize>,
    depth: std::ops::Range<usize>,
    out: &mut Vec<f32>,
) {
    out.resize(rows.len() * depth.len(), 0.0);
    let mut strips = out.as_mut_slice();
    for i in rows.clone().step_by(MR) {
        let height = MR.min(rows.end - i);
        let (strip, rest) = strips.split_at_mut(height * depth.len());
        strips = rest;
        if height == MR && a.row_stride == 1 {
            for (slot, p) in strip.chunks_exact_mut(MR).zip(depth.clone()) {
                slot.copy_from_slice(&a.data[a.at(i, p)..][..MR]);
            }
        } else {
            for (slot, p) in strip.chunks_exact_mut(height).zip(depth.clone()) {
                for (r, x) in slot.iter_mut().enumerate() {
                    *x = a.data[a.at(i + r, p)];
                }
            }
        }
    }
}

/// A tile of any height up to `MR` and any width up to `NR`.
///
/// # Safety
/// `strip` covers `height` rows and `depth` columns with the given strides; `c` covers the tile.
#[allow(clippy::too_many_arguments)]
#[inline]
unsafe fn edge_tile(
    (height, width): (usize, usize),
    depth: usize,
    strip: *const f32,
    strides: (usize, usize),
    panel: &[f32],
    c: *mut f32,
    ldc: usize,
    carry: bool,
) {
    // SAFETY: passed on from the caller; the local copy is a full MR × NR tile.
    unsafe {
        if width == NR {
            return tile_of(height, depth, strip, strides, panel, c, ldc, carry);
        }
        let mut whole = [0f32; MR * NR];
        if carry {
            for i in 0..height {
                std::ptr::copy_nonoverlapping(
                    c.add(i * ldc),
                    whole.as_mut_ptr().add(i * NR),
                    width,
                );
            }
        }
        tile_of(height, depth, strip, strides, panel, whole.as_mut_ptr(), NR, carry);
        for i in 0..height {
            std::ptr::copy_nonoverlapping(whole.as_ptr().add(i * NR), c.add(i * ldc), width);
        }
    }
}

#[allow(clippy::too_many_arguments)]
#[inline]
unsafe fn tile_of(
    height: usize,
    depth: usize,
    strip: *const f32,
    strides: (usize, usize),
    panel: &[f32],
    c: *mut f32,
    ldc: usize,
    carry: bool,
) {
    debug_assert!(panel.len() >= depth * NR && (1..=MR).contains(&height));
    // SAFETY: passed on from the caller.
    unsafe {
        match height {
            6 => tile::<6>(depth, strip, strides, panel, c, ldc, carry),
            5 => tile::<5>(depth, strip, strides, panel, c, ldc, carry),
            4 => tile::<4>(depth, strip, strides, panel, c, ldc, carry),
            3 => tile::<3>(depth, strip, strides, panel, c, ldc, carry),
            2 => tile::<2>(depth, strip, strides, panel, c, ldc, carry),
            _ => tile::<1>(depth, strip, strides, panel, c, ldc, carry),
        }
    }
}

/// Eight floats: one AVX register, two NEON ones. Written as an array so that it compiles everywhere.
type Lanes = [f32; 8];

#[inline(always)]
fn fma(x: f32, b: Lanes, mut c: Lanes) -> Lanes {
    for l in 0..8 {
        c[l] = x.mul_add(b[l], c[l]);
    }
    c
}

#[inline(never)]
unsafe fn tile<const R: usize>(
    depth: usize,
    strip: *const f32,
    (rs, cs): (usize, usize),
    panel: &[f32],
    c: *mut f32,
    ldc: usize,
    carry: bool,
) {
    // SAFETY: the caller promises R rows of strip and of C, and depth rows of the panel.
    unsafe {
        let mut acc = [[[0f32; 8]; 2]; R];
        if carry {
            for (i, row) in acc.iter_mut().enumerate() {
                row[0] = c.add(i * ldc).cast::<Lanes>().read_unaligned();
                row[1] = c.add(i * ldc + 8).cast::<Lanes>().read_unaligned();
            }
        }
        let (mut a, mut b) = (strip, panel.as_ptr());
        for _ in 0..depth {
            let b0 = b.cast::<Lanes>().read_unaligned();
            let b1 = b.add(8).cast::<Lanes>().read_unaligned();
            for (i, row) in acc.iter_mut().enumerate() {
                let x = *a.add(i * rs);
                row[0] = fma(x, b0, row[0]);
                row[1] = fma(x, b1, row[1]);
            }
            a = a.add(cs);
            b = b.add(NR);
        }
        for (i, row) in acc.iter().enumerate() {
            c.add(i * ldc).cast::<Lanes>().write_unaligned(row[0]);
            c.add(i * ldc + 8).cast::<Lanes>().write_unaligned(row[1]);
        }
    }
}

#[cfg(test)]
mod tests;
