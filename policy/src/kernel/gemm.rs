//! Matrix products: `C (+)= A · B`, of matrices in rows or transposed, rows any number of floats apart.
//!
//! Invariant: `C[i][j]` is the chain `fma(A[i][k-1], B[k-1][j], … fma(A[i][0], B[0][j], c0))` in exactly
//! this order, where `c0` is 0 or the old `C[i][j]`. Cutting `k` into blocks continues the chain from
//! `C`, so neither tile sizes nor threads nor the number of rows can change a bit. A library kernel does
//! not promise that (`gemm` takes another path for a single row), which is why this one exists.

mod ahead;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod narrow;
mod tile;

use super::panels::{NR, Panels, pack_columns, pack_strips};
use super::parallel::{self, Scratch, SharedMut};
use ahead::{Ahead, NextBlock};
use std::ops::Range;
use tile::{Shape, Tile};

/// Floats that a thread lays out of the right-hand matrix at once. A head's has tens of thousands of columns.
const LAID_OUT: usize = 384 * 1024;
/// Below this many multiply-adds a task is not worth handing to another thread.
const MIN_TASK: usize = 1 << 18;
/// Tasks for each thread, so that one that is held up leaves the others something to take.
const TASKS: usize = 4;
/// As [`TASKS`], where the right-hand matrix is laid out on the way: each task more reads or lays out anew what another
/// one does as well, and in narrower pieces.
const FEW_TASKS: usize = 2;

/// A view of a matrix: element `(i, j)` is `data[i * row_stride + j * col_stride]`. One of the strides is 1, which the
/// tiles rely on.
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

    /// The transpose of the view.
    pub(super) fn turned(&self) -> Self {
        Self { data: self.data, row_stride: self.col_stride, col_stride: self.row_stride }
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
    let grid = Grid::new((m, n, k), a, b, parallel::threads());
    run((m, n, k), a, b, c, ldc, start, grid);
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
    run((m, n, k), a, b, c, ldc, start, Grid { rows: 1, columns: 1 });
}

/// Into how many ranges of rows and of columns `C` is cut; a task computes one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grid {
    rows: usize,
    columns: usize,
}

impl Grid {
    /// Every range of rows reads the whole of `B`, and every range of columns the whole of `A`: the cut that reads
    /// least, where what is laid out anew on the way counts twice.
    fn new((m, n, k): (usize, usize, usize), a: Mat<'_>, b: Rhs<'_>, threads: usize) -> Self {
        let most = m * n * k / MIN_TASK;
        if threads == 1 || most < 2 {
            return Self { rows: 1, columns: 1 };
        }
        let (from_a, from_b) = (Shape::of_machine().gathers(a), matches!(b, Rhs::Plain(_)));
        let each = if from_b { FEW_TASKS } else { TASKS };
        let wanted = most.min(threads * each);
        let (most_rows, most_columns) = (m.div_ceil(MIN_ROWS), n.div_ceil(2 * NR));
        let weight = |copied: bool| 1 + usize::from(copied);
        let cuts = (1..=wanted.min(most_rows)).map(|rows| {
            let columns = wanted.div_ceil(rows).min(most_columns);
            (rows, columns, weight(from_a) * columns * m + weight(from_b) * rows * n)
        });
        // Enough tasks first, little reading second, whole rows third.
        let best = cuts.min_by_key(|(rows, columns, read)| {
            (wanted.saturating_sub(rows * columns), *read, *rows)
        });
        best.map_or(Self { rows: 1, columns: 1 }, |(rows, columns, _)| Self { rows, columns })
    }
}

/// Fewest rows of a range, where there are so many.
const MIN_ROWS: usize = 28;

/// Part `i` of `0 .. all` cut into `parts` of about the same size, at multiples of `unit`.
fn part(all: usize, parts: usize, unit: usize, i: usize) -> Range<usize> {
    let units = all.div_ceil(unit);
    let at = |i: usize| (units * i / parts * unit).min(all);
    at(i)..at(i + 1)
}

fn run(
    (m, n, k): (usize, usize, usize),
    a: Mat<'_>,
    b: Rhs<'_>,
    c: &mut [f32],
    ldc: usize,
    start: Start,
    grid: Grid,
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
    let (out, shape) = (SharedMut::new(c), Shape::of_machine());
    parallel::for_each(grid.rows * grid.columns, |task| {
        let work = Task {
            rows: part(m, grid.rows, 1, task / grid.columns),
            columns: part(n, grid.columns, shape.panels * NR, task % grid.columns),
            depth: k,
            a,
            b,
            // SAFETY: tasks write disjoint parts of rows that were checked to lie inside C.
            c: unsafe { out.pointer() },
            ldc,
            start,
            shape,
        };
        work.run();
    });
}

/// One part of `C`.
struct Task<'a> {
    rows: Range<usize>,
    columns: Range<usize>,
    depth: usize,
    a: Mat<'a>,
    b: Rhs<'a>,
    c: *mut f32,
    ldc: usize,
    start: Start,
    shape: Shape,
}

