//! Where each weight of each layer stands among the parameters.
//!
//! Invariant: indices follow `ModelConfig::tensor_specs`, looked up by name once.

use crate::config::{ModelConfig, TensorSpec};
use crate::lora::Target;

/// A projection: its weight, and its bias where the model has one.
pub(super) type Linear = (usize, Option<usize>);

/// Parameters of one decoder layer.
#[derive(Clone, Debug)]
pub(super) struct LayerIndex {
    pub input_norm: usize,
    pub q: Linear,
    pub k: Linear,
    pub v: Linear,
    pub o: Linear,
    pub q_norm: Option<usize>,
    pub k_norm: Option<usize>,
    pub middle_norm: usize,
    pub gate: usize,
    pub up: usize,
    pub down: usize,
}

impl LayerIndex {
    /// The weight of a projection.
    pub fn weight(&self, target: Target) -> usize {
        match target {
            Target::Q => self.q.0,
            Target::K => self.k.0,
            Target::V => self.v.0,
            Target::O => self.o.0,
            Target::Gate => self.gate,
            Target::Up => self.up,
            Target::Down => self.down,
        }
    }
}

/// All parameters by role.
#[derive(Clone, Debug)]
pub(super) struct WeightIndex {
    pub embedding: usize,
    pub layers: Vec<LayerIndex>,
    pub norm: usize,
    /// The embedding again, when tied.
    pub head: usize,
}

impl WeightIndex {
    pub fn new(config: &ModelConfig) -> candle_core::Result<Self> {
        let specs = config.tensor_specs();
        let find = |name: &str| specs.iter().position(|s: &TensorSpec| s.name == name);
        let need = |name: String| match find(&name) {
            Some(at) => Ok(at),
            None => candle_core::bail!("a {:?} model has no tensor {name}", config.architecture),
        };
        let layer = |i: usize| -> candle_core::Result<LayerIndex> {
            let at = |rest: &str| format!("model.layers.{i}.{rest}");
            let linear = |name: &str| -> candle_core::Result<Linear> {
                let name = format!("self_attn.{name}_proj");
                Ok((need(at(&format!("{name}.weight")))?, find(&at(&format!("{name}.bias")))))
            };
            Ok(LayerIndex {
                input_norm: need(at("input_layernorm.weight"))?,
                q: linear("q")?,
                k: linear("k")?,
                v: linear("v")?,
                o: linear("o")?,
                q_norm: find(&at("self_attn.q_norm.weight")),
                k_norm: find(&at("self_attn.k_norm.weight")),
                middle_norm: need(at("post_attention_layernorm.weight"))?,
                gate: need(at("mlp.gate_proj.weight"))?,
                up: need(at("mlp.up_proj.weight"))?,
                down: need(at("mlp.down_proj.weight"))?,
            })
        };
        let embedding = need("model.embed_tokens.weight".into())?;
        Ok(Self {
            embedding,
            layers: (0..config.num_hidden_layers).map(layer).collect::<candle_core::Result<_>>()?,
            norm: need("model.norm.weight".into())?,
            head: find("lm_head.weight").unwrap_or(embedding),
        })
    }

    /// Weights that only linear projections read: worth packing.
    pub fn projections(&self) -> impl Iterator<Item = usize> {
        let layers =
            self.layers.iter().flat_map(|l| [l.q.0, l.k.0, l.v.0, l.o.0, l.gate, l.up, l.down]);
        layers.chain(std::iter::once(self.head))
    }
}
