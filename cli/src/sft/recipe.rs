//! What a supervised run is made of, as its TOML file says.
//!
//! Invariant: everything that the resulting weights depend on is in here.

use anyhow::Result;
use octet_dataset::ColdStartSpec;
use octet_runtime::config::{Layers, load};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A supervised fine-tuning run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recipe {
    /// Seed of weights, drills and order.
    pub seed: u64,
    /// What to start from: a directory, a GGUF file, or a name on the hub; without one, `fresh` says what to make.
    pub model: Option<PathBuf>,
    /// How many layers it is given, a multiple of what it has: those that are added change nothing at first.
    pub layers: Option<usize>,
    /// A model with random weights.
    pub fresh: Option<Fresh>,
    /// The optimiser.
    pub optimiser: Optimiser,
    /// Batches.
    pub batch: Batch,
    /// Rows whose requests no drill may repeat.
    pub exclude: Vec<PathBuf>,
    /// What is trained on, one stage after the other.
    pub stage: Vec<Stage>,
}

/// The shape of a new Qwen2 model, and its tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fresh {
    /// Entries of the byte-level vocabulary.
    pub vocab_size: usize,
    /// Drills that the vocabulary is learned from.
    pub tokenizer_drills: u64,
    /// The chat template's file.
    pub chat_template: PathBuf,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Longest context.
    pub max_position_embeddings: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Standard deviation of the initial weights. A narrow model wants more than the usual 0.02: about
    /// one over the square root of its width, or its attention stays flat for long.
    #[serde(default = "usual_range")]
    pub initializer_range: f64,
}

/// AdamW's constants and the schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Optimiser {
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Linear warm-up.
    pub warmup_steps: u64,
    /// What is left of the learning rate at the end of the cosine, as a share.
    pub floor: f64,
    /// How slowly squares are forgotten.
    pub beta2: f64,
    /// Decoupled.
    pub weight_decay: f64,
    /// Global norm.
    pub max_gradient_norm: f64,
    /// The momentum of Muon for the layers' matrices; without it, AdamW updates everything.
    pub muon: Option<f64>,
}

/// Sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Batch {
    /// Sequences a step.
    pub sequences: usize,
    /// Tokens computed together.
    pub micro_batch_tokens: usize,
}

/// Some steps on one source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Steps of this stage.
    pub steps: u64,
    /// Sequences a step, where the stage wants its own.
    pub sequences: Option<usize>,
    /// A data set to learn the reference answers of; without one, drills.
    pub data: Option<PathBuf>,
    /// Share of copying drills.
    #[serde(default)]
    pub copy_fraction: f64,
    /// Share of the training catalogue's tools among calls.
    #[serde(default)]
    pub catalogue_fraction: f64,
    /// Weights of execute, clarify and refuse.
    #[serde(default = "paper_mix")]
    pub behaviours: [f64; 3],
    /// Difficulty at the stage's begin and end, 0 to 1.
    #[serde(default = "hard")]
    pub difficulty: [f64; 2],
    /// Share of invented words.
    #[serde(default = "mostly_made_up")]
    pub made_up: f64,
    /// Share of invented parameters whose values are worked in as people do it.
    #[serde(default)]
    pub natural: f64,
    /// Share of invented tools whose first parameter has the name of the thing itself.
    #[serde(default)]
    pub namesakes: f64,
}

impl Default for Optimiser {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            warmup_steps: 100,
            floor: 0.05,
            beta2: 0.98,
            weight_decay: 0.05,
            max_gradient_norm: 1.0,
            muon: None,
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self { sequences: 64, micro_batch_tokens: 2048 }
    }
}

fn paper_mix() -> [f64; 3] {
    [0.6, 0.25, 0.15]
}

fn usual_range() -> f64 {
    0.02
}

fn hard() -> [f64; 2] {
    [1.0, 1.0]
}

fn mostly_made_up() -> f64 {
    0.6
}

impl Recipe {
    /// Reads a recipe's file and checks what types cannot say.
    ///
    /// # Errors
    /// Names the key, where it was given, what was expected and what was found.
    pub fn read(path: &Path) -> Result<Self> {
        let layers = Layers::new().file(path)?;
        let recipe: Self = load(&layers)?;
        let refuse = |key: &str, expected: &str, found: String| {
            Err(layers.refusal(key, expected, &found).into())
        };
        if recipe.model.is_some() == recipe.fresh.is_some() {
            let found = if recipe.fresh.is_some() { "both" } else { "neither" };
            return refuse(
                "model",
                "a model to start from, or the shape of a new one in [fresh]",
                found.into(),
            );
        }
        if recipe.steps() == 0 {
            return refuse("stage", "at least one [[stage]] with steps", "none".into());
        }
        if recipe.batch.sequences == 0 {
            return refuse("batch.sequences", "at least 1", "0".into());
        }
        Ok(recipe)
    }

    /// Steps of all stages.
    pub fn steps(&self) -> u64 {
        self.stage.iter().map(|s| s.steps).sum()
    }

    /// The stage of a step, and how far into it the step is, 0 to 1.
    pub fn stage_of(&self, step: u64) -> Option<(usize, f64)> {
        let mut first = 0;
        for (at, stage) in self.stage.iter().enumerate() {
            if step < first + stage.steps {
                return Some((at, (step - first) as f64 / stage.steps as f64));
            }
            first += stage.steps;
        }
        None
    }
}

impl Stage {
    /// The corpus at a share of the stage.
    pub fn corpus(&self, seed: u64, progress: f64) -> ColdStartSpec {
        let [from, to] = self.difficulty;
        ColdStartSpec {
            seed,
            copy_fraction: self.copy_fraction,
            catalogue_fraction: self.catalogue_fraction,
            behaviours: self.behaviours,
            difficulty: from + (to - from) * progress,
            made_up: self.made_up,
            natural: self.natural,
            namesakes: self.namesakes,
        }
    }
}
