//! The shape of a model, read from a Hugging Face `config.json`.
//!
//! Invariant: a [`ModelConfig`] that exists describes a model this crate computes exactly. What it
//! cannot compute (another activation, sliding windows, unknown rope scaling) is refused here, with
//! the file and the key, and never approximated. Unknown keys are kept for saving again.

mod fields;
mod rope;
mod spec;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use self::fields::Fields;
pub use self::rope::{Llama3Scaling, Rope};
pub use self::spec::TensorSpec;

/// File name of the model configuration in a Hugging Face directory.
pub const CONFIG_FILE: &str = "config.json";
/// File name of the generation defaults in a Hugging Face directory.
pub const GENERATION_CONFIG_FILE: &str = "generation_config.json";

/// Families of models this crate computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Qwen2 and Qwen2.5: biases on the query, key and value projections.
    Qwen2,
    /// Qwen3: each head's query and key is normalised before it is rotated.
    Qwen3,
    /// Llama 2, 3, 3.1, 3.2 and what shares their layout (SmolLM2, ...).
    Llama,
}

/// Element type of stored weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
}

/// A validated model configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Family of the model.
    pub architecture: Architecture,
    /// Rows of the embedding; may exceed the tokenizer's vocabulary (padding rows).
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated feed-forward layer.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f64,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Longest context, prompt and completion together.
    pub max_position_embeddings: usize,
    /// The output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Biases on the query, key and value projections.
    pub qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub output_bias: bool,
    /// An RMSNorm over each head's query and key, before they are rotated.
    pub qk_norm: bool,
    /// Tokens that end a completion, from `config.json` and `generation_config.json`, ascending.
    pub eos_token_ids: Vec<u32>,
    /// Token that begins a text, if the model has one.
    pub bos_token_id: Option<u32>,
    /// Padding token, if the model has one.
    pub pad_token_id: Option<u32>,
    /// Element type that the file names (`dtype` or `torch_dtype`).
    pub dtype: Option<Dtype>,
    /// The whole file, unknown keys included.
    pub raw: Map<String, Value>,
}

/// Why a model configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; expected a Hugging Face model directory with config.json", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not JSON.
    #[error("{} is not valid JSON: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The cause, with line and column.
        source: serde_json::Error,
    },
    /// A key is missing, mistyped, or asks for what this crate does not compute.
    #[error("{}: key `{key}`: expected {expected}, found {found}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The key, dotted for nested ones.
        key: String,
        /// What would be accepted.
        expected: String,
        /// What the file says.
        found: String,
    },
}

impl Architecture {
    /// The `model_type` of `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Llama => "llama",
        }
    }

    /// The class that `transformers` computes it with.
    pub fn class(self) -> &'static str {
        match self {
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Llama => "LlamaForCausalLM",
        }
    }

    /// The family of a `model_type`.
    pub fn from_model_type(name: &str) -> Option<Self> {
        [Self::Qwen2, Self::Qwen3, Self::Llama].into_iter().find(|it| it.model_type() == name)
    }
}

impl Dtype {
    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::F32, Self::Bf16, Self::F16].into_iter().find(|dtype| dtype.name() == name)
    }
}

impl ModelConfig {
    /// Reads `config.json` of a model directory, and the end tokens of `generation_config.json`
    /// where there is one.
    pub fn from_dir(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join(CONFIG_FILE);
        let mut config = Self::from_value(read_json(&path)?, &path)?;
        let generation = dir.join(GENERATION_CONFIG_FILE);
        if generation.is_file() {
            let value = read_json(&generation)?;
            let map = expect_object(&value, &generation)?;
            let fields = Fields::new(map, &generation);
            let more = fields.token_ids("eos_token_id", config.vocab_size)?;
            config.eos_token_ids.extend(more);
            config.eos_token_ids.sort_unstable();
            config.eos_token_ids.dedup();
        }
        Ok(config)
    }

    /// Validates a configuration that is already JSON; `path` names it in errors.
    pub fn from_value(value: Value, path: &Path) -> Result<Self, ConfigError> {
        let raw = expect_object(&value, path)?.clone();
        let fields = Fields::new(&raw, path);
        let architecture = fields.architecture()?;
        fields.refuse_what_is_not_computed(architecture)?;

        let vocab_size = fields.size("vocab_size")?;
        let hidden_size = fields.size("hidden_size")?;
        let num_attention_heads = fields.size("num_attention_heads")?;
        let num_key_value_heads = fields.size_or("num_key_value_heads", num_attention_heads)?;
        if num_attention_heads % num_key_value_heads != 0 {
            return Err(fields.error(
                "num_key_value_heads",
                format!("a divisor of num_attention_heads ({num_attention_heads})"),
                num_key_value_heads,
            ));
        }
        let head_dim = match fields.optional_size("head_dim")? {
            Some(size) => size,
            // What `transformers` takes for Qwen3, whatever the other sizes are.
            None if architecture == Architecture::Qwen3 => 128,
            None if hidden_size % num_attention_heads == 0 => hidden_size / num_attention_heads,
            None => {
                return Err(fields.error(
                    "hidden_size",
                    format!("a multiple of num_attention_heads ({num_attention_heads})"),
                    hidden_size,
                ));
            }
        };
        if head_dim % 2 != 0 {
            return Err(fields.error("head_dim", "an even number", head_dim));
        }
        let (qkv_bias, output_bias) = match architecture {
            Architecture::Qwen2 => (true, false),
            Architecture::Qwen3 | Architecture::Llama => {
                let bias = fields.bool_or("attention_bias", false)?;
                (bias, bias)
            }
        };
        let mut eos_token_ids = fields.token_ids("eos_token_id", vocab_size)?;
        eos_token_ids.sort_unstable();
        eos_token_ids.dedup();
        Ok(Self {
            architecture,
            vocab_size,
            hidden_size,
            intermediate_size: fields.size("intermediate_size")?,
            num_hidden_layers: fields.size("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            rms_norm_eps: fields.positive_or("rms_norm_eps", 1e-6)?,
            rope: Rope::read(&fields)?,
            max_position_embeddings: fields.size("max_position_embeddings")?,
            tie_word_embeddings: fields.bool_or("tie_word_embeddings", false)?,
            qkv_bias,
            output_bias,
            qk_norm: architecture == Architecture::Qwen3,
            eos_token_ids,
            bos_token_id: fields.token_ids("bos_token_id", vocab_size)?.first().copied(),
            pad_token_id: fields.token_ids("pad_token_id", vocab_size)?.first().copied(),
            dtype: fields.dtype()?,
            raw,
        })
    }

    /// The JSON to save beside weights of type `dtype`: the file as read, with its element type.
    pub fn to_json(&self, dtype: Dtype) -> Value {
        let mut raw = self.raw.clone();
        // Old readers know `torch_dtype`, new ones `dtype` as well: whichever the file had is kept.
        let key = if raw.contains_key("dtype") && !raw.contains_key("torch_dtype") {
            "dtype"
        } else {
            raw.remove("dtype");
            "torch_dtype"
        };
        raw.insert(key.into(), dtype.name().into());
        Value::Object(raw)
    }
}

fn read_json(path: &Path) -> Result<Value, ConfigError> {
    let text =
        std::fs::read(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    serde_json::from_slice(&text).map_err(|source| ConfigError::Json { path: path.into(), source })
}

fn expect_object<'a>(value: &'a Value, path: &Path) -> Result<&'a Map<String, Value>, ConfigError> {
    value.as_object().ok_or_else(|| ConfigError::Field {
        path: path.into(),
        key: "(whole file)".into(),
        expected: "a JSON object".into(),
        found: fields::describe(value),
    })
}
