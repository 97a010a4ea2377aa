//! A run's configuration: everything that its result depends on, and where things are.
//!
//! Invariant: [`Recipe::digest`] covers what the weights depend on and nothing else, so two nodes that
//! would compute different weights have different digests, and a run directory may be moved.

use anyhow::{Context, Result};
use octet_learner::{LearnerConfig, RunShape};
use octet_policy::kernel::head::Shaping;
use octet_policy::lora::{FreshLora, Lora};
use octet_proto::ConfigDigest;
use octet_reward_service::RewardSource;
use octet_rollout_worker::SamplingSettings;
use octet_runtime::config::{Layers, digest, load};
use serde::{Deserialize, Serialize};
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The recipe that `octet train` runs without arguments.
pub const QUICKSTART: &str = "recipes/quickstart.toml";

/// A run, as its TOML file says. Every key has a default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recipe {
    /// The run as a whole.
    pub run: Run,
    /// The policy to start from.
    pub model: ModelSource,
    /// What of it is trained.
    pub policy: PolicyKeys,
    /// What is trained and evaluated on.
    pub data: Data,
    /// How completions are sampled.
    pub sampling: SamplingKeys,
    /// Which reward scores them.
    pub reward: Reward,
    /// How they are learned from.
    pub learner: LearnerConfig,
    /// Evaluation on the held-out set.
    pub evaluation: Evaluation,
    /// Rollout workers.
    pub workers: Workers,
    /// How weights come to the workers.
    #[serde(skip_serializing_if = "Weights::is_usual")]
    pub weights: Weights,
    /// Where the run is shown while it goes on.
    pub tracking: octet_tracking::Config,
}

/// The run as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// Names the run directory.
    pub name: String,
    /// Keys shuffling and sampling. The same seed gives the same weights.
    pub seed: u64,
    /// Visits of each training row.
    pub epochs: f64,
    /// Stop after so many steps; without it, `epochs` says when.
    pub steps: Option<u64>,
}

/// The policy to start from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelSource {
    /// A Hugging Face directory, a GGUF file, or a name on the hub, "OWNER/NAME" or "OWNER/NAME@REVISION".
    pub path: PathBuf,
    /// A `config.json` that says what shape the directory will have, for `--plan` before it is there.
    pub shape: Option<PathBuf>,
    /// "f32", or "bf16" on a GPU.
    pub dtype: String,
    /// "cpu", or "cuda:0".
    pub device: String,
}

/// What of the policy is trained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyKeys {
    /// Low-rank adapters beside the weights, which then stay as they are: `{ rank, alpha, targets }`. Without it, all
    /// weights are trained.
    pub lora: Option<Lora>,
}

/// Data sets: JSON lines in the documented row format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Data {
    /// Rows to train on.
    pub train: PathBuf,
    /// Rows to evaluate on; never trained on.
    pub held_out: PathBuf,
    /// Prompts longer than this are refused before the run starts.
    pub max_prompt_tokens: usize,
}

/// How completions are sampled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplingKeys {
    /// Completions per prompt.
    pub completions: usize,
    /// Logits are divided by it.
    pub temperature: f32,
    /// Only the smallest set of most likely tokens with this probability; 1 for all.
    pub top_p: f32,
    /// Only this many most likely tokens; 0 for all.
    pub top_k: usize,
    /// Most tokens of a completion.
    pub max_tokens: usize,
}

/// Which reward scores completions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reward {
    /// A built-in function, "tool-call", "aws-compat" or "bfcl", or one in a Python file, "FILE.py:FUNCTION".
    pub function: String,
    /// Rewards that take over at later steps: what a run does that repeats swaps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schedule: Vec<ScheduledReward>,
}

/// A reward that takes over at a step: a function, or a service that answers elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScheduledReward {
    /// The first step that it rewards, counted from 0 (`metrics.jsonl` and the screen count from 1); at least 1, since
    /// `function` has what is before.
    pub step: u64,
    /// A function, as `reward.function` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// What the service is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The service's digest, as it describes itself: another reward does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Where the service's replicas answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
}

/// Evaluation on the held-out set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evaluation {
    /// Evaluate before and after the run.
    pub enabled: bool,
    /// 0 takes the most likely token, always.
    pub temperature: f32,
    /// Completions per row; with temperature 0 they would all be the same.
    pub completions: usize,
}

/// Rollout workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Workers {
    /// How many run in this process. No number of workers changes a bit of the result.
    pub count: usize,
    /// Completions that a worker decodes together.
    pub rows: usize,
}

/// How weights come to the workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Weights {
    /// "off": workers fetch each version. "nccl": the learner broadcasts it from GPU to GPU, and workers fetch what
    /// does not come. Changes no bit of the result.
    pub broadcast: String,
    /// How long a broadcast of a version may take until it is given up and the version fetched.
    #[serde(with = "octet_runtime::config::duration")]
    pub broadcast_within: Duration,
}

