//! Opening: from the run directory to a learner that is ready.
//!
//! Invariant: configuration and memory plan are checked before anything is written or loaded, and
//! weights are loaded only as what they were committed as. Nothing of the run is changed, except for
//! what a crash left half-made.

use super::{Config, Learner, METRICS_FILE, SPOOL_FILE};
use crate::adamw::TensorSpec;
use crate::board::{Board, Inventory};
use crate::commit::{Checkpoint, Checkpoints};
use crate::config::Recipe;
use crate::error::LearnerError;
use crate::metrics::MetricsLog;
use crate::plan::{MemoryPlan, Workload, available_on};
use crate::service::intake::Rules;
use crate::service::weights::{Publication, Published, Stored, manifest};
use crate::spool::Spool;
use crate::step::trainer::Trainer;
use crate::thread::Place;
use crate::update::Updater;
use candle_core::{DType, Device};
use octet_policy::config::{Dtype, ModelConfig};
use octet_policy::files::{AdapterBase, AdapterFiles};
use octet_policy::model::Params;
use octet_policy::policy::{Policy, PolicyError};
use octet_policy::source::Source;
use octet_proto::{GroupIndex, PolicyVersion, StepIndex};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

impl Learner {
    /// Opens the run directory and goes on from its last commit, or begins with version 0. Blocks: it
    /// reads weights.
    ///
    /// # Errors
    /// The configuration, the memory, the model, or what is in the run directory; each with what to
    /// do.
    pub fn open(config: Config) -> Result<Self, LearnerError> {
        let recipe = config.recipe.resolve(&config.shape)?;
        let model = Source::open(&config.model)?.config()?;
        check_context(&recipe, &model, &config.model)?;
        let (dtype, device) = (config.dtype, &config.device);
        let mut workload = Workload::new(&recipe, stored(dtype), !device.is_cpu());
        // A GGUF file has no weights to be given out from; the version made of it is kept until the next is committed.
        workload.in_memory |= !config.model.is_dir();
        let plan = MemoryPlan::choose(&model, &workload, available_on(device))?;

        let checkpoints = Checkpoints::open(&config.run, config.config_digest.clone())?;
        let latest = checkpoints.latest()?;
        let committed = latest.as_ref().map_or(0, |latest| latest.state().committed_steps);
        let (mut policy, base) = newest(&recipe, &config.model, latest.as_ref())?;
        let hyperparameters = recipe.hyperparameters;
        let updater = match &latest {
            None => Updater::new(policy.model.clone(), plan.keep(), hyperparameters)?,
            Some(latest) => {
                let digest = policy.model.trained().digest()?.to_hex();
                latest.check_weights(digest.as_str())?;
                let specs = policy.model.trained().specs().iter();
                let specs =
                    specs.map(|s| TensorSpec { name: s.name.clone(), shape: s.shape.clone() });
                let optimiser = latest.optimizer(hyperparameters, specs.collect())?;
                Updater::resume(policy.model.clone(), plan.keep(), optimiser)?
            }
        };
        let updater = updater.computing(dtype, device)?;
        if base.is_some() {
            // The weights below the adapter are where they are computed with, and nowhere else.
            policy.model = updater.model().with_trained(updater.weights().clone());
        }
        let reference = match (recipe.loss.needs_reference(), &base) {
            (false, _) => None,
            (true, None) => Some(load(&config.model)?.model.to(dtype, device)?),
            (true, Some(_)) => Some(updater.model().base()),
        };
        let publication = publication(&recipe, committed, &checkpoints, &config, &policy)?;

        let path = config.run.join(SPOOL_FILE);
        let spool = Spool::open(&path)?;
        let next = StepIndex(committed).groups(recipe.batch).start;
        let inventory = Inventory::new(committed, next, spool.present(next..end_of_run(&recipe))?);
        let metrics = latest.as_ref().map(|latest| &latest.state().metrics);
        let (log, resumed) = MetricsLog::resume(&config.run.join(METRICS_FILE), metrics)?;
        tracing::info!(
            committed,
            spooled = inventory.spooled().len(),
            metrics_dropped = resumed.dropped,
            metrics_restored = resumed.restored,
            "learner opened"
        );

        let steps = (recipe.shape.steps, recipe.batch);
        let board = Arc::new(Board::new(steps, inventory, publication));
        let pool = config.threads.map(|threads| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads.get())
                .thread_name(|index| format!("octet-learn-{index}"))
                .build()
                .map(Arc::new)
                .map_err(|error| LearnerError::Threads {
                    what: "octet-learn",
                    reason: error.to_string(),
                })
        });
        let trainer = Trainer {
            recipe,
            reference,
            base,
            updater,
            // Reads while the other one, the writer's, appends.
            spool: Spool::open(&path)?,
            checkpoints,
            log,
            board: Arc::clone(&board),
            compute: (dtype, device.clone()),
            policy,
        };
        let (rules, pool) = (Rules::new(recipe, &model), pool.transpose()?);
        let (place, simulated) = (Place::Thread, Duration::ZERO);
        let transport = None;
        Ok(Self {
            config,
            recipe,
            rules,
            plan,
            trainer,
            spool,
            board,
            pool,
            place,
            simulated,
            transport,
        })
    }
}

