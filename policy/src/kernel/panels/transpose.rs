//! Sixteen columns of sixteen floats turned into sixteen rows, in registers of AVX-512 or of AVX.
//!
//! Invariant: a copy; no float is changed.

use super::NR;
use crate::kernel::simd::has_avx512;
use std::arch::x86_64::{
    __m512, _mm_loadu_ps, _mm256_castps128_ps256, _mm256_insertf128_ps, _mm256_shuffle_ps,
    _mm256_storeu_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps, _mm512_castpd_ps, _mm512_castps_pd,
    _mm512_loadu_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_storeu_ps, _mm512_unpackhi_pd,
    _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};

/// `out[p][column] = from[column · stride + p]` for sixteen of both. False where the machine has neither.
///
/// # Panics
/// When either slice is too short.
pub(super) fn sixteen(from: &[f32], stride: usize, out: &mut [f32]) -> bool {
    assert!(from.len() >= (NR - 1) * stride + NR && out.len() >= NR * NR, "a block of 16 × 16");
    // SAFETY: the machine has what they are compiled for, and the slices are long enough.
    unsafe {
        if has_avx512() {
            by_sixteen(from, stride, out);
        } else if std::is_x86_feature_detected!("avx") {
            by_eight(from, stride, out);
        } else {
            return false;
        }
    }
    true
}

/// # Safety
/// The machine has AVX, and the slices are as [`sixteen`] wants them.
#[target_feature(enable = "avx")]
unsafe fn by_eight(from: &[f32], stride: usize, out: &mut [f32]) {
    for (p, column) in (0..NR).step_by(4).flat_map(|p| [(p, 0), (p, 8)]) {
        // Four steps of a column, and of the one four columns further.
        let two = |i: usize| {
            // SAFETY: inside of `from`, as the caller promises.
            unsafe {
                let first = from.as_ptr().add((column + i) * stride + p);
                let low = _mm256_castps128_ps256(_mm_loadu_ps(first));
                _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(first.add(4 * stride)))
            }
        };
        let [a, b, c, d] = [two(0), two(1), two(2), two(3)];
        let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let (low2, high2) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        let rows = [
            _mm256_shuffle_ps::<0x44>(low, low2),
            _mm256_shuffle_ps::<0xee>(low, low2),
            _mm256_shuffle_ps::<0x44>(high, high2),
            _mm256_shuffle_ps::<0xee>(high, high2),
        ];
        for (i, row) in rows.into_iter().enumerate() {
            // SAFETY: inside of `out`, as the caller promises.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr().add((p + i) * NR + column), row) };
        }
    }
}

/// # Safety
/// As for [`by_eight`], with AVX-512.
#[target_feature(enable = "avx512f")]
unsafe fn by_sixteen(from: &[f32], stride: usize, out: &mut [f32]) {
    let mut rows = [_mm512_setzero_ps(); NR];
    for (column, row) in rows.iter_mut().enumerate() {
        // SAFETY: inside of `from`, as the caller promises.
        *row = unsafe { _mm512_loadu_ps(from.as_ptr().add(column * stride)) };
    }
    // Within each quarter of a register, then quarters among registers.
    let pairs = each_pair(rows, |a, b| (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
    let mut fours = [_mm512_setzero_ps(); NR];
    for q in 0..4 {
        for half in 0..2 {
            let (a, b) = (pairs[4 * q + half], pairs[4 * q + 2 + half]);
            let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
            fours[4 * q + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            fours[4 * q + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    }
    for lane in 0..4 {
        let [a, b, c, d] = [fours[lane], fours[4 + lane], fours[8 + lane], fours[12 + lane]];
        let (low, high) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
        let (low2, high2) =
            (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
        let done = [
            _mm512_shuffle_f32x4::<0x88>(low, low2),
            _mm512_shuffle_f32x4::<0x88>(high, high2),
            _mm512_shuffle_f32x4::<0xdd>(low, low2),
            _mm512_shuffle_f32x4::<0xdd>(high, high2),
        ];
        for (quarter, row) in done.into_iter().enumerate() {
            // SAFETY: inside of `out`, as the caller promises.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr().add((4 * quarter + lane) * NR), row) };
        }
    }
}

#[target_feature(enable = "avx512f")]
fn each_pair(
    rows: [__m512; NR],
    both: impl Fn(__m512, __m512) -> (__m512, __m512),
) -> [__m512; NR] {
    let mut out = rows;
    for pair in out.chunks_exact_mut(2) {
        (pair[0], pair[1]) = both(pair[0], pair[1]);
    }
    out
}
