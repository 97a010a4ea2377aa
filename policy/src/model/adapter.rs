//! An adapter beside a model's weights: which of its tensors belong to which projection.
//!
//! Invariant: tensor `i` is `lora.tensor_specs(config)[i]`; a projection's `B` follows its `A`.

use super::Params;
use crate::config::{ModelConfig, TensorSpec};
use crate::kernel::panels::Panels;
use crate::lora::{Lora, Target};
use crate::ops::{self, LowRank};
use candle_core::Result;
use std::sync::Arc;

/// A low-rank adapter. Clones share the tensors.
#[derive(Clone, Debug)]
pub(super) struct Adapter {
    lora: Lora,
    params: Params,
    /// Where the `A` of a layer's projection is.
    places: Arc<[[Option<usize>; Target::ALL.len()]]>,
    /// All tensors, packed for many products.
    packed: Option<Arc<[Panels]>>,
}

impl Adapter {
    /// Takes tensors in the order of [`Lora::tensor_specs`].
    pub fn new(config: &ModelConfig, lora: Lora, params: Params) -> Result<Self> {
        lora.check(config).map_err(candle_core::Error::wrap)?;
        let expected = lora.tensor_specs(config);
        if params.specs() != expected {
            let named = |specs: &[TensorSpec]| specs.first().map(|spec| spec.name.clone());
            candle_core::bail!(
                "expected the {} tensors of an adapter of rank {}, the first {:?}, found {}, the first {:?}",
                expected.len(),
                lora.rank,
                named(&expected),
                params.specs().len(),
                named(params.specs())
            );
        }
        let mut next = 0;
        let places = (0..config.num_hidden_layers).map(|_| {
            Target::ALL.map(|target| {
                let place = lora.targets.contains(target).then_some(next);
                next += if place.is_some() { 2 } else { 0 };
                place
            })
        });
        Ok(Self { lora, places: places.collect(), params, packed: None })
    }

    pub fn lora(&self) -> &Lora {
        &self.lora
    }

    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Other values of the same shapes.
    pub fn replace(&mut self, params: Params) {
        (self.params, self.packed) = (params, None);
    }

    /// Packs the tensors once for many products.
    pub fn freeze(&mut self) -> Result<()> {
        self.packed = Some(self.params.tensors().iter().map(ops::pack).collect::<Result<_>>()?);
        Ok(())
    }

    /// Where the `A` of a projection is, if it has an adapter.
    pub fn place(&self, layer: usize, target: Target) -> Option<usize> {
        self.places[layer][target as usize]
    }

    /// What is added to a projection's product, if anything.
    pub fn low_rank(&self, layer: usize, target: Target) -> Option<LowRank<'_>> {
        let at = self.place(layer, target)?;
        let tensors = self.params.tensors();
        Some(LowRank {
            a: &tensors[at],
            b: &tensors[at + 1],
            scale: self.lora.scale(),
            packed: self.packed.as_deref().map(|packed| [&packed[at], &packed[at + 1]]),
        })
    }
}
