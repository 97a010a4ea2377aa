//! Low-rank adaptation: which projections have an adapter, of which rank, and how it begins.
//!
//! `y = x · Wᵀ + b + (alpha / rank) · (x · Aᵀ) · Bᵀ` with `A [rank, input]` and `B [output, rank]` (Hu et al. 2021,
//! <https://arxiv.org/abs/2106.09685>); `W` and `b` stay as they are.
//!
//! Invariant: names, shapes and order of an adapter's tensors follow from [`Lora`] and the model's configuration alone,
//! and its first values from these and the seed.

use crate::config::{ModelConfig, TensorSpec};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::de::{Error as _, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::num::NonZeroUsize;

/// What [`Targets`] calls all seven.
pub const ALL_LINEAR: &str = "all-linear";
const EXPECTED: &str =
    "a list of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj, or \"all-linear\"";

/// The shape of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lora {
    /// Rows of `A`, columns of `B`.
    pub rank: NonZeroUsize,
    /// Divided by the rank, what the output is multiplied with: with `alpha` fixed, another rank asks for no other
    /// learning rate.
    pub alpha: f32,
    /// The projections that have one.
    pub targets: Targets,
}

/// An adapter at its beginning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FreshLora {
    /// Its shape.
    pub lora: Lora,
    /// Keys the draws of `A`; `B` is zero.
    pub seed: u64,
}

/// A linear projection of a decoder layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// Back from the heads.
    O,
    /// The gate of the inner layer.
    Gate,
    /// Up to the inner layer.
    Up,
    /// Down from the inner layer.
    Down,
}

/// A set of projections; never empty where it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets(u8);

/// An adapter that a model cannot have.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LoraError {
    /// More rows than there is anything to separate.
    #[error(
        "an adapter's rank: expected at most {most}, the smallest side of the model's target projections, found {found}"
    )]
    Rank {
        /// The smallest side.
        most: usize,
        /// The rank.
        found: usize,
    },
    /// A factor that is no number, or turns the adapter off.
    #[error("an adapter's alpha: expected a finite number above 0, found {found}")]
    Alpha {
        /// What was found.
        found: f32,
    },
}

impl Target {
    /// All seven, in the order of an adapter's tensors.
    pub const ALL: [Self; 7] =
        [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// What people and PEFT call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// Where it lies in a layer.
    fn module(self) -> &'static str {
        match self {
            Self::Q | Self::K | Self::V | Self::O => "self_attn",
            Self::Gate | Self::Up | Self::Down => "mlp",
        }
    }

    /// Output and input.
    fn shape(self, config: &ModelConfig) -> (usize, usize) {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        match self {
            Self::Q => (queries, hidden),
            Self::K | Self::V => (keys, hidden),
            Self::O => (hidden, queries),
            Self::Gate | Self::Up => (inner, hidden),
            Self::Down => (hidden, inner),
        }
    }
}

impl Targets {
    /// Every linear projection of a layer.
    pub const ALL: Self = Self(0x7f);

    /// These.
    pub fn of(targets: impl IntoIterator<Item = Target>) -> Self {
        Self(targets.into_iter().fold(0, |set, target| set | 1 << target as u8))
    }

    /// Whether the projection has an adapter.
    pub fn contains(self, target: Target) -> bool {
        self.0 & 1 << target as u8 != 0
    }

    /// The projections, in order.
    pub fn iter(self) -> impl Iterator<Item = Target> {
        Target::ALL.into_iter().filter(move |target| self.contains(*target))
    }

    /// The projection of that name as a set, or all of them.
    fn named(name: &str) -> Option<Self> {
        if name == ALL_LINEAR {
            return Some(Self::ALL);
        }
        Target::ALL
            .into_iter()
            .find(|target| target.name() == name)
            .map(|target| Self::of([target]))
    }
}

