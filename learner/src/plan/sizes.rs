//! How large the parts of a step are, one formula each.
//!
//! Invariant: follows the policy's learning pass (`policy::model::learn`): when that keeps something
//! else, this changes with it, and the allocation test says so.

use super::Workload;
use octet_policy::config::ModelConfig;
use octet_policy::model::Keep;
use octet_policy::ops::most_rows_at_once;

/// The factors of the formulas.
pub(super) struct Sizes {
    /// Bytes of an element of weights and activations.
    element: u64,
    parameters: u64,
    /// Parameters that are trained: all of them, or an adapter's.
    trained: u64,
    /// Elements of the largest tensor of these.
    largest_tensor: u64,
    /// Rank of the adapter; 0 without one.
    rank: u64,
    layers: u64,
    hidden: u64,
    inner: u64,
    heads: u64,
    queries: u64,
    keys: u64,
    key_heads: u64,
    /// Queries and keys are normalised, and kept before that as well.
    head_norms: bool,
    head_dim: u64,
    vocabulary: u64,
    positions: u64,
    /// Tokens of the largest micro-batch.
    rows: u64,
    versions: u64,
    /// Parameters of the layers.
    in_layers: u64,
    one_part: bool,
    in_memory: bool,
    /// Queries times keys of the largest prompt or completion.
    longest_part: u64,
}

impl Sizes {
    pub fn new(config: &ModelConfig, workload: &Workload) -> Self {
        let specs = match &workload.lora {
            None => config.tensor_specs(),
            Some(lora) => lora.tensor_specs(config),
        };
        Self {
            element: workload.dtype.size() as u64,
            parameters: config.param_count() as u64,
            trained: specs.iter().map(|spec| spec.len()).sum::<usize>() as u64,
            rank: workload.lora.map_or(0, |lora| lora.rank.get() as u64),
            largest_tensor: specs.iter().map(|spec| spec.len()).max().unwrap_or(0) as u64,
            layers: config.num_hidden_layers as u64,
            hidden: config.hidden_size as u64,
            inner: config.intermediate_size as u64,
            heads: config.num_attention_heads as u64,
            queries: (config.num_attention_heads * config.head_dim) as u64,
            keys: (config.num_key_value_heads * config.head_dim) as u64,
            key_heads: config.num_key_value_heads as u64,
            head_norms: config.qk_norm,
            head_dim: config.head_dim as u64,
            vocabulary: config.vocab_size as u64,
            positions: config.max_position_embeddings as u64,
            rows: workload.tokens(),
            in_layers: {
                let layers = specs.iter().filter(|spec| spec.name.contains("layers."));
                layers.map(|spec| spec.len()).sum::<usize>() as u64
            },
            one_part: workload.is_one_part(),
            in_memory: workload.in_memory,
            versions: workload.lag.saturating_add(1),
            longest_part: {
                let (prompt, own) = (workload.longest_prompt as u64, workload.max_tokens as u64);
                (prompt * prompt).max(own * (prompt + own))
            },
        }
    }

    /// The weights once; also a reference.
    pub fn weights(&self) -> u64 {
        self.parameters * self.element
    }

    /// What is trained, once: a version.
    pub fn trained(&self) -> u64 {
        self.trained * self.element
    }

    /// What gradients are added up in: 32 bits. A layer's begin when what is kept of it is read for the last time, so
    /// where a step is one part they take the place of the kept activations, and only what is more of them counts.
    pub fn gradients(&self, keep: Keep) -> u64 {
        let (layers, all) = (4 * self.in_layers, self.masters());
        match self.one_part {
            true => (all - layers) + layers.saturating_sub(self.kept(keep)),
            false => all,
        }
    }

    /// What the optimiser works on.
    pub fn masters(&self) -> u64 {
        4 * self.trained
    }

    /// Scores of the largest prompt against itself, or of a completion against all before it, and what the
    /// gradient keeps of them; without a fused kernel they exist as a matrix.
    pub fn scores(&self) -> u64 {
        6 * 4 * self.heads * self.longest_part
    }

    /// Two 32-bit means a parameter.
    pub fn moments(&self) -> u64 {
        8 * self.trained
    }

    /// The newest version and those that the lag samples with, where they are not read from files.
    pub fn published(&self) -> u64 {
        self.versions.saturating_mul(self.next_version())
    }

    /// The version that a step makes, likewise.
    pub fn next_version(&self) -> u64 {
        if self.in_memory { self.trained() } else { 0 }
    }

    /// Cosines and sines of every position.
    pub fn tables(&self) -> u64 {
        self.positions * self.head_dim * self.element
    }

    /// What the gradient reads: input, queries, keys, values, mixed values, gate and up of a layer; two norm
    /// scales and a log-sum a head besides. With norms over heads, also what they normalise and their scales.
    fn kept_of_a_layer(&self) -> u64 {
        let (wide, scales) = match self.head_norms {
            true => (self.queries + self.keys, self.heads + self.key_heads),
            false => (0, 0),
        };
        let wide = wide + self.hidden + 2 * self.queries + 2 * self.keys + 2 * self.inner;
        self.rows * (wide * self.element + (2 + self.heads + scales) * 4)
    }

    /// What is kept between forward and backward.
    pub fn kept(&self, keep: Keep) -> u64 {
        match keep {
            Keep::Activations => self.layers * self.kept_of_a_layer(),
            Keep::LayerInputs => {
                self.layers * self.rows * self.hidden * self.element + self.kept_of_a_layer()
            }
        }
    }

    /// Gradients of one layer's activations and what is computed again, while the network behind attention has its turn or
    /// attention itself, whichever is more; packed keys and values, and what is inside of an adapter.
    pub fn layer_at_work(&self) -> u64 {
        let norms = if self.head_norms { self.queries + self.keys } else { 0 };
        let network = 4 * self.hidden + 2 * self.inner;
        let attention = 5 * self.hidden + self.inner + 3 * self.queries + 6 * self.keys + norms;
        self.rows * (network.max(attention) + 2 * self.rank) * self.element
    }

    /// Hidden states of predicting rows before and after the norm and their gradients, and the logits that are kept
    /// or computed together.
    pub fn head(&self) -> u64 {
        let rows = most_rows_at_once(self.rows as usize, self.vocabulary as usize) as u64;
        let logits = rows * self.vocabulary * (4 + if self.element < 4 { self.element } else { 0 });
        // Predictions, slopes, targets and their order: about 64 bytes a token.
        logits + self.rows * (6 * self.hidden * self.element + 64)
    }

    /// One tensor on its way into a file; an adapter's all at once.
    pub fn files(&self) -> u64 {
        let adapter = if self.rank > 0 { self.trained } else { 0 };
        4 * (adapter + 2 * self.largest_tensor)
    }
}
