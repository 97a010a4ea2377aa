//! The language model: one implementation for prefill, decoding and learning.
//!
//! Invariant: a token's hidden state is computed by [`Model::run`] and nothing else, from its own prefix
//! and suffix alone.

mod block;
mod learn;
mod params;
mod weights;

pub use learn::{Keep, Learned};
pub use params::{Params, bytes, from_bytes, le_bytes};

use crate::config::ModelConfig;
use crate::kernel::attention::Heads;
use crate::kernel::panels::Panels;
use crate::layout::PackedGroups;
use crate::ops::{self, Projection, RopeTable, linear, rms_norm};
pub(crate) use block::Attend;
use block::{Packed, Pass};
use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;
use weights::WeightIndex;

/// A decoder of the Qwen2, Qwen3 or Llama family.
#[derive(Clone, Debug)]
pub struct Model {
    config: ModelConfig,
    params: Params,
    index: WeightIndex,
    rope: RopeTable,
    /// Weights packed for many reads; `None` while they may change.
    packed: Option<Vec<Option<Panels>>>,
}

impl Model {
    /// A model with these weights; all tensors have one dtype and device.
    pub fn new(config: ModelConfig, params: Params) -> Result<Self> {
        let index = WeightIndex::new(&config)?;
        let frequencies = config.rope.frequencies(config.head_dim);
        let like = &params.tensors()[index.norm];
        let rope = RopeTable::new(&frequencies, config.max_position_embeddings, like)?;
        Ok(Self { config, params, index, rope, packed: None })
    }

    /// The same model with weights of another type or on another device.
    pub fn to(&self, dtype: DType, device: &Device) -> Result<Self> {
        Self::new(self.config.clone(), self.params.to(dtype, device)?)
    }

    /// Takes other weights of the same shapes, type and device.
    pub fn replace(&mut self, params: Params) {
        (self.params, self.packed) = (params, None);
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The weights. Writing to them makes a packed model stale: call [`Model::freeze`] again.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Packs the weights once for many products: for sampling. Changes no bit of any result.
    pub fn freeze(&mut self) -> Result<()> {
        if !self.is_fused() {
            return Ok(());
        }
        let mut packed: Vec<Option<Panels>> = self.params.tensors().iter().map(|_| None).collect();
        let projections: Vec<usize> = self.index.projections().collect();
        let made = projections.par_iter().map(|&i| Ok((i, ops::pack(&self.params.tensors()[i])?)));
        for (i, panels) in made.collect::<Result<Vec<_>>>()? {
            packed[i] = Some(panels);
        }
        self.packed = Some(packed);
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

    fn pass<'a>(&'a self, positions: &'a [u32]) -> Result<Pass<'a>> {
        let limit = self.config.max_position_embeddings;
        if let Some(&far) = positions.iter().find(|&&p| p as usize >= limit) {
            candle_core::bail!("position {far} is past the model's context of {limit} tokens");
        }
        Ok(Pass {
            params: &self.params,
            packed: self.packed.as_deref(),
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
        }
    }

    /// Logits of every row of packed groups: `[rows, vocabulary]`. For tests and small inputs.
    pub fn all_logits(&self, groups: &PackedGroups) -> Result<Tensor> {
        let mut attend = Packed { groups: &groups.groups, heads: self.heads(), kept: None };
        let x = self.run(&groups.tokens, &groups.positions, &mut attend)?;
        self.logits(&x)
    }
}
