//! The tensors that a configuration promises, under their Hugging Face names.
//!
//! Invariant: the list is complete and in a fixed order, so it serves loading, saving, the
//! optimiser's state and the published manifest alike.

use super::ModelConfig;

/// Name and shape of one weight tensor. Matrices are `[output, input]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorSpec {
    /// The Hugging Face name.
    pub name: String,
    /// Rows first.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True for a tensor without elements; a validated configuration has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ModelConfig {
    /// Every weight tensor: the embedding, the layers in order, the last norm, an untied head.
    pub fn tensor_specs(&self) -> Vec<TensorSpec> {
        let hidden = self.hidden_size;
        let queries = self.num_attention_heads * self.head_dim;
        let keys = self.num_key_value_heads * self.head_dim;
        let inner = self.intermediate_size;
        let mut specs = Vec::new();
        let mut add = |name: String, shape: &[usize]| {
            specs.push(TensorSpec { name, shape: shape.to_vec() });
        };
        add("model.embed_tokens.weight".into(), &[self.vocab_size, hidden]);
        for layer in 0..self.num_hidden_layers {
            let at = |rest: &str| format!("model.layers.{layer}.{rest}");
            add(at("input_layernorm.weight"), &[hidden]);
            for (projection, rows) in [("q", queries), ("k", keys), ("v", keys)] {
                add(at(&format!("self_attn.{projection}_proj.weight")), &[rows, hidden]);
                if self.qkv_bias {
                    add(at(&format!("self_attn.{projection}_proj.bias")), &[rows]);
                }
            }
            if self.qk_norm {
                add(at("self_attn.q_norm.weight"), &[self.head_dim]);
                add(at("self_attn.k_norm.weight"), &[self.head_dim]);
            }
            add(at("self_attn.o_proj.weight"), &[hidden, queries]);
            if self.output_bias {
                add(at("self_attn.o_proj.bias"), &[hidden]);
            }
            add(at("post_attention_layernorm.weight"), &[hidden]);
            add(at("mlp.gate_proj.weight"), &[inner, hidden]);
            add(at("mlp.up_proj.weight"), &[inner, hidden]);
            add(at("mlp.down_proj.weight"), &[hidden, inner]);
        }
        add("model.norm.weight".into(), &[hidden]);
        if !self.tie_word_embeddings {
            add("lm_head.weight".into(), &[self.vocab_size, hidden]);
        }
        specs
    }

    /// Number of parameters, a tied head counted once.
    pub fn param_count(&self) -> usize {
        self.tensor_specs().iter().map(TensorSpec::len).sum()
    }
}
