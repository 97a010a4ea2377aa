//! The fused kernels against the composite operations in f64, which candle differentiates itself.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::kernel::attention::Heads;
use crate::kernel::head::Shaping;
use crate::layout::{GroupTokens, PackedGroups, Target};
use candle_core::{DType, Device};

fn random(shape: &[usize], seed: u64) -> Tensor {
    let count: usize = shape.iter().product();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values: Vec<f32> = (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn wide(t: &Tensor) -> Tensor {
    t.to_dtype(DType::F64).unwrap()
}

fn assert_close(fused: &Tensor, oracle: &Tensor, what: &str) {
    let a: Vec<f32> = fused.flatten_all().unwrap().to_vec1().unwrap();
    let b: Vec<f64> = oracle.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(a.len(), b.len(), "{what}");
    let scale = b.iter().fold(1e-3, |m: f64, x| m.max(x.abs()));
    let worst = a.iter().zip(&b).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-5 * scale, "{what}: off by {worst:e} of {scale:e}");
}

#[test]
fn rms_norm_and_its_gradient() {
    let (x, w, dy) = (random(&[7, 96], 1), random(&[96], 2), random(&[7, 96], 3));
    let (y, kept) = rms_norm(&x, &w, 1e-6).unwrap();
    assert_close(&y, &rms_norm(&wide(&x), &wide(&w), 1e-6).unwrap().0, "y");
    let (mut dx, mut dw) = (x.zeros_like().unwrap(), w.zeros_like().unwrap());
    rms_norm_backward((&x, &w, 1e-6), &kept, &dy, &mut dx, Some(&mut dw)).unwrap();
    let (wx, ww) = (wide(&x), wide(&w));
    let (_, kept) = rms_norm(&wx, &ww, 1e-6).unwrap();
    let (mut dx64, mut dw64) = (wx.zeros_like().unwrap(), ww.zeros_like().unwrap());
    rms_norm_backward((&wx, &ww, 1e-6), &kept, &wide(&dy), &mut dx64, Some(&mut dw64)).unwrap();
    assert_close(&dx, &dx64, "dx");
    assert_close(&dw, &dw64, "dw");
}

#[test]
fn linear_and_its_gradient() {
    let (x, w, b) = (random(&[9, 40], 1), random(&[33, 40], 2), random(&[33], 3));
    let (dy, onto) = (random(&[9, 33], 4), random(&[9, 40], 5));
    let packed = pack(&w).unwrap();
    let p = |packed| Projection { weight: &w, bias: Some(&b), packed, adapter: None };
    let y = linear(&x, p(None)).unwrap();
    let again = linear(&x, p(Some(&packed))).unwrap();
    assert_eq!(y.to_vec2::<f32>().unwrap(), again.to_vec2::<f32>().unwrap());
    let (wx, ww, wb) = (wide(&x), wide(&w), wide(&b));
    let wide_p = Projection { weight: &ww, bias: Some(&wb), packed: None, adapter: None };
    let oracle = linear(&wx, wide_p).unwrap();
    assert_close(&y, &oracle, "y");
    let residual = random(&[9, 33], 6);
    let sum = linear_onto(residual.copy().unwrap(), &x, p(None)).unwrap();
    assert_close(&sum, &(oracle + wide(&residual)).unwrap(), "residual + y");
    let zeros = |t: &Tensor| t.zeros_like().unwrap();
    let (mut dw, mut db, mut dw64, mut db64) = (zeros(&w), zeros(&b), zeros(&ww), zeros(&wb));
    let dx = linear_backward(&x, &w, &dy, Some(onto.copy().unwrap()), Some(&mut dw), Some(&mut db))
        .unwrap();
    let dx64 =
        linear_backward(&wx, &ww, &wide(&dy), Some(wide(&onto)), Some(&mut dw64), Some(&mut db64))
            .unwrap();
    assert_close(&dx, &dx64, "dx");
    assert_close(&dw, &dw64, "dw");
    assert_close(&db, &db64, "db");
}

#[test]
fn a_low_rank_part_and_its_gradient() {
    // Enough rows that several tasks share them.
    let (rows, inputs, outputs, rank) = (700, 40, 33, 5);
    let (x, w) = (random(&[rows, inputs], 1), random(&[outputs, inputs], 2));
    let (a, b) = (random(&[rank, inputs], 3), random(&[outputs, rank], 4));
    let (dy, onto) = (random(&[rows, outputs], 5), random(&[rows, inputs], 6));
    let (wx, ww, wa, wb) = (wide(&x), wide(&w), wide(&a), wide(&b));
    let panels = [pack(&a).unwrap(), pack(&b).unwrap()];
    let packed = Some([&panels[0], &panels[1]]);
    let low = |packed| LowRank { a: &a, b: &b, scale: 2.5, packed };
    let oracle = LowRank { a: &wa, b: &wb, scale: 2.5, packed: None };
    let p = |low| Projection { weight: &w, bias: None, packed: None, adapter: Some(low) };
    let p64 = Projection { weight: &ww, bias: None, packed: None, adapter: Some(oracle) };
    let y = linear(&x, p(low(None))).unwrap();
    assert_eq!(
        y.to_vec2::<f32>().unwrap(),
        linear(&x, p(low(packed))).unwrap().to_vec2::<f32>().unwrap()
    );
    // A row alone has the bits that it has in company.
    let alone = linear(&x.narrow(0, 417, 1).unwrap().copy().unwrap(), p(low(None))).unwrap();
    assert_eq!(alone.to_vec2::<f32>().unwrap()[0], y.to_vec2::<f32>().unwrap()[417]);
    assert_close(&y, &linear(&wx, p64).unwrap(), "y");
    let residual = random(&[rows, outputs], 7);
    let sum = linear_onto(residual.copy().unwrap(), &x, p(low(None))).unwrap();
    assert_close(&sum, &linear_onto(wide(&residual), &wx, p64).unwrap(), "residual + y");
    // The merged weight computes the same.
    let merged = merge(&w, low(None)).unwrap();
    assert_close(&merged, &merge(&ww, oracle).unwrap(), "merged");
    let plain = Projection { weight: &merged, bias: None, packed: None, adapter: None };
    assert_close(&linear(&x, plain).unwrap(), &wide(&y), "merged y");

    let zeros = |t: &Tensor| t.zeros_like().unwrap();
    let (mut da, mut db, mut da64, mut db64) = (zeros(&a), zeros(&b), zeros(&wa), zeros(&wb));
    let dx = onto.copy().unwrap();
    let dx = low(None).backward(&x, &dy, dx, [&mut da, &mut db]).unwrap();
    let dx64 = oracle.backward(&wx, &wide(&dy), wide(&onto), [&mut da64, &mut db64]).unwrap();
    assert_close(&dx, &dx64, "dx");
    assert_close(&da, &da64, "da");
    assert_close(&db, &db64, "db");
    // And candle's own tape for the composite form.
    let grads = composite::vjp(&[&wx, &wa, &wb], &wide(&dy), |v| {
        LowRank { a: &v[1], b: &v[2], scale: 2.5, packed: None }.composite(&v[0])
    });
    let grads = grads.unwrap();
    assert_close(&dx, &(&grads[0] + wide(&onto)).unwrap(), "dx");
    assert_close(&da, &grads[1], "da");
    assert_close(&db, &grads[2], "db");
}

#[test]
fn swiglu_and_its_gradient() {
    let (g, u, d) = (random(&[5, 77], 1), random(&[5, 77], 2), random(&[5, 77], 3));
    let g = (g * 6.0).unwrap();
    assert_close(&swiglu(&g, &u).unwrap(), &swiglu(&wide(&g), &wide(&u)).unwrap(), "y");
    let (dg64, du64) = swiglu_backward(wide(&g), wide(&u), &wide(&d)).unwrap();
    let (dg, du) = swiglu_backward(g, u, &d).unwrap();
    assert_close(&dg, &dg64, "dgate");
    assert_close(&du, &du64, "dup");
}

#[test]
fn rotation_and_its_reverse() {
    let x = random(&[6, 3 * 16], 1);
    let frequencies: Vec<f64> = (0..8).map(|i| 10_000f64.powf(-f64::from(i) / 8.0)).collect();
    let positions = [0, 1, 5, 63, 2, 2];
    let table = RopeTable::new(&frequencies, 64, &x).unwrap();
    let table64 = RopeTable::new(&frequencies, 64, &wide(&x)).unwrap();
    let y64 = table64.rotate(wide(&x), &positions, false).unwrap();
    let y = table.rotate(x.copy().unwrap(), &positions, false).unwrap();
    assert_close(&y, &y64, "rotated");
    assert_close(&table.rotate(y, &positions, true).unwrap(), &wide(&x), "rotated back");
}

#[test]
fn packed_attention_and_its_gradient() {
    let tokens = |n: usize| vec![0u32; n];
    let groups = [
        GroupTokens {
            prefix: tokens(37),
            suffixes: vec![tokens(5), tokens(30), tokens(1), tokens(18)],
        },
        GroupTokens { prefix: tokens(1), suffixes: vec![tokens(70)] },
        GroupTokens { prefix: tokens(64), suffixes: vec![] },
    ];
    let (packed, _) = PackedGroups::for_learning(&groups);
    for heads in [
        Heads { queries: 4, keys: 2, dim: 16 },
        Heads { queries: 3, keys: 3, dim: 8 },
        Heads { queries: 6, keys: 1, dim: 20 },
    ] {
        let (rows, qw, kw) = (packed.len(), heads.queries * heads.dim, heads.keys * heads.dim);
        let q = (random(&[rows, qw], 1) * 3.0).unwrap();
        let (k, v, d) = (random(&[rows, kw], 2), random(&[rows, kw], 3), random(&[rows, qw], 4));
        let (out, kept) = attention(&q, &k, &v, &packed.groups, heads).unwrap();
        let (q64, k64, v64) = (wide(&q), wide(&k), wide(&v));
        let (out64, kept64) = attention(&q64, &k64, &v64, &packed.groups, heads).unwrap();
        assert_close(&out, &out64, "out");
        let inputs = (&q, &k, &v, &out);
        let (dq, dk, dv) = attention_backward(inputs, &kept, &packed.groups, heads, &d).unwrap();
        let inputs = (&q64, &k64, &v64, &out64);
        let (dq64, dk64, dv64) =
            attention_backward(inputs, &kept64, &packed.groups, heads, &wide(&d)).unwrap();
        assert_close(&dq, &dq64, "dq");
        assert_close(&dk, &dk64, "dk");
        assert_close(&dv, &dv64, "dv");
    }
}

/// Predictions and the gradient of the hidden states; that of the weight is added to `dweight`.
fn through_the_head(
    (hidden, weight): (&Tensor, &Tensor),
    targets: &[Target],
    slopes: &[f32],
    dweight: &mut Tensor,
) -> (Predictions, Vec<Vec<f32>>) {
    let projection = Projection { weight, bias: None, packed: None, adapter: None };
    let head = Head { projection, shaping: Shaping::default(), targets };
    let (predictions, kept) = head.predict_and_keep(hidden).unwrap();
    let dhidden = head.backward(hidden, kept, slopes, Some(dweight)).unwrap();
    (predictions, dhidden.to_vec2().unwrap())
}

#[test]
fn logits_that_are_computed_again_are_those_that_would_be_kept() {
    // So many words that 60 rows of logits are too many to keep, and 20 are not; a chunk has 27.
    let (rows, part, words) = (60, 20, 300_000);
    assert_eq!((rows_at_once(rows, words), rows_at_once(part, words)), (27, part));
    let (hidden, weight) = (random(&[rows, 4], 1), random(&[words, 4], 2));
    // Every third row predicts two tokens.
    let targets: Vec<Target> = (0..rows)
        .flat_map(|row| (0..1 + usize::from(row % 3 == 0)).map(move |i| (row, i)))
        .map(|(row, i)| Target { row, token: (row * 4999 + i) as u32 })
        .collect();
    let slopes: Vec<f32> = random(&[targets.len()], 3).to_vec1().unwrap();

    let nothing = || access::nothing_like(&weight).unwrap();
    let (mut again, mut kept) = (nothing(), nothing());
    let whole = through_the_head((&hidden, &weight), &targets, &slopes, &mut again);
    let (mut predictions, mut dhidden) = (Predictions::default(), Vec::new());
    for first in (0..rows).step_by(part) {
        let at = |row| targets.partition_point(|target| target.row < row);
        let (from, to) = (at(first), at(first + part));
        let own = targets[from..to].iter().map(|t| Target { row: t.row - first, ..*t });
        let hidden = hidden.narrow(0, first, part).unwrap();
        let own: Vec<Target> = own.collect();
        let found = through_the_head((&hidden, &weight), &own, &slopes[from..to], &mut kept);
        predictions.logprobs.extend(found.0.logprobs);
        predictions.entropies.extend(found.0.entropies);
        dhidden.extend(found.1);
    }
    assert!(whole == (predictions, dhidden), "not the same bits");
    assert!(again.to_vec2::<f32>().unwrap() == kept.to_vec2::<f32>().unwrap(), "not the same bits");
}

#[test]
fn the_plan_knows_the_most_rows_of_logits() {
    for (rows, vocabulary) in [(1, 50), (768, 49_152), (8_192, 2_048), (9_000, 152_064)] {
        let most = (1..=rows).map(|fewer| rows_at_once(fewer, vocabulary)).max();
        assert_eq!(most, Some(most_rows_at_once(rows, vocabulary)));
    }
    // Whatever the vocabulary, a few rows are computed together.
    assert_eq!(rows_at_once(100, 1 << 30), 8);
}