impl Task<'_> {
    fn run(&self) {
        parallel::with_scratch(|scratch| match self.b {
            Rhs::Packed(_) => self.columns(self.columns.clone(), scratch),
            Rhs::Plain(_) => {
                let depth = self.depth.min(self.shape.block(self.a).depth);
                let most = (LAID_OUT / depth).next_multiple_of(self.shape.panels * NR);
                for from in self.columns.clone().step_by(most) {
                    self.columns(from..self.columns.end.min(from + most), scratch);
                }
            }
        });
    }

    /// All rows and all of the depth of some columns.
    fn columns(&self, columns: Range<usize>, scratch: &mut Scratch) {
        let most = self.shape.block(self.a);
        let blocks = self.depth.div_ceil(most.depth);
        for block in 0..blocks {
            let depth = part(self.depth, blocks, 16, block);
            let (panels, panel_stride): (&[f32], usize) = match self.b {
                Rhs::Packed(p) => (&p.from(columns.start)[depth.start * NR..], p.depth() * NR),
                Rhs::Plain(b) => {
                    pack_columns(b, columns.clone(), depth.clone(), &mut scratch.b);
                    (&scratch.b, depth.len() * NR)
                }
            };
            let next = (block + 1 < blocks).then(|| part(self.depth, blocks, 16, block + 1));
            let next = next.and_then(|depth| self.next_block(&columns, depth));
            let parts = self.rows.len().div_ceil(most.rows);
            for i in 0..parts {
                let rows = part(self.rows.len(), parts, self.shape.rows, i);
                let rows = self.rows.start + rows.start..self.rows.start + rows.end;
                let panels = (panels, panel_stride);
                let next = next.as_ref().map(|next| (i, next));
                self.block(rows, columns.clone(), depth.clone(), panels, &mut scratch.a, next);
            }
        }
    }

    /// What the tiles of a block fetch of the next one. Narrow ones alone, and where both matrices are read across their
    /// rows: a row lies too far from the one before it for the processor to look ahead by itself.
    fn next_block(&self, columns: &Range<usize>, depth: Range<usize>) -> Option<NextBlock<'_>> {
        match self.b {
            Rhs::Plain(b) if !self.shape.wide && self.a.row_stride == 1 && b.col_stride == 1 => {
                let (rows, columns) = (self.rows.clone(), columns.clone());
                Some(NextBlock { a: self.a, rows, b, columns, depth })
            }
            _ => None,
        }
    }

    /// Some rows, some columns, and a part of the depth. With `next_block` goes how many blocks of rows came before this
    /// one.
    fn block(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        depth: Range<usize>,
        (panels, panel_stride): (&[f32], usize),
        scratch: &mut Vec<f32>,
        next_block: Option<(usize, &NextBlock<'_>)>,
    ) {
        let Self { a, ldc, shape, .. } = *self;
        let strips = rows.len().div_ceil(shape.rows);
        let strip = |i: usize| {
            let rows_of = part(rows.len(), strips, 1, i);
            rows.start + rows_of.start..rows.start + rows_of.end
        };
        let gathered = shape.gathers(a);
        if gathered {
            pack_strips(a, depth.clone(), (strips, shape.strip), scratch, strip);
        }
        let carry = depth.start > 0 || self.start == Start::Continue;
        let step = shape.panels * NR;
        let tiles = columns.len().div_ceil(step) * strips;
        for (index, j) in columns.clone().step_by(step).enumerate() {
            let panel = &panels[index * shape.panels * panel_stride..];
            let width = step.min(columns.end - j);
            debug_assert!(
                panel.len() >= (width.div_ceil(NR) - 1) * panel_stride + depth.len() * NR
            );
            let next = panels.get((index + 1) * shape.panels * panel_stride..).unwrap_or(panel);
            for i in 0..strips {
                let rows = strip(i);
                let (from, row_stride, depth_stride) = if gathered {
                    (&scratch[i * depth.len() * shape.strip..], 1, shape.strip)
                } else {
                    (&a.data[a.at(rows.start, depth.start)..], a.row_stride, a.col_stride)
                };
                let of_block = next_block.and_then(|(before, next)| {
                    Ahead::block(next, before * tiles + index * strips + i)
                });
                let tile = Tile {
                    depth: depth.len(),
                    a: from.as_ptr(),
                    row_stride,
                    depth_stride,
                    b: panel.as_ptr(),
                    panel_stride,
                    ahead: of_block.unwrap_or_else(|| {
                        let strip = (i, strips, depth.len());
                        Ahead::panels(shape.wide, strip, (panel, next), panel_stride)
                    }),
                    // SAFETY: inside C, as checked in `run`.
                    c: unsafe { self.c.add(rows.start * ldc + j) },
                    ldc,
                    height: rows.len(),
                    width,
                    carry,
                };
                // SAFETY: the tile lies inside C (checked in `run`), its strip inside A (checked there too, or
                // packed just now), and the panels hold depth × NR floats each.
                unsafe { shape.compute(&tile) };
            }
        }
    }
}

#[cfg(test)]
mod tests;
