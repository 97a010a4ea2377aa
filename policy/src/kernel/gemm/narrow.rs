//! Tiles of up to six rows and one panel: twelve of AVX2's sixteen registers, and what every machine can compute.
//!
//! Invariant: as `tile`'s: one fused multiply-add a step of the depth, in order. Columns past the width are neither
//! read nor written.

use super::tile::{AHEAD, Tile};
use crate::kernel::panels::NR;
use crate::kernel::simd::{fetch, fetch_far};

/// Rows of a narrow tile.
pub(super) const MR: usize = 6;

/// One panel; columns past the width go to a copy.
pub(super) unsafe fn compute(tile: &Tile) {
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

/// Steps of the depth that are computed without asking whether they are the last ones. Between them a line of `ahead`
/// is fetched. Two threads of one core share its decoder, so what is not a multiply-add counts twice there.
pub(super) const UNROLL: usize = 4;

/// `R` rows of a panel; `ADJACENT` ones lie one float apart.
#[inline(never)]
unsafe fn rows<const R: usize, const ADJACENT: bool>(tile: &Tile) {
    let Tile { c, ldc, .. } = *tile;
    // SAFETY: the caller promises R rows of strip and of C, and depth rows of the panel.
    unsafe {
        let mut acc = [[[0f32; 8]; 2]; R];
        if tile.carry {
            for (i, row) in acc.iter_mut().enumerate() {
                row[0] = c.add(i * ldc).cast::<Lanes>().read_unaligned();
                row[1] = c.add(i * ldc + 8).cast::<Lanes>().read_unaligned();
            }
        }
        for i in R..2 * R {
            fetch(c.wrapping_add(i * ldc)); // where the next strip begins
        }
        let strip = Strip::<R, ADJACENT>::of(tile);
        let whole = tile.depth / UNROLL * UNROLL;
        let (mut ahead, ahead_step) = (tile.ahead.lines[0], tile.ahead.step);
        for p in (0..whole).step_by(UNROLL) {
            fetch_far(ahead);
            ahead = ahead.wrapping_add(ahead_step);
            strip.steps::<UNROLL>(p, &mut acc);
        }
        for p in whole..tile.depth {
            strip.steps::<1>(p, &mut acc);
        }
        for (i, row) in acc.iter().enumerate() {
            c.add(i * ldc).cast::<Lanes>().write_unaligned(row[0]);
            c.add(i * ldc + 8).cast::<Lanes>().write_unaligned(row[1]);
        }
    }
}

/// Where the rows of a tile's strip and its panel begin.
struct Strip<const R: usize, const ADJACENT: bool> {
    rows: [*const f32; R],
    depth_stride: usize,
    panel: *const f32,
}

impl<const R: usize, const ADJACENT: bool> Strip<R, ADJACENT> {
    fn of(tile: &Tile) -> Self {
        Self {
            rows: std::array::from_fn(|i| tile.a.wrapping_add(i * tile.row_stride)),
            depth_stride: tile.depth_stride,
            panel: tile.b,
        }
    }

    /// The element of row `i` at step `p`. One pointer and a constant where rows are adjacent, and no multiplication
    /// where steps are.
    #[inline(always)]
    fn at(&self, i: usize, p: usize) -> *const f32 {
        match ADJACENT {
            true => self.rows[0].wrapping_add(p * self.depth_stride + i),
            false => self.rows[i].wrapping_add(p),
        }
    }

    /// `N` steps of the depth from `p` on.
    #[inline(always)]
    unsafe fn steps<const N: usize>(&self, p: usize, acc: &mut [[Lanes; 2]; R]) {
        for q in 0..N {
            let p = p + q;
            if ADJACENT {
                fetch(self.at(0, p + AHEAD));
            }
            let b = self.panel.wrapping_add(p * NR).cast::<[Lanes; 2]>();
            // SAFETY: the caller promises `p + N` steps of strip and panel.
            let [b0, b1] = unsafe { b.read_unaligned() };
            for (i, row) in acc.iter_mut().enumerate() {
                // SAFETY: as above.
                let x = unsafe { *self.at(i, p) };
                row[0] = fma(x, b0, row[0]);
                row[1] = fma(x, b1, row[1]);
            }
        }
    }
}
