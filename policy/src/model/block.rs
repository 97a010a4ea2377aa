//! One decoder layer, forward and backward.
//!
//! Invariant: `forward` is the only computation of a layer. Prefill and learning call it with packed
//! groups, decoding with a cache; [`Attend`] is the only place where they differ.

use super::adapter::Adapter;
use super::gradients::Gradients;
use super::params::Params;
use super::weights::{LayerIndex, Linear};
use crate::kernel::attention::Heads;
use crate::kernel::panels::Panels;
use crate::layout::GroupRows;
use crate::lora::Target;
use crate::ops::{
    self, AttentionKept, NormKept, Projection, RopeTable, linear, linear_backward, linear_onto,
};
use candle_core::{Result, Tensor};

/// What all layers of one pass share.
pub(super) struct Pass<'a> {
    pub params: &'a Params,
    pub packed: Option<&'a [Option<Panels>]>,
    pub adapter: Option<&'a Adapter>,
    pub heads: Heads,
    pub eps: f64,
    pub rope: &'a RopeTable,
    pub positions: &'a [u32],
}

impl Pass<'_> {
    fn weight(&self, i: usize) -> &Tensor {
        &self.params.tensors()[i]
    }

    fn projection(&self, layer: usize, target: Target, (weight, bias): Linear) -> Projection<'_> {
        Projection {
            weight: self.weight(weight),
            bias: bias.map(|b| self.weight(b)),
            packed: self.packed.and_then(|p| p[weight].as_ref()),
            adapter: self.adapter.and_then(|adapter| adapter.low_rank(layer, target)),
        }
    }
}

/// How rotated queries meet keys and values.
pub(crate) trait Attend {
    /// `q [rows, heads · dim]`, `k` and `v [rows, key heads · dim]` → `[rows, heads · dim]`.
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor>;
}

/// Attention among the packed rows themselves, keeping what the gradient wants.
pub(super) struct Packed<'a> {
    pub groups: &'a [GroupRows],
    pub heads: Heads,
    pub kept: Option<AttentionKept>,
}

impl Attend for Packed<'_> {
    fn attend(&mut self, _layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let (out, kept) = ops::attention(q, k, v, self.groups, self.heads)?;
        self.kept = Some(kept);
        Ok(out)
    }
}

/// Activations of one layer that its gradient reads. What a norm gave is not among them: it is one pass over what
/// went in. Nor is what attention leaves in the middle of the layer: a small product, a thirtieth of a step's
/// arithmetic, and a tenth of what would be kept.
pub(super) struct Kept {
    input: Tensor,
    input_norm: NormKept,
    q: Tensor,
    q_norm: Option<HeadNorm>,
    k: Tensor,
    k_norm: Option<HeadNorm>,
    v: Tensor,
    mixed: Tensor,
    middle_norm: NormKept,
    gate: Tensor,
    up: Tensor,
}

/// What the gradient of a norm over heads reads: its input, `[rows · heads, dim]`, and its scales.
struct HeadNorm {
    input: Tensor,
    kept: NormKept,
}

/// `x [rows, hidden]` → the layer's output and its activations. Decoding drops them at once.
pub(super) fn forward(
    pass: &Pass<'_>,
    at: &LayerIndex,
    layer: usize,
    x: Tensor,
    attend: &mut impl Attend,
) -> Result<(Tensor, Kept)> {
    let (normed, input_norm) = ops::rms_norm(&x, pass.weight(at.input_norm), pass.eps)?;
    let project = |target, at| linear(&normed, pass.projection(layer, target, at));
    let (q, q_norm) = head_norm(pass, at.q_norm, project(Target::Q, at.q)?)?;
    let q = pass.rope.rotate(q, pass.positions, false)?;
    let (k, k_norm) = head_norm(pass, at.k_norm, project(Target::K, at.k)?)?;
    let k = pass.rope.rotate(k, pass.positions, false)?;
    let v = project(Target::V, at.v)?;
    let mixed = attend.attend(layer, &q, &k, &v)?;
    let middle = middle(pass, at, layer, &x, &mixed)?;
    let (middle_normed, middle_norm) =
        ops::rms_norm(&middle, pass.weight(at.middle_norm), pass.eps)?;
    let gate = linear(&middle_normed, pass.projection(layer, Target::Gate, (at.gate, None)))?;
    let up = linear(&middle_normed, pass.projection(layer, Target::Up, (at.up, None)))?;
    let inner = ops::swiglu(&gate, &up)?;
    let down = pass.projection(layer, Target::Down, (at.down, None));
    let y = linear_onto(ops::access::copied(&middle)?, &inner, down)?;
    let kept = Kept { input: x, input_norm, q, q_norm, k, k_norm, v, mixed, middle_norm, gate, up };
    Ok((y, kept))
}

/// The residual stream between attention and the network behind it.
fn middle(
    pass: &Pass<'_>,
    at: &LayerIndex,
    layer: usize,
    x: &Tensor,
    mixed: &Tensor,
) -> Result<Tensor> {
    let o = pass.projection(layer, Target::O, at.o);
    linear_onto(ops::access::copied(x)?, mixed, o)
}

