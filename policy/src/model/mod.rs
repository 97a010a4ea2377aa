//! The language model: one implementation for prefill, decoding and learning.
//!
//! Invariant: a token's hidden state is computed by [`Model::run`] and nothing else, from its own prefix
//! and suffix alone.

mod adapter;
mod block;
mod context;
mod gradients;
mod learn;
mod params;
mod weights;

pub use learn::{Keep, Learned};
pub use params::{Params, bytes, from_bytes, le_bytes};

use crate::config::ModelConfig;
use crate::kernel::attention::Heads;
use crate::kernel::panels::Panels;
use crate::layout::PackedGroups;
use crate::lora::{FreshLora, Lora, Target};
use crate::ops::{self, Projection, RopeTable, linear, rms_norm};
use adapter::Adapter;
pub(crate) use block::Attend;
use block::{Packed, Pass};
use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;
use std::sync::Arc;
use weights::WeightIndex;

/// A decoder of the Qwen2, Qwen3 or Llama family, with or without a low-rank adapter. Clones share the tensors.
#[derive(Clone, Debug)]
pub struct Model {
    config: ModelConfig,
    /// Before all other tensors, whose device's context is current once these are dropped.
    params: Params,
    index: WeightIndex,
    rope: RopeTable,
    /// Weights packed for many reads; `None` while they may change.
    packed: Option<Arc<[Option<Panels>]>>,
    /// What is trained instead of the weights.
    adapter: Option<Adapter>,
}

impl Model {
    /// A model with these weights; all tensors have one dtype and device.
    pub fn new(config: ModelConfig, params: Params) -> Result<Self> {
        let index = WeightIndex::new(&config)?;
        let frequencies = config.rope.frequencies(config.head_dim);
        let like = &params.tensors()[index.norm];
        let rope = RopeTable::new(&frequencies, config.max_position_embeddings, like)?;
        Ok(Self { config, params, index, rope, packed: None, adapter: None })
    }

    /// The same model with weights of another type or on another device.
    pub fn to(&self, dtype: DType, device: &Device) -> Result<Self> {
        let moved = Self::new(self.config.clone(), self.params.to(dtype, device)?)?;
        match &self.adapter {
            None => Ok(moved),
            Some(adapter) => moved.with_lora(*adapter.lora(), adapter.params().to(dtype, device)?),
        }
    }

    /// With an adapter, instead of one that it may have; its tensors are in the order of [`Lora::tensor_specs`] and
    /// have the model's type and device.
    ///
    /// # Errors
    /// The adapter is none of this model.
    pub fn with_lora(self, lora: Lora, params: Params) -> Result<Self> {
        let adapter = Some(Adapter::new(&self.config, lora, params)?);
        Ok(Self { adapter, ..self })
    }

    /// With an adapter at its beginning, which changes no output yet.
    ///
    /// # Errors
    /// The model cannot have it.
    pub fn with_fresh_lora(self, fresh: &FreshLora) -> Result<Self> {
        fresh.lora.check(&self.config).map_err(candle_core::Error::wrap)?;
        let specs = fresh.lora.tensor_specs(&self.config);
        let (dtype, device) = self.kind();
        let params = Params::of_vecs(specs, fresh.values(&self.config), dtype, &device)?;
        self.with_lora(fresh.lora, params)
    }

    /// The model without its adapter. The weights are shared, not copied.
    #[must_use]
    pub fn base(&self) -> Self {
        Self { adapter: None, ..self.clone() }
    }

    /// The model whose weights have taken the adapter in, `W + scale · B · A`. Without one, the model.
    ///
    /// # Errors
    /// The computation itself.
    pub fn merged(&self) -> Result<Self> {
        let Some(adapter) = &self.adapter else { return Ok(self.clone()) };
        let mut tensors = self.params.tensors().to_vec();
        for (layer, at) in self.index.layers.iter().enumerate() {
            for target in Target::ALL {
                let Some(low) = adapter.low_rank(layer, target) else { continue };
                let weight = &mut tensors[at.weight(target)];
                *weight = ops::merge(weight, low)?;
            }
        }
        Self::new(self.config.clone(), Params::new(&self.config, tensors)?)
    }

    /// Takes other values of what is trained, of the same shapes, type and device.
    pub fn replace(&mut self, trained: Params) {
        match &mut self.adapter {
            None => (self.params, self.packed) = (trained, None),
            Some(adapter) => adapter.replace(trained),
        }
    }

