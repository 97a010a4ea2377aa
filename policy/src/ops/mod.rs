//! The operations of a decoder layer, each with its gradient, on candle tensors.
//!
//! Invariant: an operation is a pure function of its arguments; `*_backward` returns gradients with
//! respect to inputs and *adds* those of weights to the accumulators it is given. There is no tape, so no
//! gradient can be missing in silence. `f32` on the CPU runs fused kernels; every other dtype and device
//! runs the composite form, which is also the oracle that the kernels are tested against.

pub mod access;
mod attention;
mod composite;
mod head;
mod linear;
mod lora;

pub use attention::{
    AttentionKept, GroupCache, HeadCache, attention, attention_backward, forward_packed,
    pack_groups,
};
pub use composite::attend as attend_rows;
pub use head::{Head, Predictions, most_rows_at_once, rows_at_once};
pub use linear::{Projection, linear, linear_backward, linear_onto, pack};
pub use lora::{LowRank, merge};

use crate::kernel;
use access::{filled, is_fused, read, write};
use candle_core::{Result, Tensor};

/// Rows of the embedding: `[vocabulary, hidden]` at `tokens` → `[rows, hidden]`.
pub fn embed(table: &Tensor, tokens: &[u32]) -> Result<Tensor> {
    access::rows_of(table, tokens)
}

/// Adds the rows of `dx` to the embedding's gradient, which may be nothing yet, in row order.
pub fn embed_backward(
    tokens: &[u32],
    dx: &Tensor,
    table: &Tensor,
    dtable: &mut Tensor,
) -> Result<()> {
    if !is_fused(dx) {
        if dtable.elem_count() == 0 {
            *dtable = Tensor::zeros(table.shape(), dtable.dtype(), dtable.device())?;
        }
        let ids = Tensor::new(tokens, dx.device())?;
        *dtable = dtable.index_add(&ids, &dx.to_dtype(dtable.dtype())?, 0)?;
        return Ok(());
    }
    let width = dx.dim(1)?;
    read([dx], |[dx]| {
        access::add_to_zeros(dtable, table.shape(), |table| {
            kernel::norm::add_rows(tokens, dx, width, table);
        })
    })?
}

/// What the gradient of RMSNorm wants back: the reciprocal root mean square of each row.
pub struct NormKept(Tensor);

/// `x / rms(x) · w`, rows of `hidden`.
pub fn rms_norm(x: &Tensor, w: &Tensor, eps: f64) -> Result<(Tensor, NormKept)> {
    let rows = x.dim(0)?;
    if !is_fused(x) {
        return Ok((
            composite::rms_norm(x, w, eps)?,
            NormKept(Tensor::zeros(0, x.dtype(), x.device())?),
        ));
    }
    let mut scale = vec![0f32; rows];
    let y = filled(x, x.shape(), |y| {
        read([x, w], |[x, w]| kernel::norm::forward(x, w, eps as f32, y, &mut scale))
    })?;
    Ok((y, NormKept(Tensor::from_vec(scale, rows, x.device())?)))
}

/// Adds the norm's input gradient to `dx` in place (it holds the residual's) and its weight's to `dw`, where that is
/// wanted; it may be nothing yet.
pub fn rms_norm_backward(
    (x, w, eps): (&Tensor, &Tensor, f64),
    kept: &NormKept,
    dy: &Tensor,
    dx: &mut Tensor,
    dw: Option<&mut Tensor>,
) -> Result<()> {
    if !is_fused(x) {
        let grads = composite::vjp(&[x, w], dy, |v| composite::rms_norm(&v[0], &v[1], eps))?;
        *dx = (&*dx + &grads[0])?;
        return match dw {
            None => Ok(()),
            Some(dw) => access::add_tensor_to(dw, &grads[1]),
        };
    }
    let shape = w.shape();
    read([x, w, &kept.0, dy], |[x, w, scale, dy]| {
        write(dx, |dx| kernel::norm::backward(x, w, scale, dy, dx))?;
        match dw {
            None => Ok(()),
            Some(dw) => access::add_to_zeros(dw, shape, |dw| {
                kernel::norm::weight_backward(x, scale, dy, dw);
            }),
        }
    })?
}

/// What [`rms_norm`] gave, to the bit, from what it kept: cheaper to compute again than to hold.
pub fn rms_norm_again((x, w, eps): (&Tensor, &Tensor, f64), kept: &NormKept) -> Result<Tensor> {
    if !is_fused(x) {
        return composite::rms_norm(x, w, eps);
    }
    filled(x, x.shape(), |y| {
        read([x, w, &kept.0], |[x, w, scale]| kernel::norm::again(x, w, scale, y))
    })
}

/// Cosines and sines of every position: `[positions, head_dim / 2]` each.
#[derive(Clone, Debug)]
pub struct RopeTable {
    cos: Tensor,
    sin: Tensor,
    heads_dim: usize,
}

impl RopeTable {
    /// From angular frequencies, one a pair of dimensions.
    pub fn new(frequencies: &[f64], positions: usize, like: &Tensor) -> Result<Self> {
        let angles: Vec<f64> =
            (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f64 * f)).collect();
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f64> = angles.iter().copied().map(f).collect();
            Tensor::from_vec(values, (positions, frequencies.len()), &candle_core::Device::Cpu)?
                .to_dtype(like.dtype())?
                .to_device(like.device())
        };
        Ok(Self { cos: table(f64::cos)?, sin: table(f64::sin)?, heads_dim: frequencies.len() * 2 })
    }

    /// Rotates `[rows, heads · head_dim]`, row `r` at `positions[r]`. The gradient is the rotation back.
    pub fn rotate(&self, x: Tensor, positions: &[u32], back: bool) -> Result<Tensor> {
        let heads = x.dim(1)? / self.heads_dim;
        if !is_fused(&x) {
            return composite::rotate(&x, positions, heads, &self.cos, &self.sin, back);
        }
        let direction = if back { -1.0 } else { 1.0 };
        read([&self.cos, &self.sin], |[cos, sin]| {
            write(&x, |x| {
                kernel::rope::rotate(x, positions, heads, self.heads_dim, (cos, sin), direction);
            })
        })??;
        Ok(x)
    }
}

/// `silu(gate) · up`.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if !is_fused(gate) {
        return composite::swiglu(gate, up);
    }
    filled(gate, gate.shape(), |out| {
        read([gate, up], |[gate, up]| kernel::swiglu::forward(gate, up, out))
    })
}

/// Gradients of `gate` and `up`. Takes both: on the CPU they are overwritten.
pub fn swiglu_backward(gate: Tensor, up: Tensor, dout: &Tensor) -> Result<(Tensor, Tensor)> {
    if !is_fused(&gate) {
        let grads = composite::vjp(&[&gate, &up], dout, |v| composite::swiglu(&v[0], &v[1]))?;
        return Ok((grads[0].clone(), grads[1].clone()));
    }
    read([dout], |[dout]| {
        write(&gate, |gate| write(&up, |up| kernel::swiglu::backward(gate, up, dout)))?
    })??;
    Ok((gate, up))
}

#[cfg(test)]
mod tests;
