//! Register tiles: a few rows and columns of `C`, all of a block's depth at once.
//!
//! Invariant: an element of a tile is the chain over the depth in order, whatever the tile's size and the width of
//! its registers.

use super::Mat;
use super::ahead::Ahead;
use super::narrow::{self, MR};
use crate::kernel::panels::{NR, STRIP};
use crate::kernel::simd::has_avx512;

/// How many steps of the depth ahead the rows of a strip are fetched that lie one float apart. The steps of such a strip
/// lie a row of the matrix apart, and a processor that sees a pattern in what is read looks no further than half a page.
pub(super) const AHEAD: usize = 16;

/// Floats of a page of memory.
pub(super) const PAGE: usize = 1024;

/// A part of `C` that is computed in registers, and what it is computed from.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// How many products each element adds up.
    pub depth: usize,
    /// The first element of the strip of `A`.
    pub a: *const f32,
    /// From one row of the strip to the next. This or `depth_stride` is 1.
    pub row_stride: usize,
    /// From one step of the depth to the next.
    pub depth_stride: usize,
    /// The first panel of `B`: `[depth][NR]`.
    pub b: *const f32,
    /// From one panel to the next.
    pub panel_stride: usize,
    /// What is fetched from memory meanwhile.
    pub ahead: Ahead,
    /// The first element of `C`.
    pub c: *mut f32,
    /// From one row of `C` to the next.
    pub ldc: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Whether the chains go on from `C`.
    pub carry: bool,
}

/// The tiles of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Most rows of a tile.
    pub rows: usize,
    /// Most panels of a tile.
    pub panels: usize,
    /// Floats that a step of the depth takes in a gathered strip.
    pub strip: usize,
    /// Whether its registers are those of AVX-512.
    pub wide: bool,
}

/// How much of a product is computed before the next part of the depth begins. Its rows stay in the second-level cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Most steps of the depth.
    pub depth: usize,
    /// Most rows.
    pub rows: usize,
}

impl Shape {
    /// 14 × 32 with the 32 registers of AVX-512, else 6 × 16: twelve of AVX2's sixteen registers.
    pub fn of_machine() -> Self {
        match has_avx512() {
            true => Self { rows: 14, panels: 2, strip: NR, wide: true },
            false => Self::narrow(),
        }
    }

    /// What every machine can compute.
    pub const fn narrow() -> Self {
        Self { rows: MR, panels: 1, strip: STRIP, wide: false }
    }

    /// Whether strips of rows are copied before they are read. Contiguous rows are read in place, and so are contiguous
    /// columns, unless they lie whole pages apart, or half ones where the caches are small: then all of a strip falls
    /// into a few sets of the caches.
    pub fn gathers(self, a: Mat<'_>) -> bool {
        a.col_stride().is_multiple_of(if self.wide { PAGE } else { PAGE / 2 })
    }

    /// The largest block for this left-hand matrix. Each part of the depth reads and writes all of `C`, so narrow tiles
    /// take long ones; but steps that lie a row apart fill the caches with lines of which they read little.
    pub fn block(self, a: Mat<'_>) -> Block {
        match (self.wide, a.col_stride() == 1) {
            (true, _) => Block { depth: 384, rows: 224 },
            (false, true) => Block { depth: 1024, rows: 66 },
            (false, false) => Block { depth: 384, rows: 114 },
        }
    }

    /// Computes a tile of at most this shape.
    ///
    /// # Safety
    /// `a`, `b` and `c` cover what the tile says; nobody else uses that part of `C` meanwhile.
    #[inline]
    pub unsafe fn compute(self, tile: &Tile) {
        debug_assert!(tile.row_stride == 1 || tile.depth_stride == 1);
        debug_assert!((1..=self.rows).contains(&tile.height));
        debug_assert!((1..=self.panels * NR).contains(&tile.width));
        #[cfg(target_arch = "x86_64")]
        if self.wide {
            // SAFETY: passed on from the caller; `wide` is only set where the machine has AVX-512.
            return unsafe { super::avx512::compute(tile) };
        }
        // SAFETY: passed on from the caller.
        unsafe { narrow::compute(tile) }
    }
}