impl Default for Weights {
    fn default() -> Self {
        let broadcast_within = octet_broadcast::Timing::default().send;
        Self { broadcast: "off".into(), broadcast_within }
    }
}

impl Weights {
    /// Whether a node that does not know this section would do the same.
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// Whether new versions are broadcast.
    pub fn are_broadcast(&self) -> bool {
        self.broadcast == "nccl"
    }
}

impl Default for Run {
    fn default() -> Self {
        Self { name: "run".into(), seed: 1, epochs: 3.0, steps: None }
    }
}

impl Default for ModelSource {
    fn default() -> Self {
        Self {
            path: "assets/policy".into(),
            shape: None,
            dtype: "f32".into(),
            device: "cpu".into(),
        }
    }
}

impl Default for Data {
    fn default() -> Self {
        Self {
            train: "assets/data/train.jsonl".into(),
            held_out: "assets/data/held-out.jsonl".into(),
            max_prompt_tokens: 4096,
        }
    }
}

impl Default for SamplingKeys {
    fn default() -> Self {
        Self { completions: 8, temperature: 1.0, top_p: 1.0, top_k: 0, max_tokens: 128 }
    }
}

impl Default for Reward {
    fn default() -> Self {
        Self { function: "tool-call".into(), schedule: Vec::new() }
    }
}

impl Default for Evaluation {
    fn default() -> Self {
        Self { enabled: true, temperature: 0.0, completions: 1 }
    }
}

impl Default for Workers {
    fn default() -> Self {
        Self { count: 1, rows: 128 }
    }
}

impl Recipe {
    /// Resolves defaults, the file, the environment (`OCTET_RUN__SEED=2`) and `key=value` overrides.
    ///
    /// # Errors
    /// Names the key, where it was given, and the nearest right one.
    pub fn resolve(file: &Path, overrides: &[String]) -> Result<Self> {
        let layers = Layers::new().file(file)?.environment(std::env::vars())?.set(overrides)?;
        let recipe: Self = load(&layers)?;
        recipe.validate(&layers)?;
        Ok(recipe)
    }

    /// Checks what types cannot say.
    fn validate(&self, layers: &Layers) -> Result<()> {
        let s = &self.sampling;
        let rules: [(&str, bool, &str, String); 8] = [
            ("run.epochs", self.run.epochs > 0.0, "more than 0", self.run.epochs.to_string()),
            ("run.steps", self.run.steps != Some(0), "at least 1", "0".into()),
            (
                "sampling.completions",
                s.completions >= 2,
                "at least 2: advantages compare the completions of a group",
                s.completions.to_string(),
            ),
            (
                "sampling.temperature",
                s.temperature > 0.0,
                "more than 0: a greedy policy has nothing to compare",
                s.temperature.to_string(),
            ),
            ("sampling.top_p", s.top_p > 0.0 && s.top_p <= 1.0, "from 0 to 1", s.top_p.to_string()),
            ("sampling.max_tokens", s.max_tokens > 0, "at least 1", s.max_tokens.to_string()),
            ("workers.count", self.workers.count > 0, "at least 1", self.workers.count.to_string()),
            (
                "workers.rows",
                self.workers.rows >= s.completions,
                "at least sampling.completions",
                self.workers.rows.to_string(),
            ),
        ];
        for (key, holds, expected, found) in rules {
            if !holds {
                return Err(layers.refusal(key, expected, &found).into());
            }
        }
        if let Some(lora) = &self.policy.lora
            && !(lora.alpha.is_finite() && lora.alpha > 0.0)
        {
            let found = lora.alpha.to_string();
            return Err(layers.refusal("policy.lora.alpha", "more than 0", found).into());
        }
        let mut before = 0;
        for (at, entry) in self.reward.schedule.iter().enumerate() {
            let key = format!("reward.schedule[{at}]");
            let service = entry.digest.is_some() && !entry.endpoints.is_empty();
            if entry.function.is_some() == service {
                let expected = "either a function, or digest and endpoints of a service";
                let found = if service { "both" } else { "neither" };
                return Err(layers.refusal(&key, expected, found).into());
            }
            if entry.step <= before {
                let expected = format!("a step after {before}");
                return Err(layers.refusal(&key, expected, entry.step.to_string()).into());
            }
            before = entry.step;
        }
        let known = [
            ("model.dtype", &self.model.dtype, &["f32", "bf16"][..]),
            ("weights.broadcast", &self.weights.broadcast, &["off", "nccl"]),
        ];
        for (key, found, expected) in known {
            if !expected.contains(&found.as_str()) {
                return Err(layers.refusal(key, expected.join(" or "), found).into());
            }
        }
        if self.weights.are_broadcast() && self.model.device == "cpu" {
            let expected = "off where model.device is cpu: NCCL goes from GPU to GPU";
            return Err(layers.refusal("weights.broadcast", expected, "nccl").into());
        }
        if self.weights.broadcast_within.is_zero() {
            return Err(layers.refusal("weights.broadcast_within", "more than 0", "0").into());
        }
        Ok(())
    }

