//! The floating-point operations that sampling and learning a group need.
//!
//! Invariant: pure, and only what the mathematics asks for: `6 · N` a token for weights (forward 2,
//! backward 4) and `12 · width · keys` a row and layer for attention; sampling is the forward third of
//! it. What an implementation computes twice to save memory does not count, so the share of the
//! machine's speed is an honest one.

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

    /// Weights that the row of a sampled token is multiplied with.
    pub fn weights(&self) -> f64 {
        self.layers + self.head
    }

    /// Operations of computing a prompt once, its last row up to the vocabulary.
    pub fn prefill(&self, prompt: usize) -> f64 {
        let prompt = prompt as f64;
        let seen = prompt * (prompt + 1.0) / 2.0;
        2.0 * (self.layers * prompt + self.head) + 4.0 * self.attention * seen
    }

    /// Operations of one more row that sees so many keys, its own among them.
    pub fn decode(&self, keys: usize) -> f64 {
        2.0 * self.weights() + 4.0 * self.attention * keys as f64
    }

    /// Operations of forward and backward for one group: a prompt, and its completions' lengths.
    pub fn learn(&self, prompt: usize, completions: impl IntoIterator<Item = usize>) -> f64 {
        3.0 * self.sample(prompt, completions)
    }

    /// Operations of sampling one group: a prompt, and its completions' lengths.
    pub fn sample(&self, prompt: usize, completions: impl IntoIterator<Item = usize>) -> f64 {
        let mut operations = self.prefill(prompt);
        for length in completions {
            // A completion's last token is only ever predicted.
            let rows = length.saturating_sub(1) as f64;
            let seen = rows * prompt as f64 + rows * (rows + 1.0) / 2.0;
            operations += 2.0 * self.weights() * rows + 4.0 * self.attention * seen;
        }
        operations
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
        // The same group token by token: the prompt, then a row that sees 5 keys and one that sees 6.
        let by_row = cost.prefill(4) + cost.decode(5) + cost.decode(6);
        assert_eq!(by_row, cost.sample(4, [3, 1]));
    }
}
