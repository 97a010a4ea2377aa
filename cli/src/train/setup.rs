//! Everything that a run needs, loaded and checked before it begins.

use super::basis::{Basis, check_adapter, longest};
use super::directory::{Identity, RunDirectory};
use super::progress::Screen;
use super::trivial::{TRIVIAL_FILE, Trivial};
use crate::recipe::Recipe;
use crate::{compute, model};
use anyhow::{Context, Result};
use candle_core::{DType, Device};
use octet_dataset::{Example, load};
use octet_learner::plan::{Available, MemoryPlan, Place, Workload, available_memory, available_on};
use octet_policy::config::{Dtype, ModelConfig};
use octet_policy::model::Keep;
use octet_proto::StepIndex;
use octet_reward_service::{RewardFunction, open, trivial};
use std::num::NonZeroU64;
use std::sync::Arc;

/// A run that can begin.
pub struct Setup {
    /// What all nodes of the run agree on.
    pub basis: Basis,
    /// Where models compute.
    pub device: Device,
    /// What identifies the run.
    pub identity: Identity,
    /// Rows to evaluate on.
    pub held_out: Vec<Example>,
    /// The reward.
    pub function: Arc<dyn RewardFunction>,
    /// The rewards that take over at later steps.
    pub swaps: Vec<(StepIndex, Swap)>,
    /// Tokens of the longest prompt, of both data sets.
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
        let held_out =
            if recipe.evaluation.enabled { load(&recipe.data.held_out)? } else { Vec::new() };
        let mut basis = Basis::load_if(recipe, fits)?;
        let device = compute::open(&basis.recipe.model.device)?;
        let evaluated = longest(&basis.recipe, &basis.policy, &held_out)?;
        let longest_prompt = basis.longest_prompt.max(evaluated);
        let shape = basis.recipe.shape(basis.steps, longest_prompt);
        let workload = Workload::new(
            &basis.recipe.learner.resolve(&shape)?,
            stored(basis.dtype),
            !device.is_cpu(),
        );
        let memory =
            MemoryPlan::choose(basis.policy.model.config(), &workload, available_on(&device))?;
        // Evaluation computes with it.
        basis.policy.model = basis.policy.model.to(basis.dtype, &device)?;
        let identity = basis.identity(directory);
        Ok(Self { basis, device, identity, held_out, function, swaps, longest_prompt, memory })
    }

    /// Writes down what trivial policies would earn.
    ///
    /// # Errors
    /// The run directory cannot be written.
    pub fn keep_trivial(&self, directory: &RunDirectory) -> Result<()> {
        let table = trivial::table(&self.basis.train, &*self.function);
        let earned = Trivial::new(&table, &self.held_out, &*self.function);
        directory.write(TRIVIAL_FILE, &serde_json::to_vec_pretty(&earned)?)
    }

    /// Says what is about to happen, and what trivial policies would earn: nobody shall mistake silence for skill.
    pub fn introduce(&self, screen: &Screen, directory: &RunDirectory) {
        let r = &self.basis.recipe;
        let held = self.memory.peaks().map(|(place, peak)| match place {
            Place::Host => format!("{peak} of memory"),
            Place::Device => format!("{peak} {}", place.name()),
        });
        let held: Vec<String> = held.collect();
        screen.line(&format!(
            "octet train  {} → {}\n{} prompts of at most {} tokens, {} steps of {} prompts × {} completions, \
             seed {}, configuration {}, {}",
            r.model.path.display(),
            directory.path().display(),
            self.basis.train.len(),
            self.longest_prompt,
            self.basis.steps,
            r.learner.batch,
            r.sampling.completions,
            r.run.seed,
            self.identity.config_digest.short(),
            held.join(", "),
        ));
        if let Some(lora) = &r.policy.lora {
            let config = self.basis.policy.model.config();
            screen.line(&format!(
                "an adapter of rank {} is trained: {} parameters beside {}",
                lora.rank,
                lora.param_count(config),
                config.param_count()
            ));
        }
        let table = trivial::table(&self.basis.train, &*self.function);
        screen.line(&format!(
            "\nwhat trivial policies would earn on {}\n{table}",
            r.data.train.display()
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

fn stored(dtype: DType) -> Dtype {
    if dtype == DType::BF16 { Dtype::Bf16 } else { Dtype::F32 }
}

/// Refuses a model that could not be trained here with the shortest of prompts, before it is downloaded.
fn fits(recipe: &Recipe, steps: NonZeroU64, config: &ModelConfig) -> Result<()> {
    check_adapter(recipe, config)?;
    let resolved = recipe.learner.resolve(&recipe.shape(steps, 1))?;
    let device = compute::open(&recipe.model.device)?;
    let dtype = stored(compute::dtype(&recipe.model.dtype, &recipe.model.device)?);
    let workload = Workload::new(&resolved, dtype, !device.is_cpu());
    MemoryPlan::choose(config, &workload, available_on(&device))?;
    Ok(())
}

/// What is free here; nothing on a GPU that this machine does not have.
fn available(device: &str) -> Available {
    match compute::open(device) {
        Ok(device) => available_on(&device),
        Err(_) => Available { host: available_memory(), device: Some(0) },
    }
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
        _ => model::config(&recipe.model.path)?,
    };
    check_adapter(recipe, &config)?;
    let steps = recipe.steps(rows);
    // Without a tokenizer the longest prompt is not known: the limit stands in for it.
    let shape = recipe.shape(steps, recipe.data.max_prompt_tokens);
    let resolved = recipe.learner.resolve(&shape)?;
    let dtype = compute::dtype(&recipe.model.dtype, &recipe.model.device)?;
    let workload = Workload::new(&resolved, stored(dtype), recipe.model.device != "cpu");
    let available = available(&recipe.model.device);
    let plan = MemoryPlan::choose(&config, &workload, Available::default())?;
    let verdict = match MemoryPlan::choose(&config, &workload, available) {
        Ok(fits) => format!("{fits}\nfits into this machine's free memory"),
        Err(error) => {
            let least = MemoryPlan::new(&config, &workload, Keep::LayerInputs);
            let peaks: Vec<String> =
                least.peaks().map(|(place, peak)| format!("{peak} {}", place.name())).collect();
            let peaks = peaks.join(", ");
            format!(
                "{plan}\nwith activations computed again: {peaks}\ndoes not fit this machine: {error}"
            )
        }
    };
    Ok(format!(
        "{}\n{rows} rows, {steps} steps of {} prompts × {} completions\n\n{verdict}",
        octet_runtime::config::to_toml(recipe)?,
        recipe.learner.batch,
        recipe.sampling.completions,
    ))
}
