//! The one promise of the kernel: each element is the plain chain of fused multiply-adds, to the bit.

#![allow(clippy::unwrap_used)]

use super::narrow::UNROLL;
use super::tile::PAGE;
use super::*;
use proptest::prelude::*;

fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn chain(k: usize, a: Mat<'_>, b: Mat<'_>, i: usize, j: usize, start: f32) -> f32 {
    (0..k).fold(start, |sum, p| a.data[a.at(i, p)].mul_add(b.data[b.at(p, j)], sum))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn every_element_is_the_plain_chain(
        m in 1usize..40, n in 1usize..70, k in 1usize..1500, seed in 1u32..1000,
        ta: bool, tb: bool, packed: bool, carry: bool, threads in 1usize..4,
        row_parts in 1usize..5, column_parts in 1usize..5, pages: bool,
    ) {
        // Columns that lie whole pages apart are gathered, others are read in place.
        let stride = if pages { PAGE } else { m };
        let (da, db) = (numbers(stride.max(m) * k, seed), numbers(n * k, seed + 1));
        let a = if ta { Mat::transposed(&da, stride) } else { Mat::rows(&da, k) };
        let b = if tb { Mat::transposed(&db, k) } else { Mat::rows(&db, n) };
        let before = numbers(m * n, seed + 2);
        let mut c = before.clone();
        let panels = Panels::pack(b, k, n);
        let rhs = if packed { Rhs::Packed(&panels) } else { Rhs::Plain(b) };
        let start = if carry { Start::Continue } else { Start::Zero };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let grid = Grid { rows: row_parts, columns: column_parts };
        pool.install(|| run((m, n, k), a, rhs, &mut c, n, start, grid));
        let mut narrow = before.clone();
        with_shape(Shape::narrow(), (m, n, k), a, rhs, &mut narrow, start);
        prop_assert!(c.iter().zip(&narrow).all(|(x, y)| x.to_bits() == y.to_bits()), "widths differ");
        for i in 0..m {
            for j in 0..n {
                let c0 = if carry { before[i * n + j] } else { 0.0 };
                prop_assert_eq!(c[i * n + j].to_bits(), chain(k, a, b, i, j, c0).to_bits());
            }
        }
    }
}

fn with_shape(
    shape: Shape,
    (m, n, k): (usize, usize, usize),
    a: Mat<'_>,
    b: Rhs<'_>,
    c: &mut [f32],
    start: Start,
) {
    let (rows, columns, c) = (0..m, 0..n, c.as_mut_ptr());
    Task { rows, columns, depth: k, a, b, c, ldc: n, start, shape }.run();
}

#[test]
fn more_columns_than_are_laid_out_at_once_are_the_plain_chain() {
    let k = 384;
    let (m, n) = (3, 2 * LAID_OUT / k + 5);
    let (da, db, before) = (numbers(m * k, 1), numbers(n * k, 2), numbers(m * n, 3));
    let (a, b) = (Mat::rows(&da, k), Mat::transposed(&db, k));
    let mut c = before.clone();
    run((m, n, k), a, Rhs::Plain(b), &mut c, n, Start::Continue, Grid { rows: 1, columns: 1 });
    for (at, (x, c0)) in c.iter().zip(&before).enumerate() {
        assert_eq!(x.to_bits(), chain(k, a, b, at / n, at % n, *c0).to_bits(), "element {at}");
    }
}

#[test]
fn a_grid_covers_everything_and_reads_little() {
    let data = vec![0f32; 4];
    let (rows, turned) = (Mat::rows(&data, 1), Mat::transposed(&data, 1024));
    let plain = Rhs::Plain(rows);
    let of = |shape, a, threads| Grid::new(shape, a, plain, threads);
    assert_eq!(of((4096, 1024, 1024), rows, 1), Grid { rows: 1, columns: 1 });
    assert_eq!(of((8, 32, 64), rows, 4), Grid { rows: 1, columns: 1 }, "too little to share");
    // A has many rows: they are cut, so that each is read once.
    assert_eq!(of((8192, 256, 1024), rows, 2), Grid { rows: 4, columns: 1 });
    // Few rows, and much to lay out: once.
    assert_eq!(of((128, 4096, 1024), rows, 2), Grid { rows: 1, columns: 4 });
    // Nothing is laid out: more tasks.
    let packed = Panels::pack(Mat::rows(&vec![0f32; 16 * 4096], 4096), 16, 4096);
    let kept = Grid::new((128, 4096, 1024), rows, Rhs::Packed(&packed), 2);
    assert_eq!(kept, Grid { rows: 1, columns: 8 });
    // Too few columns for everybody.
    assert_eq!(of((4096, 64, 1024), rows, 4), Grid { rows: 8, columns: 1 });
    // Both sides are copied: about square. Likewise where the left one is read in place, across its rows.
    assert_eq!(of((1024, 1024, 4096), turned, 2), Grid { rows: 2, columns: 2 });
    let across = Mat::transposed(&data, 688);
    assert_eq!(of((688, 256, 8192), across, 2), Grid { rows: 2, columns: 2 });
    for (all, parts, unit) in [(100, 7, 1), (100, 7, 16), (5, 9, 16), (1, 1, 1)] {
        let ranges: Vec<_> = (0..parts).map(|i| part(all, parts, unit, i)).collect();
        assert!(ranges.windows(2).all(|w| w[0].end == w[1].start), "{ranges:?}");
        assert_eq!((ranges[0].start, ranges[parts - 1].end), (0, all));
    }
}

#[test]
fn tiles_fetch_all_of_the_next_block_and_then_end() {
    let (rows, columns, depth) = (8..90, 16..80, 384..768);
    let (da, db) = (vec![0f32; 768 * 100], vec![0f32; 768 * 96]);
    let (a, b) = (Mat::transposed(&da, 100), Mat::rows(&db, 96));
    let next =
        NextBlock { a, rows: rows.clone(), b, columns: columns.clone(), depth: depth.clone() };
    let tiles: Vec<_> = (0..).map_while(|tile| Ahead::block(&next, tile)).collect();
    let each = depth.len() / UNROLL;
    let fetched: std::collections::HashSet<_> = tiles
        .iter()
        .flat_map(|soon| (0..each).map(|i| soon.lines[0].wrapping_add(i * soon.step)))
        .collect();
    assert_eq!(fetched.len(), tiles.len() * each, "nothing twice");
    for p in depth {
        for row in rows.clone().step_by(NR) {
            assert!(fetched.contains(&da[a.at(row, p)..].as_ptr()), "row {row} of step {p}");
        }
        for column in columns.clone().step_by(NR) {
            assert!(
                fetched.contains(&db[b.at(p, column)..].as_ptr()),
                "column {column} of step {p}"
            );
        }
    }
}
