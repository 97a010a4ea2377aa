//! Exponential, sums and maxima over rows, in an order of their own.
//!
//! Invariant: sums run in [`LANES`] partial sums by index, added up in a fixed tree; a zero appended to a
//! row changes no bit. `exp` is a polynomial in fused multiply-adds, so it is the same on every machine,
//! which the C library's is not.

/// Partial sums of a row.
pub const LANES: usize = 16;

/// Euler's exponential of `x <= 88`, within 2 ulp; 0 below -87.3 (no denormals), `exp(0) = 1` exactly.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    // Not `max`: a NaN must stay one.
    let inside = if x < -87.3 { -87.3 } else { x };
    let shifted = inside.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_HIGH, inside);
    let r = n.mul_add(-LN2_LOW, r);
    let p = 1.987_569_1e-4f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let y = p.mul_add(r * r, r) + 1.0;
    let bits = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let scale = f32::from_bits(((bits + 127) << 23) as u32);
    if x < -87.3 { 0.0 } else { y * scale }
}

/// Adds up partial sums in a fixed tree.
#[inline(always)]
pub fn tree(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            lanes[l] += lanes[l + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `Σ f(x[i], y[i])` in lane order.
#[inline(always)]
fn fold2(x: &[f32], y: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (xr, yr) = (xs.remainder(), ys.remainder());
    for (a, b) in xs.zip(ys) {
        for l in 0..LANES {
            lanes[l] = f(a[l], b[l], lanes[l]);
        }
    }
    for (l, (a, b)) in xr.iter().zip(yr).enumerate() {
        lanes[l] = f(*a, *b, lanes[l]);
    }
    tree(lanes)
}

/// `Σ x[i] y[i]`.
#[inline(always)]
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    fold2(x, y, f32::mul_add)
}

/// `Σ x[i]`.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    fold2(x, x, |a, _, acc| acc + a)
}

/// The largest element; negative infinity for an empty row.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for a in chunks {
        for l in 0..LANES {
            lanes[l] = if a[l] > lanes[l] { a[l] } else { lanes[l] };
        }
    }
    rest.iter().chain(&lanes).fold(f32::NEG_INFINITY, |m, &a| if a > m { a } else { m })
}

/// Replaces each `x[i]` by `exp((x[i] - top) * scale)`; returns their sum.
#[inline(always)]
pub fn exp_row(x: &mut [f32], top: f32, scale: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let mut chunks = x.chunks_exact_mut(LANES);
    for a in &mut chunks {
        for l in 0..LANES {
            a[l] = exp((a[l] - top) * scale);
            lanes[l] += a[l];
        }
    }
    for (l, a) in chunks.into_remainder().iter_mut().enumerate() {
        *a = exp((*a - top) * scale);
        lanes[l] += *a;
    }
    tree(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_true_one() {
        let mut worst = 0f64;
        for i in 0..400_000 {
            let x = -87.0 + i as f32 * (175.0 / 400_000.0);
            let truth = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - truth).abs() / truth);
        }
        assert!(worst < 2.4e-7, "relative error {worst:e}");
        assert_eq!(exp(0.0).to_bits(), 1f32.to_bits());
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn appended_zeros_change_no_bit() {
        let x: Vec<f32> = (0..93).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
        let mut longer = x.clone();
        longer.resize(128, 0.0);
        assert_eq!(sum(&x).to_bits(), sum(&longer).to_bits());
        assert_eq!(dot(&x, &x).to_bits(), dot(&longer, &longer).to_bits());
    }
}