    /// The model with other values of what is trained. All else is shared.
    #[must_use]
    pub fn with_trained(&self, trained: Params) -> Self {
        let mut model = self.clone();
        model.replace(trained);
        model
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The weights, without an adapter. Writing to them makes a packed model stale: call [`Model::freeze`] again.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// What is trained, committed and published: the adapter where there is one, and else the weights. Writing to it makes
    /// a packed model stale.
    pub fn trained(&self) -> &Params {
        self.adapter.as_ref().map_or(&self.params, Adapter::params)
    }

    /// The shape of its adapter, if it has one.
    pub fn lora(&self) -> Option<&Lora> {
        self.adapter.as_ref().map(Adapter::lora)
    }

    /// Packs the weights once for many products: for sampling. Changes no bit of any result. The weights below an adapter
    /// do not change: those that are packed stay so, and clones share them.
    pub fn freeze(&mut self) -> Result<()> {
        if !self.is_fused() {
            return Ok(());
        }
        if let Some(adapter) = &mut self.adapter {
            adapter.freeze()?;
            if self.packed.is_some() {
                return Ok(());
            }
        }
        let mut packed: Vec<Option<Panels>> = self.params.tensors().iter().map(|_| None).collect();
        let projections: Vec<usize> = self.index.projections().collect();
        let made = projections.par_iter().map(|&i| Ok((i, ops::pack(&self.params.tensors()[i])?)));
        for (i, panels) in made.collect::<Result<Vec<_>>>()? {
            packed[i] = Some(panels);
        }
        self.packed = Some(packed.into());
        Ok(())
    }

    /// Heads of the attention layers.
    pub fn heads(&self) -> Heads {
        Heads {
            queries: self.config.num_attention_heads,
            keys: self.config.num_key_value_heads,
            dim: self.config.head_dim,
        }
    }

    /// Whether the fused CPU kernels compute this model.
    pub fn is_fused(&self) -> bool {
        ops::access::is_fused(&self.params.tensors()[self.index.norm])
    }

    /// What it computes with, and where.
    pub fn kind(&self) -> (DType, Device) {
        let like = &self.params.tensors()[self.index.norm];
        (like.dtype(), like.device().clone())
    }

    fn pass<'a>(&'a self, positions: &'a [u32]) -> Result<Pass<'a>> {
        let limit = self.config.max_position_embeddings;
        if let Some(&far) = positions.iter().find(|&&p| p as usize >= limit) {
            candle_core::bail!("position {far} is past the model's context of {limit} tokens");
        }
        Ok(Pass {
            params: &self.params,
            packed: self.packed.as_deref(),
            adapter: self.adapter.as_ref(),
            heads: self.heads(),
            eps: self.config.rms_norm_eps,
            rope: &self.rope,
            positions,
        })
    }

    /// Token ids to hidden states before the last norm: `[rows, hidden]`.
    fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        if let Some(&id) = tokens.iter().find(|&&id| id as usize >= self.config.vocab_size) {
            candle_core::bail!(
                "token {id} is outside the vocabulary of {}",
                self.config.vocab_size
            );
        }
        ops::embed(&self.params.tensors()[self.index.embedding], tokens)
    }

    /// All layers, activations dropped: `[rows, hidden]` before the last norm.
    pub(crate) fn run(
        &self,
        tokens: &[u32],
        positions: &[u32],
        attend: &mut impl Attend,
    ) -> Result<Tensor> {
        let pass = self.pass(positions)?;
        let mut x = self.embed(tokens)?;
        for (layer, at) in self.index.layers.iter().enumerate() {
            x = block::forward(&pass, at, layer, x, attend)?.0;
        }
        Ok(x)
    }

    /// Logits of some rows of [`Model::run`]'s result: `[rows, vocabulary]`.
    pub(crate) fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let norm = &self.params.tensors()[self.index.norm];
        let (normed, _) = rms_norm(x, norm, self.config.rms_norm_eps)?;
        linear(&normed, self.head())
    }

    fn head(&self) -> Projection<'_> {
        Projection {
            weight: &self.params.tensors()[self.index.head],
            bias: None,
            packed: self.packed.as_ref().and_then(|p| p[self.index.head].as_ref()),
            adapter: None,
        }
    }

    /// Logits of every row of packed groups: `[rows, vocabulary]`. For tests and small inputs.
    pub fn all_logits(&self, groups: &PackedGroups) -> Result<Tensor> {
        let mut attend = Packed { groups: &groups.groups, heads: self.heads(), kept: None };
        let x = self.run(&groups.tokens, &groups.positions, &mut attend)?;
        self.logits(&x)
    }
}
