//! Everything that a run needs, loaded and checked before it begins.

use super::directory::{Identity, RunDirectory};
use super::progress::Screen;
use crate::evaluation::prompt_of;
use crate::recipe::Recipe;
use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use octet_dataset::{Example, load};
use octet_learner::plan::{Bytes, MemoryPlan, Workload, available_memory};
use octet_policy::config::{Dtype, ModelConfig};
use octet_policy::policy::Policy;
use octet_proto::StepIndex;
use octet_reward_service::{RewardFunction, open, trivial};
use std::num::NonZeroU64;
use std::sync::Arc;

/// A run that can begin.
pub struct Setup {
    /// The resolved recipe.
    pub recipe: Recipe,
    /// What identifies the run.
    pub identity: Identity,
    /// Optimiser updates.
    pub steps: NonZeroU64,
    /// The policy to start from.
    pub policy: Policy,
    /// The type that weights are computed in.
    pub dtype: DType,
    /// Where they are computed.
    pub device: Device,
    /// Rows to train on.
    pub train: Vec<Example>,
    /// Rows to evaluate on.
    pub held_out: Vec<Example>,
    /// The reward.
    pub function: Arc<dyn RewardFunction>,
    /// The rewards that take over at later steps.
    pub swaps: Vec<(StepIndex, Swap)>,
    /// Tokens of the longest prompt.
    pub longest_prompt: usize,
    /// The memory that a step takes.
    pub memory: MemoryPlan,
}

impl Setup {
    /// Loads and checks.
    ///
    /// # Errors
    /// Names the file or key, what was expected and what was found.
    pub fn new(recipe: Recipe, directory: &RunDirectory) -> Result<Self> {
        let function = open(&recipe.reward.function.parse()?)?;
        let swaps = swaps(&recipe)?;
        let (dtype, device) = arithmetic(&recipe)?;
        let train = load(&recipe.data.train)?;
        let held_out =
            if recipe.evaluation.enabled { load(&recipe.data.held_out)? } else { Vec::new() };
        let policy = Policy::load(&recipe.model.path, dtype, &device)?;
        let steps = recipe.steps(train.len());
        let longest_prompt =
            longest(&recipe, &policy, &train)?.max(longest(&recipe, &policy, &held_out)?);
        let resolved = recipe.learner.resolve(&recipe.shape(steps, longest_prompt))?;
        let workload = Workload::new(&resolved, stored(dtype));
        let memory = MemoryPlan::choose(policy.model.config(), &workload, available_memory())?;
        let weights = policy.model.params().digest()?.to_hex();
        let config_digest = recipe.digest(steps, &weights)?;
        let name = directory
            .path()
            .file_name()
            .map_or_else(|| recipe.run.name.clone(), |name| name.to_string_lossy().into_owned());
        let identity = Identity {
            run_id: format!("{name}-{}", config_digest.short()),
            config_digest,
            total_steps: steps.get(),
            octet: env!("CARGO_PKG_VERSION").into(),
        };
        Ok(Self {
            recipe,
            identity,
            steps,
            policy,
            dtype,
            device,
            train,
            held_out,
            function,
            swaps,
            longest_prompt,
            memory,
        })
    }

    /// Says what is about to happen, and what trivial policies would earn: nobody shall mistake
    /// silence for skill.
    pub fn introduce(&self, screen: &Screen, directory: &RunDirectory) {
        let r = &self.recipe;
        screen.line(&format!(
            "octet train  {} → {}\n{} prompts of at most {} tokens, {} steps of {} prompts × {} completions, \
             seed {}, configuration {}, {} of memory",
            r.model.path.display(),
            directory.path().display(),
            self.train.len(),
            self.longest_prompt,
            self.steps,
            r.learner.batch,
            r.sampling.completions,
            r.run.seed,
            self.identity.config_digest.short(),
            Bytes(self.memory.peak()),
        ));
        screen.line(&format!(
            "\nwhat trivial policies would earn on {}\n{}",
            r.data.train.display(),
            trivial::table(&self.train, &*self.function)
        ));
    }
}

/// What takes over at a step.
pub enum Swap {
    /// A function, to be served by this process.
    Function(Arc<dyn RewardFunction>),
    /// A service that answers elsewhere.
    Service(octet_coordinator::Reward),
}

