//! The floating-point operations that learning a group needs.
//!
//! Invariant: pure, and only what the mathematics asks for: `6 · N` a token for weights (forward 2,
//! backward 4) and `12 · width · keys` a row and layer for attention. What an implementation computes
//! twice to save memory does not count, so the share of the machine's speed is an honest one.

use octet_policy::config::ModelConfig;

/// What a model costs, by its shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelCost {
    /// Weights of all layers that rows are multiplied with.
    layers: f64,
    /// Weights of the output head.
    head: f64,
    /// Width of all query heads, times the layers.
    attention: f64,
}

impl ModelCost {
    /// The cost of a model.
    pub fn new(config: &ModelConfig) -> Self {
        let size = |value: usize| value as f64;
        let hidden = size(config.hidden_size);
        let queries = size(config.num_attention_heads * config.head_dim);
        let keys = size(config.num_key_value_heads * config.head_dim);
        let layers = size(config.num_hidden_layers);
        let attention = hidden * (2.0 * queries + 2.0 * keys);
        Self {
            layers: layers * (attention + 3.0 * hidden * size(config.intermediate_size)),
            head: hidden * size(config.vocab_size),
            attention: layers * queries,
        }
    }

    /// Operations of forward and backward for one group: a prompt, and its completions' lengths.
    pub fn learn(&self, prompt: usize, completions: impl IntoIterator<Item = usize>) -> f64 {
        let prompt = prompt as f64;
        let (mut rows, mut predicting, mut seen) = (prompt, 1.0, prompt * (prompt + 1.0) / 2.0);
        for length in completions {
            // A completion's last token is only ever predicted.
            let read = length.saturating_sub(1) as f64;
            rows += read;
            predicting += read;
            seen += read * prompt + read * (read + 1.0) / 2.0;
        }
        6.0 * (self.layers * rows + self.head * predicting) + 12.0 * self.attention * seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_by_hand() {
        let cost = ModelCost { layers: 100.0, head: 10.0, attention: 3.0 };
        // Prompt 4, completions of 3 and 1: rows 4 + 2 + 0, predicting 1 + 2 + 0, and seen keys
        // 1 + 2 + 3 + 4 in the prompt, 5 + 6 in the first completion.
        assert_eq!(cost.learn(4, [3, 1]), 6.0 * (600.0 + 30.0) + 12.0 * 3.0 * 21.0);
        assert_eq!(cost.learn(1, []), 6.0 * 110.0 + 36.0);
    }
}
