//! A GGUF file's settings as the `config.json` of a Hugging Face directory.
//!
//! Invariant: the result went through the same checks as a `config.json`; a setting of the file that
//! changes the computation and is not translated is refused.

use serde_json::{Map, Value, json};

use super::Gguf;
use crate::config::{Architecture, Llama3Scaling, ModelConfig, Rope};
use crate::files::FilesError;

/// The tensor with one divisor for each rotary frequency, where Llama 3's scaling is baked in.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

impl Gguf {
    /// The model's configuration.
    ///
    /// # Errors
    /// A setting that is missing, or that this crate does not compute.
    pub fn config(&self) -> Result<ModelConfig, FilesError> {
        let mut config = ModelConfig::from_value(self.config_json()?, &self.path)?;
        config.eos_token_ids = self.ends()?;
        Ok(config)
    }

    /// The family of the model.
    pub(super) fn architecture(&self) -> Result<Architecture, FilesError> {
        let found = self.text("general.architecture")?.unwrap_or("no such key");
        Architecture::from_model_type(found).ok_or_else(|| {
            let expected = "`general.architecture` to be llama, qwen2 or qwen3";
            self.format(
                expected,
                format!("{found}; octet does not compute it: choose another model"),
            )
        })
    }

    fn config_json(&self) -> Result<Value, FilesError> {
        let architecture = self.architecture()?;
        let key = |rest: &str| format!("{}.{rest}", architecture.model_type());
        let size = |rest: &str| {
            let key = key(rest);
            self.number(&key)?.ok_or_else(|| self.mistyped(&key, "a whole number"))
        };
        let hidden = size("embedding_length")?;
        let heads = size("attention.head_count")?;
        let head_dim = match self.number(&key("attention.key_length"))? {
            Some(size) => size,
            None if heads > 0 => hidden / heads,
            None => return Err(self.format("at least one attention head", "0")),
        };
        let must_be = |rest: &str, expected: u64| match self.number(&key(rest))? {
            Some(found) if found != expected => {
                Err(self.format(format!("`{}` to be {expected}", key(rest)), found.to_string()))
            }
            _ => Ok(()),
        };
        must_be("attention.value_length", head_dim)?;
        must_be("rope.dimension_count", head_dim)?;
        must_be("expert_count", 0)?;
        let embedding = self.content.tensor_infos.get("token_embd.weight");
        let embedding = embedding
            .ok_or_else(|| self.format("the tensor `token_embd.weight`", "no such tensor"))?;
        let vocabulary = embedding.shape.dims().first().copied().unwrap_or_default();
        let theta = self.float(&key("rope.freq_base"))?.unwrap_or(10_000.0);
        let mut config = json!({
            "architectures": [architecture.class()],
            "model_type": architecture.model_type(),
            "hidden_act": "silu",
            "vocab_size": vocabulary,
            "hidden_size": hidden,
            "intermediate_size": size("feed_forward_length")?,
            "num_hidden_layers": size("block_count")?,
            "num_attention_heads": heads,
            "num_key_value_heads": self.number(&key("attention.head_count_kv"))?.unwrap_or(heads),
            "head_dim": head_dim,
            "rms_norm_eps": self.float(&key("attention.layer_norm_rms_epsilon"))?,
            "rope_theta": theta,
            "max_position_embeddings": size("context_length")?,
            "tie_word_embeddings": !self.has("output.weight"),
            "attention_bias": self.has("blk.0.attn_q.bias"),
            "torch_dtype": "float32",
        });
        if let Some(kind) = self.text(&key("rope.scaling.type"))?.filter(|kind| *kind != "none") {
            config["rope_scaling"] = json!({"rope_type": kind});
        }
        if self.has(ROPE_FACTORS) {
            let scaling = self.rope_scaling(theta, head_dim as usize)?;
            config["rope_scaling"] = json!({
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_position_embeddings as u64,
            });
        }
        let ids = [
            ("bos_token_id", "tokenizer.ggml.bos_token_id"),
            ("eos_token_id", "tokenizer.ggml.eos_token_id"),
            ("pad_token_id", "tokenizer.ggml.padding_token_id"),
        ];
        for (key, from) in ids {
            if let Some(id) = self.number(from)? {
                config[key] = id.into();
            }
        }
        Ok(config)
    }

    /// The scaling whose divisors the file holds.
    fn rope_scaling(&self, theta: f64, head_dim: usize) -> Result<Llama3Scaling, FilesError> {
        let divisors = self.dequantised(ROPE_FACTORS)?;
        llama3_scaling(&divisors, theta, head_dim).ok_or_else(|| {
            self.format(
                format!("`{ROPE_FACTORS}` to be Llama 3's scaling, of frequency factors 1 and 4"),
                "other divisors; octet does not compute them",
            )
        })
    }

    /// A `generation_config.json` with every token that ends a completion.
    pub(super) fn generation_json(&self) -> Result<Value, FilesError> {
        let mut config = Map::new();
        config.insert("eos_token_id".into(), self.ends()?.into());
        Ok(config.into())
    }

    pub(super) fn has(&self, tensor: &str) -> bool {
        self.content.tensor_infos.contains_key(tensor)
    }
}

/// Finds the original context that explains the divisors of the frequencies: the one thing that Llama 3's
/// scaling leaves open once the largest divisor is known.
fn llama3_scaling(divisors: &[f32], theta: f64, head_dim: usize) -> Option<Llama3Scaling> {
    let factor = divisors.iter().copied().fold(1.0, f32::max);
    let plain = Rope { theta, scaling: None }.frequencies(head_dim);
    let explains = |scaling: &Llama3Scaling| {
        let scaled = Rope { theta, scaling: Some(scaling.clone()) }.frequencies(head_dim);
        divisors.len() == plain.len()
            && plain.iter().zip(&scaled).zip(divisors).all(|((plain, scaled), divisor)| {
                (plain / scaled - f64::from(*divisor)).abs() < 1e-3 * f64::from(*divisor)
            })
    };
    // The published contexts first; any power of two otherwise.
    let contexts = std::iter::once(8192).chain((4..=20).map(|power| 1 << power));
    let candidates = contexts.map(|context| Llama3Scaling {
        factor: f64::from(factor),
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: f64::from(context),
    });
    candidates.into_iter().find(explains)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_scaling_is_found_again_from_its_divisors() {
        for (factor, original, theta, dim) in
            [(8.0, 8192.0, 500_000.0, 128), (32.0, 8192.0, 500_000.0, 64), (8.0, 64.0, 1e4, 24)]
        {
            let scaling = Llama3Scaling {
                factor,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: original,
            };
            let plain = Rope { theta, scaling: None }.frequencies(dim);
            let scaled = Rope { theta, scaling: Some(scaling.clone()) }.frequencies(dim);
            let mut divisors: Vec<f32> =
                plain.iter().zip(scaled).map(|(p, s)| (p / s) as f32).collect();
            assert_eq!(llama3_scaling(&divisors, theta, dim).unwrap(), scaling);
            divisors[dim / 4] *= 1.1;
            assert_eq!(llama3_scaling(&divisors, theta, dim), None);
            assert_eq!(llama3_scaling(&divisors[1..], theta, dim), None);
        }
    }
}
