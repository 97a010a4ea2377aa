//! What all nodes of a run agree on, loaded and checked: the recipe, the data set, the policy to start from.
//!
//! Invariant: the digest that a node shows is made here and nowhere else, so a role in a process of its own
//! has the digest of `octet train` with the same recipe.

use super::directory::{Identity, RunDirectory};
use crate::evaluation::prompt_of;
use crate::recipe::Recipe;
use crate::{compute, model};
use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use octet_coordinator::{Rows, RunPlan};
use octet_dataset::{Example, load};
use octet_learner::learner::Patience;
use octet_policy::config::ModelConfig;
use octet_policy::policy::Policy;
use octet_proto::ConfigDigest;
use octet_proto::transport::ClientOptions;
use octet_rollout_worker::{Limits, OnRewardFailure};
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What all nodes of a run agree on.
pub struct Basis {
    /// The resolved recipe.
    pub recipe: Recipe,
    /// Digest of all that the weights depend on.
    pub config_digest: ConfigDigest,
    /// Optimiser updates.
    pub steps: NonZeroU64,
    /// Where the policy to start from is on this machine.
    pub model: PathBuf,
    /// Digest of its weights.
    pub weights: String,
    /// The policy to start from, on the CPU.
    pub policy: Policy,
    /// The type that weights are computed in.
    pub dtype: DType,
    /// Rows to train on.
    pub train: Vec<Example>,
    /// Tokens of the longest prompt of them.
    pub longest_prompt: usize,
}

/// Where a node finds the coordinator, and what it shows there.
#[derive(Clone, Debug)]
pub struct Membership {
    /// `http://host:port`, or `https://host:port`.
    pub coordinator: String,
    /// The run's join token.
    pub join_token: String,
}

/// What one worker is, apart from the run.
#[derive(Clone, Debug)]
pub struct WorkerShape {
    /// What people call it.
    pub name: String,
    /// Completions that are decoded together.
    pub rows: usize,
    /// Groups that are sampled at once; as many as the rows hold where there is none.
    pub capacity: Option<NonZeroU32>,
    /// Where others fetch weights from it; empty where it says so itself.
    pub weights_endpoint: String,
    /// How long what is under way may take once it shall stop.
    pub drain: Duration,
}

impl Basis {
    /// Loads and checks.
    ///
    /// # Errors
    /// Names the file or key, what was expected and what was found.
    pub fn load(recipe: Recipe) -> Result<Self> {
        Self::load_if(recipe, |_, _, _| Ok(()))
    }

    /// As [`Basis::load`]; `fits` is asked about the recipe, its steps and the model before weights are downloaded.
    ///
    /// # Errors
    /// As [`Basis::load`], and what `fits` refuses.
    pub fn load_if(
        recipe: Recipe,
        fits: impl FnOnce(&Recipe, NonZeroU64, &ModelConfig) -> Result<()>,
    ) -> Result<Self> {
        let dtype = compute::dtype(&recipe.model.dtype, &recipe.model.device)?;
        let train = load(&recipe.data.train)?;
        let steps = recipe.steps(train.len());
        let name = &recipe.model.path;
        let model = model::locate_if(name, |config| fits(&recipe, steps, config))?;
        let policy = Policy::load(&model, dtype, &Device::Cpu)?;
        ensure_base(&recipe, &policy)?;
        model::check_tools(name, &policy.template, &train)?;
        let longest_prompt = longest(&recipe, &policy, &train)?;
        recipe.learner.resolve(&recipe.shape(steps, longest_prompt))?;
        let weights = policy.model.params().digest()?.to_hex().to_string();
        let config_digest = recipe.digest(steps, &weights)?;
        Ok(Self {
            recipe,
            config_digest,
            steps,
            model,
            weights,
            policy,
            dtype,
            train,
            longest_prompt,
        })
    }

    /// Makes it that of the run with another seed.
    ///
    /// # Errors
    /// As [`Recipe::digest`].
    pub fn reseed(&mut self, seed: u64) -> Result<()> {
        self.recipe.run.seed = seed;
        self.config_digest = self.recipe.digest(self.steps, &self.weights)?;
        Ok(())
    }

