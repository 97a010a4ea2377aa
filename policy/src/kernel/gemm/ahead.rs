//! What a tile fetches from memory while it computes.
//!
//! Invariant: hints alone. Nothing is read through them, so no result depends on them.

use super::narrow::UNROLL;
use super::{Mat, NR};
use std::ops::Range;

/// Lines that are wanted soon.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// The first of each row of lines; a narrow tile fetches the first row alone.
    pub lines: [*const f32; 2],
    /// From one line to the next.
    pub step: usize,
}

/// The part of the depth that comes next, of matrices that are both read across their rows.
#[derive(Clone)]
pub(super) struct NextBlock<'a> {
    pub a: Mat<'a>,
    pub rows: Range<usize>,
    pub b: Mat<'a>,
    pub columns: Range<usize>,
    pub depth: Range<usize>,
}

impl Ahead {
    /// The panels after `panel`, which begin at `next` and have so many steps: fetched by the last strips of `strips`, of
    /// which this is strip `i`, and nothing new by the others. Weights are packed once and read from memory each time.
    pub fn panels(
        wide: bool,
        (i, strips, depth): (usize, usize, usize),
        (panel, next): (&[f32], &[f32]),
        panel_stride: usize,
    ) -> Self {
        let left = strips - i;
        if wide {
            let second = next.get(panel_stride..).unwrap_or(next);
            let lines = match left {
                1 if strips == 1 => [next, second],
                1 => [panel, second],
                2 => [next, panel],
                _ => [panel, panel],
            };
            return Self { lines: lines.map(<[f32]>::as_ptr), step: NR };
        }
        // A line for each `UNROLL` steps: so many strips share a panel.
        let from = match UNROLL.checked_sub(left) {
            Some(share) => next.as_ptr().wrapping_add(share * depth / UNROLL * NR),
            None => panel.as_ptr(),
        };
        Self { lines: [from; 2], step: NR }
    }

    /// What narrow tile number `tile` of a block fetches for the next one: of a quarter of its steps, the line that some
    /// columns of either matrix are in. `None` where the tiles before it have fetched everything.
    pub fn block(next: &NextBlock<'_>, tile: usize) -> Option<Self> {
        let NextBlock { a, rows, b, columns, depth } = next;
        let (quarter, line) = (tile % UNROLL, tile / UNROLL);
        let p = depth.start + quarter * depth.len() / UNROLL;
        let (at, matrix) = match line.checked_sub(rows.len().div_ceil(NR)) {
            None => (a.at(rows.start + line * NR, p), a),
            Some(line) if line * NR < columns.len() => (b.at(p, columns.start + line * NR), b),
            Some(_) => return None,
        };
        let from = matrix.data().as_ptr().wrapping_add(at);
        Some(Self { lines: [from; 2], step: matrix.row_stride().max(matrix.col_stride()) })
    }
}