fn swaps(recipe: &Recipe) -> Result<Vec<(StepIndex, Swap)>> {
    let swaps = recipe.reward.schedule.iter().map(|entry| {
        let swap = match &entry.function {
            Some(function) => Swap::Function(open(&function.parse()?)?),
            None => {
                let digest = entry.digest.clone().unwrap_or_default();
                let name = entry.name.clone().unwrap_or_else(|| "scheduled".into());
                let endpoints = entry.endpoints.clone();
                Swap::Service(octet_coordinator::Reward { name, digest, endpoints })
            }
        };
        Ok((StepIndex(entry.step), swap))
    });
    swaps.collect()
}

fn arithmetic(recipe: &Recipe) -> Result<(DType, Device)> {
    let device = match recipe.model.device.as_str() {
        "cpu" => Device::Cpu,
        name => match name.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
            Some(ordinal) => Device::new_cuda(ordinal).with_context(|| {
                format!("model.device = \"{name}\": opening the GPU; without one, use \"cpu\"")
            })?,
            None => bail!("key `model.device`: expected \"cpu\" or \"cuda:0\", found \"{name}\""),
        },
    };
    let dtype = if recipe.model.dtype == "bf16" { DType::BF16 } else { DType::F32 };
    if dtype == DType::BF16 && device.is_cpu() {
        bail!(
            "key `model.dtype`: bf16 needs a GPU (model.device = \"cuda:0\"); on the CPU use \"f32\""
        );
    }
    Ok((dtype, device))
}

/// Tokens of the longest prompt; refuses prompts that do not fit.
fn longest(recipe: &Recipe, policy: &Policy, rows: &[Example]) -> Result<usize> {
    let context = policy.model.config().max_position_embeddings;
    let limit = recipe.data.max_prompt_tokens;
    let mut longest = 0;
    for (i, row) in rows.iter().enumerate() {
        let n = prompt_of(policy, row).with_context(|| format!("rendering row {}", i + 1))?.len();
        if n > limit {
            bail!(
                "row {} has a prompt of {n} tokens: expected at most data.max_prompt_tokens = {limit}; \
                 raise it, or drop the row",
                i + 1
            );
        }
        if n + recipe.sampling.max_tokens > context {
            bail!(
                "row {} has a prompt of {n} tokens, which with sampling.max_tokens = {} is past the model's \
                 context of {context}; lower max_tokens, or drop the row",
                i + 1,
                recipe.sampling.max_tokens
            );
        }
        longest = longest.max(n);
    }
    Ok(longest)
}

fn stored(dtype: DType) -> Dtype {
    if dtype == DType::BF16 { Dtype::Bf16 } else { Dtype::F32 }
}

/// The resolved recipe and its memory plan, from the model's configuration alone.
///
/// # Errors
/// A key that does not hold, or a data set or configuration that cannot be read.
pub fn plan(recipe: &Recipe) -> Result<String> {
    open(&recipe.reward.function.parse()?)?;
    swaps(recipe)?;
    let rows = load(&recipe.data.train)?.len();
    let config = match &recipe.model.shape {
        Some(file) if !recipe.model.path.join("config.json").is_file() => {
            let text =
                std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
            let value = serde_json::from_slice(&text)
                .with_context(|| format!("reading {}", file.display()))?;
            ModelConfig::from_value(value, file)?
        }
        _ => ModelConfig::from_dir(&recipe.model.path)?,
    };
    let steps = recipe.steps(rows);
    // Without a tokenizer the longest prompt is not known: the limit stands in for it.
    let shape = recipe.shape(steps, recipe.data.max_prompt_tokens);
    let resolved = recipe.learner.resolve(&shape)?;
    let dtype = if recipe.model.dtype == "bf16" { Dtype::Bf16 } else { Dtype::F32 };
    let workload = Workload::new(&resolved, dtype);
    let available = available_memory();
    let plan = MemoryPlan::choose(&config, &workload, None)?;
    let verdict = match MemoryPlan::choose(&config, &workload, available) {
        Ok(fits) => format!("{fits}\nfits into this machine's free memory"),
        Err(error) => format!("{plan}\ndoes not fit this machine: {error}"),
    };
    Ok(format!(
        "{}\n{rows} rows, {steps} steps of {} prompts × {} completions\n\n{verdict}",
        octet_runtime::config::to_toml(recipe)?,
        recipe.learner.batch,
        recipe.sampling.completions,
    ))
}