    /// What identifies the run in a directory.
    pub fn identity(&self, directory: &RunDirectory) -> Identity {
        let name = directory.path().file_name();
        let name = name.map_or_else(
            || self.recipe.run.name.clone(),
            |name| name.to_string_lossy().into_owned(),
        );
        Identity {
            run_id: format!("{name}-{}", self.config_digest.short()),
            config_digest: self.config_digest.clone(),
            total_steps: self.steps.get(),
            octet: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// The run, as the coordinator counts it.
    ///
    /// # Errors
    /// The data set has no rows.
    pub fn plan(&self, identity: &Identity) -> Result<RunPlan> {
        Ok(RunPlan {
            run_id: identity.run_id.clone(),
            config_digest: identity.config_digest.clone(),
            seed: self.recipe.run.seed,
            steps: self.steps,
            batch: self.recipe.learner.batch,
            lag: self.recipe.learner.lag,
            rows: NonZeroU64::new(self.train.len() as u64).context("the data set is empty")?,
        })
    }

    /// The rows, as leases hand them out.
    pub fn rows(&self) -> Rows {
        Arc::new(self.train.iter().map(Example::to_json).collect())
    }

    /// What a learner in the directory `run` is started with.
    pub fn learner(
        &self,
        run: &Path,
        member: &Membership,
        longest_prompt: usize,
        device: &Device,
    ) -> octet_learner::Config {
        octet_learner::Config {
            run: run.to_path_buf(),
            model: self.model.clone(),
            dtype: self.dtype,
            device: device.clone(),
            recipe: self.recipe.learner.clone(),
            shape: self.recipe.shape(self.steps, longest_prompt),
            config_digest: self.config_digest.clone(),
            coordinator: member.coordinator.clone(),
            join_token: member.join_token.clone(),
            endpoint: None,
            threads: None,
            patience: Patience::default(),
        }
    }

    /// What a worker is started with.
    pub fn worker(
        &self,
        member: &Membership,
        shape: WorkerShape,
        device: &Device,
    ) -> octet_rollout_worker::Config {
        let fitting = (shape.rows / self.recipe.sampling.completions).max(1) as u32;
        let fitting = NonZeroU32::new(fitting).unwrap_or(NonZeroU32::MIN);
        octet_rollout_worker::Config {
            name: shape.name,
            coordinator: member.coordinator.clone(),
            join_token: member.join_token.clone(),
            config_digest: self.config_digest.clone(),
            weights_endpoint: shape.weights_endpoint,
            capacity: shape.capacity.unwrap_or(fitting),
            max_rows: NonZeroUsize::new(shape.rows).unwrap_or(NonZeroUsize::MIN),
            model: self.model.clone(),
            adapter: self.recipe.adapter(),
            dtype: self.dtype,
            device: device.clone(),
            sampling: self.recipe.sampling(),
            on_reward_failure: OnRewardFailure::default(),
            drain: shape.drain,
            limits: Limits::default(),
            client: ClientOptions::default(),
        }
    }
}

/// Refuses to train on top of an adapter, and an adapter that the model cannot have.
fn ensure_base(recipe: &Recipe, policy: &Policy) -> Result<()> {
    let path = recipe.model.path.display();
    if policy.model.lora().is_some() {
        bail!(
            "key `model.path`: {path} is an adapter, expected a whole model: merge it first with `octet export {path} \
             --out DIR`"
        );
    }
    check_adapter(recipe, policy.model.config())
}

/// Refuses an adapter that a model of this configuration cannot have.
///
/// # Errors
/// Names the key.
pub fn check_adapter(recipe: &Recipe, config: &ModelConfig) -> Result<()> {
    let Some(lora) = &recipe.policy.lora else { return Ok(()) };
    lora.check(config).context("key `policy.lora`")
}

/// Tokens of the longest prompt; refuses prompts that do not fit.
pub fn longest(recipe: &Recipe, policy: &Policy, rows: &[Example]) -> Result<usize> {
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
