//! The same operations out of candle's own, for every dtype and device, with gradients from its tape.
//!
//! Invariant: only candle operations that have a gradient are used here (its fused softmax, norm and
//! rotary embedding have none, and say nothing).

use crate::kernel::attention::Heads;
use crate::layout::GroupRows;
use candle_core::{D, DType, Result, Tensor, Var};

/// Gradients of `f` with respect to its inputs, given that of its output.
pub fn vjp(
    inputs: &[&Tensor],
    dout: &Tensor,
    f: impl FnOnce(&[Tensor]) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let vars = inputs.iter().map(|t| Var::from_tensor(t)).collect::<Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let grads = (f(&tensors)? * dout)?.sum_all()?.backward()?;
    tensors
        .iter()
        .map(|t| match grads.get(t) {
            Some(grad) => Ok(grad.clone()),
            None => candle_core::bail!("an operation without a gradient lies before {t:?}"),
        })
        .collect()
}

pub fn rms_norm(x: &Tensor, w: &Tensor, eps: f64) -> Result<Tensor> {
    let wide = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let y = x.to_dtype(wide)?;
    let mean = (y.sqr()?.sum_keepdim(D::Minus1)? / x.dim(D::Minus1)? as f64)?;
    y.broadcast_div(&(mean + eps)?.sqrt()?)?.to_dtype(x.dtype())?.broadcast_mul(w)
}

pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = x.matmul(&weight.t()?)?;
    match bias {
        None => Ok(y),
        Some(bias) => y.broadcast_add(bias),
    }
}

pub fn rotate(
    x: &Tensor,
    positions: &[u32],
    heads: usize,
    cos: &Tensor,
    sin: &Tensor,
    back: bool,
) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let half = width / heads / 2;
    let at = Tensor::new(positions, x.device())?;
    let cos = cos.index_select(&at, 0)?.unsqueeze(1)?;
    let sin = sin.index_select(&at, 0)?.unsqueeze(1)?;
    let sin = if back { sin.neg()? } else { sin };
    let x = x.reshape((rows, heads, 2 * half))?;
    let (low, high) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
    let first = (low.broadcast_mul(&cos)? - high.broadcast_mul(&sin)?)?;
    let second = (high.broadcast_mul(&cos)? + low.broadcast_mul(&sin)?)?;
    Tensor::cat(&[first, second], 2)?.reshape((rows, width))
}

pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.silu()? * up
}

/// Attention of packed groups: `q [rows, heads · dim]`, `k`, `v [rows, key heads · dim]`.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    groups: &[GroupRows],
    heads: Heads,
) -> Result<Tensor> {
    let mut parts = Vec::new();
    for group in groups {
        let rows = |t: &Tensor, r: &std::ops::Range<usize>| t.narrow(0, r.start, r.len());
        let (k0, v0) = (rows(k, &group.prefix)?, rows(v, &group.prefix)?);
        parts.push(attend(&rows(q, &group.prefix)?, &k0, &v0, heads)?);
        for suffix in group.suffixes.iter().filter(|s| !s.is_empty()) {
            let keys = Tensor::cat(&[&k0, &rows(k, suffix)?], 0)?;
            let values = Tensor::cat(&[&v0, &rows(v, suffix)?], 0)?;
            parts.push(attend(&rows(q, suffix)?, &keys, &values, heads)?);
        }
    }
    Tensor::cat(&parts, 0)
}

/// Causal attention of the last `q` rows over all keys.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, heads: Heads) -> Result<Tensor> {
    let (m, n) = (q.dim(0)?, k.dim(0)?);
    let Heads { queries, keys, dim } = heads;
    let repeat = heads.repeat();
    // [key heads, repeat · rows, dim] against [key heads, keys, dim].
    let q = q.reshape((m, keys, repeat, dim))?.permute((1, 2, 0, 3))?.contiguous()?;
    let q = q.reshape((keys, repeat * m, dim))?;
    let k = k.reshape((n, keys, dim))?.permute((1, 2, 0))?.contiguous()?;
    let v = v.reshape((n, keys, dim))?.permute((1, 0, 2))?.contiguous()?;
    let hidden: Vec<f32> = (0..repeat * m * n)
        .map(|i| if i % n > n - m + (i / n) % m { f32::NEG_INFINITY } else { 0.0 })
        .collect();
    let wide = if q.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let hidden = Tensor::from_vec(hidden, (1, repeat * m, n), q.device())?.to_dtype(wide)?;
    let scores =
        (q.matmul(&k)?.to_dtype(wide)? * f64::from(heads.scale()))?.broadcast_add(&hidden)?;
    let top = scores.detach().max_keepdim(D::Minus1)?;
    let weights = scores.broadcast_sub(&top)?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?.to_dtype(q.dtype())?;
    let mixed = weights.matmul(&v)?.reshape((keys, repeat, m, dim))?;
    mixed.permute((2, 0, 1, 3))?.contiguous()?.reshape((m, queries * dim))
}
