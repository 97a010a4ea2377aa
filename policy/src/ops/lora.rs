//! The low-rank part of a projection: `scale · (x · Aᵀ) · Bᵀ`, and its gradient.
//!
//! Invariant: as for [`linear`](super::linear), a row's product does not depend on the other rows, the threads, or on
//! packing. The weight beside it gets no gradient: that is the point.

use super::access::{add_tensor_to, add_to, filled, is_fused, read, write};
use crate::kernel::gemm::{Mat, Rhs, Start, gemm};
use crate::kernel::panels::Panels;
use crate::kernel::parallel;
use candle_core::{Result, Tensor};

/// An adapter of one projection.
#[derive(Clone, Copy)]
pub struct LowRank<'a> {
    /// `[rank, input]`.
    pub a: &'a Tensor,
    /// `[output, rank]`.
    pub b: &'a Tensor,
    /// What the product is multiplied with.
    pub scale: f32,
    /// Both packed as weights are.
    pub packed: Option<[&'a Panels; 2]>,
}

impl LowRank<'_> {
    /// `scale · x · Aᵀ`: `[rows, rank]`.
    fn inner(&self, x: &Tensor) -> Result<Tensor> {
        if !is_fused(x) {
            return x.matmul(&self.a.t()?)? * f64::from(self.scale);
        }
        let ((rows, inputs), rank) = (x.dims2()?, self.a.dim(0)?);
        filled(x, (rows, rank), |inner| {
            read([x, self.a], |[x, a]| {
                let a = match self.packed {
                    Some([a, _]) => Rhs::Packed(a),
                    None => Rhs::Plain(Mat::transposed(a, inputs)),
                };
                gemm((rows, rank, inputs), Mat::rows(x, inputs), a, inner, rank, Start::Zero);
            })?;
            scale(inner, self.scale);
            Ok(())
        })
    }

    /// The product, out of candle's operations.
    pub(super) fn composite(&self, x: &Tensor) -> Result<Tensor> {
        self.inner(x)?.matmul(&self.b.t()?)
    }

    /// Adds the product to `y`, rows of the projection's output.
    pub(super) fn add(&self, x: &Tensor, y: &mut [f32]) -> Result<()> {
        let inner = self.inner(x)?;
        let ((rows, rank), outputs) = (inner.dims2()?, self.b.dim(0)?);
        read([&inner, self.b], |[inner, b]| {
            let b = match self.packed {
                Some([_, b]) => Rhs::Packed(b),
                None => Rhs::Plain(Mat::transposed(b, rank)),
            };
            gemm((rows, outputs, rank), Mat::rows(inner, rank), b, y, outputs, Start::Continue);
        })
    }

    /// Adds the gradients of `A` and `B` to `da` and `db`, and that of `x` to `dx`, on the CPU in place. What the forward
    /// pass computed inside is computed again: it is small, and keeping it would not be.
    pub fn backward(
        &self,
        x: &Tensor,
        dy: &Tensor,
        dx: Tensor,
        [da, db]: [&mut Tensor; 2],
    ) -> Result<Tensor> {
        let inner = self.inner(x)?;
        if !is_fused(x) {
            add_tensor_to(db, &dy.t()?.matmul(&inner)?)?;
            let dinner = (dy.matmul(self.b)? * f64::from(self.scale))?;
            add_tensor_to(da, &dinner.t()?.matmul(x)?)?;
            return dx + dinner.matmul(self.a)?;
        }
        let ((rows, inputs), (outputs, rank)) = (x.dims2()?, self.b.dims2()?);
        let dinner = filled(x, (rows, rank), |dinner| {
            read([dy, self.b], |[dy, b]| {
                let (dy, b) = (Mat::rows(dy, outputs), Rhs::Plain(Mat::rows(b, rank)));
                gemm((rows, rank, outputs), dy, b, dinner, rank, Start::Zero);
            })?;
            scale(dinner, self.scale);
            Ok(())
        })?;
        read([dy, x, &inner, &dinner, self.a], |[dy, x, inner, dinner, a]| {
            add_to(db, self.b.shape(), |db, start| {
                let (dy, inner) =
                    (Mat::transposed(dy, outputs), Rhs::Plain(Mat::rows(inner, rank)));
                gemm((outputs, rank, rows), dy, inner, db, rank, start);
            })?;
            add_to(da, self.a.shape(), |da, start| {
                let (dinner, x) = (Mat::transposed(dinner, rank), Rhs::Plain(Mat::rows(x, inputs)));
                gemm((rank, inputs, rows), dinner, x, da, inputs, start);
            })?;
            write(&dx, |dx| {
                let (dinner, a) = (Mat::rows(dinner, rank), Rhs::Plain(Mat::rows(a, inputs)));
                gemm((rows, inputs, rank), dinner, a, dx, inputs, Start::Continue);
            })
        })??;
        Ok(dx)
    }
}

/// `W + scale · B · A`: the projection that needs no adapter.
pub fn merge(weight: &Tensor, low: LowRank<'_>) -> Result<Tensor> {
    if !is_fused(weight) {
        return weight + (low.b.matmul(low.a)? * f64::from(low.scale))?;
    }
    let ((outputs, inputs), rank) = (weight.dims2()?, low.a.dim(0)?);
    filled(weight, (outputs, inputs), |merged| {
        read([weight, low.a, low.b], |[weight, a, b]| {
            merged.copy_from_slice(weight);
            let scaled: Vec<f32> = b.iter().map(|b| b * low.scale).collect();
            let (b, a) = (Mat::rows(&scaled, rank), Rhs::Plain(Mat::rows(a, inputs)));
            gemm((outputs, inputs, rank), b, a, merged, inputs, Start::Continue);
        })
    })
}

fn scale(values: &mut [f32], factor: f32) {
    parallel::for_each_chunk(values, parallel::rows_per_task(1), |_, values| {
        values.iter_mut().for_each(|value| *value *= factor);
    });
}
