//! Where gradients go: to all weights, or to an adapter's tensors alone.
//!
//! Invariant: what is not trained has no accumulator, so its gradient is neither stored nor computed.

use super::adapter::Adapter;
use super::{Model, Params};
use crate::lora::Target;
use crate::ops::LowRank;
use candle_core::{Result, Tensor};

/// The accumulators of a learning pass.
pub(super) struct Gradients<'a> {
    params: &'a mut Params,
    adapter: Option<&'a Adapter>,
}

/// The accumulators of a projection's own tensors.
pub(super) type OfProjection<'a> = (Option<&'a mut Tensor>, Option<&'a mut Tensor>);

impl<'a> Gradients<'a> {
    /// Of what `model` trains.
    pub fn of(model: &'a Model, params: &'a mut Params) -> Result<Self> {
        if params.specs() != model.trained().specs() {
            candle_core::bail!(
                "expected gradients of the {} tensors that are trained, found {} tensors",
                model.trained().specs().len(),
                params.specs().len()
            );
        }
        Ok(Self { params, adapter: model.adapter.as_ref() })
    }

    /// Of a weight of the model.
    pub fn weight(&mut self, at: usize) -> Option<&mut Tensor> {
        match self.adapter {
            None => Some(&mut self.params.tensors_mut()[at]),
            Some(_) => None,
        }
    }

    /// Of a projection's weight and bias.
    pub fn projection(&mut self, weight: usize, bias: Option<usize>) -> Result<OfProjection<'_>> {
        let Some(bias) = bias.filter(|_| self.adapter.is_none()) else {
            return Ok((self.weight(weight), None));
        };
        match self.params.tensors_mut().get_disjoint_mut([weight, bias]) {
            Ok([dw, db]) => Ok((Some(dw), Some(db))),
            Err(_) => candle_core::bail!("weight {weight} and bias {bias} are not two tensors"),
        }
    }

    /// The adapter of a projection, and the accumulators of its `A` and `B`.
    pub fn low_rank(
        &mut self,
        layer: usize,
        target: Target,
    ) -> Option<(LowRank<'a>, [&mut Tensor; 2])> {
        let adapter = self.adapter?;
        let (low, at) = (adapter.low_rank(layer, target)?, adapter.place(layer, target)?);
        match self.params.tensors_mut().get_disjoint_mut([at, at + 1]) {
            Ok(both) => Some((low, both)),
            Err(_) => None,
        }
    }
}