fn load(directory: &Path) -> Result<Policy, LearnerError> {
    Ok(Policy::load(directory, DType::F32, &Device::Cpu)?)
}

/// The policy of the newest commit, or version 0; and what its adapter belongs to, where one is trained.
fn newest(
    recipe: &Recipe,
    model: &Path,
    latest: Option<&Checkpoint>,
) -> Result<(Policy, Option<AdapterBase>), LearnerError> {
    let Some(fresh) = &recipe.shape.adapter else {
        return Ok((load(latest.map_or(model, Checkpoint::path))?, None));
    };
    let policy = load(model)?;
    let name = std::path::absolute(model).unwrap_or_else(|_| model.to_owned());
    let digest = policy.model.params().digest()?.to_hex().to_string();
    let base = AdapterBase { name: name.to_string_lossy().into_owned(), digest: Some(digest) };
    let policy = match latest {
        None => Policy { model: policy.model.with_fresh_lora(fresh)?, ..policy },
        Some(latest) => policy.with_adapter(&adapter(latest.path())?)?,
    };
    Ok((policy, Some(base)))
}

fn adapter(directory: &Path) -> Result<AdapterFiles, LearnerError> {
    Ok(AdapterFiles::open(directory).map_err(PolicyError::from)?)
}

/// The versions that the steps to come are sampled with, as far as they exist.
fn publication(
    recipe: &Recipe,
    committed: u64,
    checkpoints: &Checkpoints,
    config: &Config,
    newest: &Policy,
) -> Result<Publication, LearnerError> {
    let publication = Publication::new(recipe.lag, []);
    let model = newest.model.config();
    let kept = |version, weights: &Params| -> Result<(), LearnerError> {
        let weights = weights.to(config.dtype, &Device::Cpu)?;
        publication.publish(Published::new(PolicyVersion(version), &weights)?);
        Ok(())
    };
    let publish = |version, policy: &Policy| -> Result<(), LearnerError> {
        let weights = policy.model.params();
        // From the files where these have what is sampled with: another copy in memory is saved.
        if config.dtype != DType::F32 || !policy.directory.is_dir() {
            return kept(version, weights);
        }
        let stored = Stored::open(&policy.directory, policy.model.config());
        let manifest = manifest(PolicyVersion(version), weights)?;
        let stored = stored.map_err(PolicyError::from)?;
        publication.publish(Published::stored(manifest, stored));
        Ok(())
    };
    for version in committed.saturating_sub(recipe.lag)..committed {
        match (&recipe.shape.adapter, version) {
            (None, 0) => publish(version, &load(&config.model)?)?,
            (None, _) => publish(version, &load(checkpoints.load(version)?.path())?)?,
            (Some(fresh), 0) => {
                let (specs, values) = (fresh.lora.tensor_specs(model), fresh.values(model));
                kept(version, &Params::of_vecs(specs, values, DType::F32, &Device::Cpu)?)?;
            }
            (Some(_), _) => {
                let files = adapter(checkpoints.load(version)?.path())?;
                kept(version, &files.params(model, DType::F32, &Device::Cpu)?)?;
            }
        }
    }
    match &recipe.shape.adapter {
        None => publish(committed, newest)?,
        Some(_) => kept(committed, newest.model.trained())?,
    }
    Ok(publication)
}

/// The type that a checkpoint or a version would have.
fn stored(dtype: DType) -> Dtype {
    if dtype == DType::BF16 { Dtype::Bf16 } else { Dtype::F32 }
}

fn end_of_run(recipe: &Recipe) -> GroupIndex {
    GroupIndex(recipe.shape.steps.get().saturating_mul(recipe.batch.get()))
}

fn check_context(recipe: &Recipe, model: &ModelConfig, path: &Path) -> Result<(), LearnerError> {
    let (prompt, context) = (recipe.shape.longest_prompt, model.max_position_embeddings);
    if prompt < context {
        return Ok(());
    }
    Err(LearnerError::Context { model: path.to_owned(), prompt, context })
}
