//! Register tiles: a few rows and columns of `C`, all of a block's depth at once.
//!
//! Invariant: an element of a tile is the chain over the depth in order, whatever the tile's size and the width of
//! its registers.

use crate::kernel::panels::NR;
use crate::kernel::simd::{fetch, has_avx512};

/// How many steps of the depth ahead the rows of a strip are fetched that lie one float apart. The steps of such a strip
/// lie a row of the matrix apart, and a processor that sees a pattern in what is read looks no further than half a page.
pub(super) const AHEAD: usize = 16;

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
    /// Panels that are wanted soon, to be fetched from memory meanwhile. Never read.
    pub ahead: [*const f32; 2],
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
    wide: bool,
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
        Self { rows: MR, panels: 1, strip: MR, wide: false }
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
        unsafe { narrow(tile) }
    }
}

/// Rows of a narrow tile.
const MR: usize = 6;

/// One panel; columns past the width go to a copy.
unsafe fn narrow(tile: &Tile) {
    let Tile { c, ldc, height, width, .. } = *tile;
    // SAFETY: passed on from the caller; the local copy is a full MR × NR tile.
    unsafe {
        if width == NR {
            return of_height(tile);
        }
        let mut whole = [0f32; MR * NR];
        if tile.carry {
            for i in 0..height {
                let to = whole.as_mut_ptr().add(i * NR);
                std::ptr::copy_nonoverlapping(c.add(i * ldc), to, width);
            }
        }
        of_height(&Tile { c: whole.as_mut_ptr(), ldc: NR, width: NR, ..*tile });
        for i in 0..height {
            std::ptr::copy_nonoverlapping(whole.as_ptr().add(i * NR), c.add(i * ldc), width);
        }
    }
}

#[inline]
unsafe fn of_height(tile: &Tile) {
    // SAFETY: passed on from the caller.
    unsafe {
        match tile.row_stride == 1 {
            true => of_kind::<true>(tile),
            false => of_kind::<false>(tile),
        }
    }
}

#[inline]
unsafe fn of_kind<const ADJACENT: bool>(tile: &Tile) {
    // SAFETY: passed on from the caller.
    unsafe {
        match tile.height {
            6 => rows::<6, ADJACENT>(tile),
            5 => rows::<5, ADJACENT>(tile),
            4 => rows::<4, ADJACENT>(tile),
            3 => rows::<3, ADJACENT>(tile),
            2 => rows::<2, ADJACENT>(tile),
            _ => rows::<1, ADJACENT>(tile),
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

/// `R` rows of a panel; `ADJACENT` ones lie one float apart.
#[inline(never)]
unsafe fn rows<const R: usize, const ADJACENT: bool>(tile: &Tile) {
    let Tile { c, ldc, depth_stride, .. } = *tile;
    // SAFETY: the caller promises R rows of strip and of C, and depth rows of the panel.
    unsafe {
        let mut acc = [[[0f32; 8]; 2]; R];
        if tile.carry {
            for (i, row) in acc.iter_mut().enumerate() {
                row[0] = c.add(i * ldc).cast::<Lanes>().read_unaligned();
                row[1] = c.add(i * ldc + 8).cast::<Lanes>().read_unaligned();
            }
        }
        let mut b = tile.b;
        let mut step = |values: [f32; R]| {
            let b0 = b.cast::<Lanes>().read_unaligned();
            let b1 = b.add(8).cast::<Lanes>().read_unaligned();
            for (row, x) in acc.iter_mut().zip(values) {
                row[0] = fma(x, b0, row[0]);
                row[1] = fma(x, b1, row[1]);
            }
            b = b.wrapping_add(NR);
        };
        if ADJACENT {
            let mut a = tile.a;
            for _ in 0..tile.depth {
                fetch(a.wrapping_add(AHEAD * depth_stride));
                step(std::array::from_fn(|i| *a.add(i)));
                a = a.wrapping_add(depth_stride);
            }
        } else {
            let rows: [*const f32; R] =
                std::array::from_fn(|i| tile.a.wrapping_add(i * tile.row_stride));
            for p in 0..tile.depth {
                step(rows.map(|a| *a.add(p)));
            }
        }
        for (i, row) in acc.iter().enumerate() {
            c.add(i * ldc).cast::<Lanes>().write_unaligned(row[0]);
            c.add(i * ldc + 8).cast::<Lanes>().write_unaligned(row[1]);
        }
    }
}
