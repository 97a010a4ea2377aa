//! The floating-point operations that sampling and learning a group need.
//!
//! Invariant: pure, and only what the mathematics asks for: `6 · N` a token for weights (forward 2,
//! backward 4; without their gradients backward 2) and `12 · width · keys` a row and layer for attention; sampling is
//! the forward share of it. What an implementation computes twice to save memory does not count, so the share of the
//! machine's speed is an honest one.

use octet_policy::config::ModelConfig;
use octet_policy::lora::Lora;

/// What a model costs, by its shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelCost {
    /// Weights of all layers that rows are multiplied with.
    layers: f64,
    /// Weights of the output head.
    head: f64,
    /// Width of all query heads, times the layers.
    attention: f64,
    /// Weights of an adapter, where that is trained instead of the others.
    adapter: Option<f64>,
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
            adapter: None,
        }
    }

    /// The cost of a model of which an adapter is trained.
    pub fn adapted(config: &ModelConfig, lora: &Lora) -> Self {
        Self { adapter: Some(lora.param_count(config) as f64), ..Self::new(config) }
    }

    /// Weights that the row of a sampled token is multiplied with.
    pub fn weights(&self) -> f64 {
        self.layers() + self.head
    }

    fn layers(&self) -> f64 {
        self.layers + self.adapter.unwrap_or(0.0)
    }

    /// Operations of computing a prompt once, its last row up to the vocabulary.
    pub fn prefill(&self, prompt: usize) -> f64 {
        let prompt = prompt as f64;
        let seen = prompt * (prompt + 1.0) / 2.0;
        2.0 * (self.layers() * prompt + self.head) + 4.0 * self.attention * seen
    }

    /// Operations of one more row that sees so many keys, its own among them.
    pub fn decode(&self, keys: usize) -> f64 {
        2.0 * self.weights() + 4.0 * self.attention * keys as f64
    }

    /// Operations of forward and backward for one group: a prompt, and its completions' lengths.
    pub fn learn(&self, prompt: usize, completions: impl IntoIterator<Item = usize>) -> f64 {
        let lengths: Vec<usize> = completions.into_iter().collect();
        let all = 3.0 * self.sample(prompt, lengths.iter().copied());
        if self.adapter.is_none() {
            return all;
        }
        // Weights that are not trained want no gradient: 2 operations a row less.
        let rows: f64 = lengths.iter().map(|length| length.saturating_sub(1) as f64).sum();
        let frozen = self.layers * (prompt as f64 + rows) + self.head * (1.0 + rows);
        all - 2.0 * frozen
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
        let cost = ModelCost { layers: 100.0, head: 10.0, attention: 3.0, adapter: None };
        // Prompt 4, completions of 3 and 1: rows 4 + 2 + 0, predicting 1 + 2 + 0, and seen keys
        // 1 + 2 + 3 + 4 in the prompt, 5 + 6 in the first completion.
        assert_eq!(cost.learn(4, [3, 1]), 6.0 * (600.0 + 30.0) + 12.0 * 3.0 * 21.0);
        assert_eq!(cost.learn(1, []), 6.0 * 110.0 + 36.0);
        // The same group token by token: the prompt, then a row that sees 5 keys and one that sees 6.
        let by_row = cost.prefill(4) + cost.decode(5) + cost.decode(6);
        assert_eq!(by_row, cost.sample(4, [3, 1]));
    }

    #[test]
    fn weights_that_are_not_trained_cost_two_thirds() {
        let whole = ModelCost { layers: 100.0, head: 10.0, attention: 3.0, adapter: None };
        let adapted = ModelCost { adapter: Some(7.0), ..whole };
        // 6 rows of the layers and 3 of the head: 4 operations a weight, 6 a weight of the adapter, attention as before.
        let expected = 4.0 * (600.0 + 30.0) + 6.0 * 7.0 * 6.0 + 12.0 * 3.0 * 21.0;
        assert_eq!(adapted.learn(4, [3, 1]), expected);
        assert_eq!(adapted.sample(4, [3, 1]), whole.sample(4, [3, 1]) + 2.0 * 7.0 * 6.0);
    }
}