/// The gradient of the layer's input, given that of its output; adds to the gradients of what is trained.
pub(super) fn backward(
    pass: &Pass<'_>,
    (at, layer): (&LayerIndex, usize),
    kept: Kept,
    attention: &AttentionKept,
    groups: &[GroupRows],
    dy: Tensor,
    grads: &mut Gradients<'_>,
) -> Result<Tensor> {
    let place = |target, at| Place { layer, target, at };
    let inner = ops::swiglu(&kept.gate, &kept.up)?;
    let down = place(Target::Down, (at.down, None));
    let dinner = projection_backward(pass, grads, down, &inner, &dy, None)?;
    drop(inner);
    let (dgate, dup) = ops::swiglu_backward(kept.gate, kept.up, &dinner)?;
    let middle = middle(pass, at, layer, &kept.input, &kept.mixed)?;
    let norm = (&middle, pass.weight(at.middle_norm), pass.eps);
    let x = &ops::rms_norm_again(norm, &kept.middle_norm)?;
    let gate = place(Target::Gate, (at.gate, None));
    let dnormed = projection_backward(pass, grads, gate, x, &dgate, None)?;
    let up = place(Target::Up, (at.up, None));
    let dnormed = projection_backward(pass, grads, up, x, &dup, Some(dnormed))?;
    let mut dmiddle = dy;
    let dw = grads.weight(at.middle_norm);
    ops::rms_norm_backward(norm, &kept.middle_norm, &dnormed, &mut dmiddle, dw)?;
    drop(middle);

    let o = place(Target::O, at.o);
    let dmixed = projection_backward(pass, grads, o, &kept.mixed, &dmiddle, None)?;
    let inputs = (&kept.q, &kept.k, &kept.v, &kept.mixed);
    let (dq, dk, dv) = ops::attention_backward(inputs, attention, groups, pass.heads, &dmixed)?;
    let dq = pass.rope.rotate(dq, pass.positions, true)?;
    let dk = pass.rope.rotate(dk, pass.positions, true)?;
    let dq = head_norm_backward(pass, at.q_norm, kept.q_norm, dq, grads)?;
    let dk = head_norm_backward(pass, at.k_norm, kept.k_norm, dk, grads)?;
    let norm = (&kept.input, pass.weight(at.input_norm), pass.eps);
    let x = &ops::rms_norm_again(norm, &kept.input_norm)?;
    let dnormed = projection_backward(pass, grads, place(Target::Q, at.q), x, &dq, None)?;
    let dnormed = projection_backward(pass, grads, place(Target::K, at.k), x, &dk, Some(dnormed))?;
    let dnormed = projection_backward(pass, grads, place(Target::V, at.v), x, &dv, Some(dnormed))?;
    let mut dx = dmiddle;
    let dw = grads.weight(at.input_norm);
    ops::rms_norm_backward(norm, &kept.input_norm, &dnormed, &mut dx, dw)?;
    Ok(dx)
}

/// Normalises each head of each row, where the model has a norm there.
fn head_norm(
    pass: &Pass<'_>,
    norm: Option<usize>,
    x: Tensor,
) -> Result<(Tensor, Option<HeadNorm>)> {
    let Some(norm) = norm else { return Ok((x, None)) };
    let (rows, width) = x.dims2()?;
    let input = x.reshape((rows * width / pass.heads.dim, pass.heads.dim))?;
    let (y, kept) = ops::rms_norm(&input, pass.weight(norm), pass.eps)?;
    Ok((y.reshape((rows, width))?, Some(HeadNorm { input, kept })))
}

/// The gradient of [`head_norm`]'s input; adds to that of its weight.
fn head_norm_backward(
    pass: &Pass<'_>,
    norm: Option<usize>,
    kept: Option<HeadNorm>,
    dy: Tensor,
    grads: &mut Gradients<'_>,
) -> Result<Tensor> {
    let (Some(norm), Some(HeadNorm { input, kept })) = (norm, kept) else { return Ok(dy) };
    let mut dx = input.zeros_like()?;
    let by_head = dy.reshape(input.shape())?;
    let dw = grads.weight(norm);
    ops::rms_norm_backward((&input, pass.weight(norm), pass.eps), &kept, &by_head, &mut dx, dw)?;
    dx.reshape(dy.shape())
}

/// A projection: which one of which layer, and where its weight and bias are.
struct Place {
    layer: usize,
    target: Target,
    at: Linear,
}

fn projection_backward(
    pass: &Pass<'_>,
    grads: &mut Gradients<'_>,
    place: Place,
    x: &Tensor,
    dy: &Tensor,
    onto: Option<Tensor>,
) -> Result<Tensor> {
    let Place { layer, target, at: (weight, bias) } = place;
    let (dw, db) = grads.projection(weight, bias)?;
    let dx = linear_backward(x, pass.weight(weight), dy, onto, dw, db)?;
    match grads.low_rank(layer, target) {
        None => Ok(dx),
        Some((low, both)) => low.backward(x, dy, dx, both),
    }
}