impl Default for Lora {
    /// As "LoRA Without Regret" (Schulman et al. 2025) recommends for reinforcement learning: every linear projection,
    /// alpha 32.
    fn default() -> Self {
        Self { rank: NonZeroUsize::MIN.saturating_add(15), alpha: 32.0, targets: Targets::ALL }
    }
}

impl Lora {
    /// What the adapter's output is multiplied with.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank.get() as f32
    }

    /// Whether a model can have it.
    ///
    /// # Errors
    /// The rank is larger than a side of a projection, or alpha is no factor.
    pub fn check(&self, config: &ModelConfig) -> Result<(), LoraError> {
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(LoraError::Alpha { found: self.alpha });
        }
        let sides = self.targets.iter().map(|target| target.shape(config));
        let most = sides.map(|(output, input)| output.min(input)).min().unwrap_or(0);
        let found = self.rank.get();
        if found > most { Err(LoraError::Rank { most, found }) } else { Ok(()) }
    }

    /// The adapter's tensors: layer by layer, projection by projection, `A` and then `B`.
    pub fn tensor_specs(&self, config: &ModelConfig) -> Vec<TensorSpec> {
        let rank = self.rank.get();
        let mut specs = Vec::new();
        for layer in 0..config.num_hidden_layers {
            for target in self.targets.iter() {
                let (output, input) = target.shape(config);
                for (side, shape) in [("A", [rank, input]), ("B", [output, rank])] {
                    let (module, name) = (target.module(), target.name());
                    let name = format!("model.layers.{layer}.{module}.{name}.lora_{side}.weight");
                    specs.push(TensorSpec { name, shape: shape.to_vec() });
                }
            }
        }
        specs
    }

    /// Elements of an adapter in all.
    pub fn param_count(&self, config: &ModelConfig) -> usize {
        self.tensor_specs(config).iter().map(TensorSpec::len).sum()
    }
}

impl FreshLora {
    /// The first values of every tensor: `A` uniform in `±1 / √input`, as PEFT begins (Kaiming with `a = √5`), `B` zero,
    /// so that the adapted model is the base. What a projection's `A` is depends on no other projection.
    pub fn values(&self, config: &ModelConfig) -> Vec<Vec<f32>> {
        let mut values = Vec::new();
        for layer in 0..config.num_hidden_layers as u32 {
            for target in self.lora.targets.iter() {
                let (output, input) = target.shape(config);
                let rank = self.lora.rank.get();
                values.push(self.drawn(layer, target, rank * input, input));
                values.push(vec![0.0; output * rank]);
            }
        }
        values
    }

    fn drawn(&self, layer: u32, target: Target, count: usize, input: usize) -> Vec<f32> {
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..12].copy_from_slice(&layer.to_le_bytes());
        key[12] = target as u8;
        key[26..].copy_from_slice(b"lora-a");
        let mut random = ChaCha8Rng::from_seed(key);
        let bound = 1.0 / (input as f32).sqrt();
        // On a grid of 2⁻²³ between -1 and 1, both ends left out.
        let mut draw = || (2.0 * (random.next_u32() >> 9) as f32 + 1.0) / (1 << 23) as f32 - 1.0;
        (0..count).map(|_| draw() * bound).collect()
    }
}

impl Serialize for Targets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // One form for one set, so that a digest does not depend on how it was written.
        match *self {
            Self::ALL => serializer.serialize_str(ALL_LINEAR),
            some => serializer.collect_seq(some.iter().map(Target::name)),
        }
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Clone, Copy)]
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Targets;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }
            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Targets, E> {
                Targets::named(name).ok_or_else(|| E::invalid_value(Unexpected::Str(name), &self))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Targets, A::Error> {
                let mut set = 0;
                while let Some(name) = names.next_element::<String>()? {
                    set |= self.visit_str::<A::Error>(&name)?.0;
                }
                match set {
                    0 => Err(A::Error::invalid_length(0, &EXPECTED)),
                    set => Ok(Targets(set)),
                }
            }
        }
        deserializer.deserialize_any(Names)
    }
}

#[cfg(test)]
mod tests;
