//! Tiles of up to 14 rows and two panels, in the 32 registers of AVX-512.
//!
//! Invariant: as `tile`'s: one fused multiply-add a step of the depth, in order. Columns past the width are neither
//! read nor written.

use super::tile::{AHEAD, Tile};
use crate::kernel::panels::NR;
use crate::kernel::simd::{fetch, fetch_far};
use std::arch::x86_64::{
    __mmask16, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
    _mm512_set1_ps, _mm512_setzero_ps,
};

/// Computes a tile.
///
/// # Safety
/// The machine has AVX-512, and the tile's pointers cover what it says.
#[inline]
pub(super) unsafe fn compute(tile: &Tile) {
    macro_rules! of_height {
        ($panels:literal, $adjacent:literal; $($rows:literal)*) => {
            match tile.height {
                $($rows => rows::<$rows, $panels, $adjacent>(tile),)*
                _ => rows::<14, $panels, $adjacent>(tile),
            }
        };
    }
    // SAFETY: passed on from the caller.
    unsafe {
        match (tile.width > NR, tile.row_stride == 1) {
            (true, true) => of_height!(2, true; 1 2 3 4 5 6 7 8 9 10 11 12 13),
            (true, false) => of_height!(2, false; 1 2 3 4 5 6 7 8 9 10 11 12 13),
            (false, true) => of_height!(1, true; 1 2 3 4 5 6 7 8 9 10 11 12 13),
            (false, false) => of_height!(1, false; 1 2 3 4 5 6 7 8 9 10 11 12 13),
        }
    }
}

/// Rows from which on a tile leaves the time to fetch what comes next.
const FETCHING: usize = 6;

/// `R` rows and `P` panels; `ADJACENT` rows of the strip lie one float apart.
#[target_feature(enable = "avx512f")]
unsafe fn rows<const R: usize, const P: usize, const ADJACENT: bool>(tile: &Tile) {
    let Tile { c, ldc, depth_stride, panel_stride, .. } = *tile;
    let mut ahead = tile.ahead.lines;
    let row_stride = if ADJACENT { 1 } else { tile.row_stride };
    let last = __mmask16::MAX >> (P * NR - tile.width);
    let mask = |p: usize| if p + 1 == P { last } else { __mmask16::MAX };
    // SAFETY: the caller promises R rows of strip and of C, and depth rows of P panels; the mask leaves out what is
    // past the width.
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); P]; R];
        if tile.carry {
            for (i, row) in acc.iter_mut().enumerate() {
                for (p, x) in row.iter_mut().enumerate() {
                    *x = _mm512_maskz_loadu_ps(mask(p), c.add(i * ldc + p * NR));
                }
            }
        }
        let (mut a, mut b) = (tile.a, tile.b);
        for _ in 0..tile.depth {
            let mut columns = [_mm512_setzero_ps(); P];
            for (p, x) in columns.iter_mut().enumerate() {
                *x = _mm512_loadu_ps(b.add(p * panel_stride));
            }
            for (i, row) in acc.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(i * row_stride));
                for (sum, column) in row.iter_mut().zip(&columns) {
                    *sum = _mm512_fmadd_ps(x, *column, *sum);
                }
            }
            if R >= FETCHING {
                for soon in ahead.iter_mut().take(P) {
                    fetch_far(*soon);
                    *soon = soon.wrapping_add(NR);
                }
            }
            if ADJACENT {
                let soon = a.wrapping_add(AHEAD * depth_stride);
                fetch(soon);
                fetch(soon.wrapping_add(R - 1));
            }
            a = a.wrapping_add(depth_stride);
            b = b.wrapping_add(NR);
        }
        for (i, row) in acc.iter().enumerate() {
            for (p, x) in row.iter().enumerate() {
                _mm512_mask_storeu_ps(c.add(i * ldc + p * NR), mask(p), *x);
            }
        }
    }
}