    /// Steps of the run, given the number of training rows.
    pub fn steps(&self, rows: usize) -> NonZeroU64 {
        let batch = self.learner.batch.get();
        let all = (self.run.epochs * rows as f64 / batch as f64).floor() as u64;
        NonZeroU64::new(self.run.steps.unwrap_or(all)).unwrap_or(NonZeroU64::MIN)
    }

    /// How rollout workers sample.
    pub fn sampling(&self) -> SamplingSettings {
        let s = &self.sampling;
        SamplingSettings {
            seed: self.run.seed,
            completions: NonZeroU32::try_from(s.completions as u32).unwrap_or(NonZeroU32::MIN),
            temperature: s.temperature,
            top_p: s.top_p,
            top_k: s.top_k,
            max_tokens: NonZeroUsize::new(s.max_tokens).unwrap_or(NonZeroUsize::MIN),
        }
    }

    /// What the learner depends on besides its own section.
    pub fn shape(&self, steps: NonZeroU64, longest_prompt: usize) -> RunShape {
        RunShape {
            steps,
            completions: self.sampling.completions,
            max_tokens: self.sampling.max_tokens,
            longest_prompt,
            shaping: self.shaping(),
            adapter: self.adapter(),
        }
    }

    /// The adapter that is trained instead of the weights, as it begins.
    pub fn adapter(&self) -> Option<FreshLora> {
        self.policy.lora.map(|lora| FreshLora { lora, seed: self.run.seed })
    }

    /// How logits become the distribution that is sampled and learned.
    pub fn shaping(&self) -> Shaping {
        let s = &self.sampling;
        Shaping { temperature: s.temperature, top_p: s.top_p, top_k: s.top_k }
    }

    /// Digest of all that the weights depend on: the keys (paths replaced by the digests of what they
    /// hold), the arithmetic, and the version of this program's numerics.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn digest(&self, total_steps: NonZeroU64, weights: &str) -> Result<ConfigDigest> {
        let mut stripped = self.clone();
        // What does not change a bit of the result has no place in the digest.
        stripped.run.name = String::new();
        stripped.run.steps = Some(total_steps.get());
        stripped.run.epochs = 0.0;
        stripped.workers = Workers::default();
        stripped.weights = Weights::default();
        stripped.evaluation = Evaluation::default();
        stripped.data.held_out = PathBuf::new();
        stripped.model.path = PathBuf::from(weights);
        stripped.model.shape = None;
        stripped.reward.function = content_of(&self.reward.function)?;
        for entry in &mut stripped.reward.schedule {
            if let Some(function) = &mut entry.function {
                *function = content_of(function)?;
            }
            (entry.name, entry.endpoints) = (None, Vec::new());
        }
        let rows = std::fs::read(&self.data.train)
            .with_context(|| format!("reading {}", self.data.train.display()))?;
        stripped.data.train = PathBuf::from(blake3::hash(&rows).to_hex().to_string());
        let kind = format!("{}/{}", std::env::consts::ARCH, self.model.device);
        let mut stripped = serde_json::to_value(stripped)?;
        // Who looks on changes nothing: a build that knows no tracking computes the same digest.
        if let Some(sections) = stripped.as_object_mut() {
            sections.remove("tracking");
            // Nor does a build that knows no adapters compute another one where there is none.
            if self.policy == PolicyKeys::default() {
                sections.remove("policy");
            }
        }
        // Nor is a build that knows no preferences another one where there are none.
        if let Some(learner) = stripped["learner"].as_object_mut()
            && learner.get("beta").is_some_and(serde_json::Value::is_null)
        {
            learner.remove("beta");
        }
        Ok(digest(&(stripped, NUMERICS, kind))?)
    }
}

/// A reward function as the digest knows it: a file by what it holds, a built-in function by its name.
fn content_of(function: &str) -> Result<String> {
    let Ok(RewardSource::Python(source, _)) = function.parse() else {
        return Ok(function.to_owned());
    };
    let text = std::fs::read(&source.file)
        .with_context(|| format!("reading {}", source.file.display()))?;
    Ok(format!("{}:{}", blake3::hash(&text).to_hex(), source.function.unwrap_or_default()))
}

/// Raised whenever the same configuration would give other bits.
const NUMERICS: u32 = 1;

#[cfg(test)]
mod keys;
#[cfg(test)]
mod tests;
