//! Linear projections `y = x · Wᵀ (+ b)`, `W` as stored: `[output, input]`.
//!
//! Invariant: the product of a row does not depend on the other rows, nor on whether the weight was
//! packed beforehand.

use super::access::{add_tensor_to, add_to, add_to_zeros, filled, is_fused, read, write};
use super::composite;
use super::lora::LowRank;
use crate::kernel::gemm::{Mat, Rhs, Start, gemm};
use crate::kernel::norm::column_sums;
use crate::kernel::panels::Panels;
use crate::kernel::parallel;
use candle_core::{Result, Tensor};

/// A weight with its optional bias, and, where it is read many times, its packed form.
#[derive(Clone, Copy)]
pub struct Projection<'a> {
    /// `[output, input]`.
    pub weight: &'a Tensor,
    /// `[output]`.
    pub bias: Option<&'a Tensor>,
    /// `weight` packed for `x · Wᵀ`.
    pub packed: Option<&'a Panels>,
    /// What is added to its product.
    pub adapter: Option<LowRank<'a>>,
}

/// `[rows, input]` → `[rows, output]`.
pub fn linear(x: &Tensor, p: Projection<'_>) -> Result<Tensor> {
    let (rows, outputs) = (x.dim(0)?, p.weight.dim(0)?);
    if !is_fused(x) {
        return with_composite(composite::linear(x, p.weight, p.bias)?, x, p);
    }
    filled(x, (rows, outputs), |y| {
        let start = match p.bias {
            None => Start::Zero,
            Some(bias) => {
                let each = parallel::rows_per_task(outputs);
                read([bias], |[b]| {
                    parallel::for_each_chunk(y, each * outputs, |_, y| {
                        y.chunks_exact_mut(outputs).for_each(|y| y.copy_from_slice(b));
                    });
                })?;
                Start::Continue
            }
        };
        product(x, p, y, start)
    })
}

/// `residual + x · Wᵀ (+ b)`; takes the residual, on the CPU in place.
pub fn linear_onto(residual: Tensor, x: &Tensor, p: Projection<'_>) -> Result<Tensor> {
    if !is_fused(x) {
        return with_composite((residual + composite::linear(x, p.weight, p.bias)?)?, x, p);
    }
    let outputs = p.weight.dim(0)?;
    if let Some(bias) = p.bias {
        read([bias], |[b]| {
            write(&residual, |y| {
                for y in y.chunks_exact_mut(outputs) {
                    y.iter_mut().zip(b).for_each(|(y, b)| *y += b);
                }
            })
        })??;
    }
    write(&residual, |y| product(x, p, y, Start::Continue))??;
    Ok(residual)
}

fn with_composite(y: Tensor, x: &Tensor, p: Projection<'_>) -> Result<Tensor> {
    match p.adapter {
        None => Ok(y),
        Some(low) => y + low.composite(x)?,
    }
}

fn product(x: &Tensor, p: Projection<'_>, y: &mut [f32], start: Start) -> Result<()> {
    let (rows, inputs) = x.dims2()?;
    let outputs = p.weight.dim(0)?;
    let shape = (rows, outputs, inputs);
    match p.packed {
        Some(packed) => read([x], |[x]| {
            gemm(shape, Mat::rows(x, inputs), Rhs::Packed(packed), y, outputs, start);
        }),
        None => read([x, p.weight], |[x, w]| {
            let w = Rhs::Plain(Mat::transposed(w, inputs));
            gemm(shape, Mat::rows(x, inputs), w, y, outputs, start);
        }),
    }?;
    match p.adapter {
        None => Ok(()),
        Some(low) => low.add(x, y),
    }
}

/// Packs a weight for [`Projection::packed`].
pub fn pack(weight: &Tensor) -> Result<Panels> {
    let (outputs, inputs) = weight.dims2()?;
    read([weight], |[w]| Panels::pack(Mat::transposed(w, inputs), inputs, outputs))
}

/// Adds `dyᵀ · x` to `dw` and the column sums of `dy` to `db`, where these are wanted (they may be nothing yet); returns
/// `dy · W`, added to `onto` where there is one (on the CPU in place).
pub fn linear_backward(
    x: &Tensor,
    weight: &Tensor,
    dy: &Tensor,
    onto: Option<Tensor>,
    dw: Option<&mut Tensor>,
    db: Option<&mut Tensor>,
) -> Result<Tensor> {
    if !is_fused(x) {
        if let Some(dw) = dw {
            add_tensor_to(dw, &dy.t()?.matmul(x)?)?;
        }
        if let Some(db) = db {
            add_tensor_to(db, &dy.sum(0)?)?;
        }
        let dx = dy.matmul(weight)?;
        return match onto {
            None => Ok(dx),
            Some(onto) => onto + dx,
        };
    }
    let ((rows, inputs), outputs) = (x.dims2()?, dy.dim(1)?);
    read([dy, x], |[dy, x]| {
        if let Some(dw) = dw {
            add_to(dw, weight.shape(), |dw, start| {
                let (dy, x) = (Mat::transposed(dy, outputs), Rhs::Plain(Mat::rows(x, inputs)));
                gemm((outputs, inputs, rows), dy, x, dw, inputs, start);
            })?;
        }
        match db {
            None => Ok(()),
            Some(db) => add_to_zeros(db, &outputs.into(), |db| column_sums(dy, db)),
        }
    })??;
    let add = |dx: &mut [f32], start| {
        read([dy, weight], |[dy, w]| {
            let w = Rhs::Plain(Mat::rows(w, inputs));
            gemm((rows, inputs, outputs), Mat::rows(dy, outputs), w, dx, inputs, start);
        })
    };
    match onto {
        None => filled(x, (rows, inputs), |dx| add(dx, Start::Zero)),
        Some(onto) => {
            write(&onto, |dx| add(dx, Start::Continue))??;
            Ok(onto)
        }
    }
}
