//! The trainer: reads a step's groups, learns them, commits, publishes.
//!
//! Invariants: the weights change only between the last micro-batch and the commit, and a step that is
//! interrupted before that has changed nothing on the disk. A version is published after its commit,
//! shown as committed after that, and logged last; each of these can be made up for after a crash.

use super::batch::Prepared;
use super::record::Seen;
use super::{ModelCost, StepBatch};
use crate::board::Board;
use crate::commit::{Checkpoints, StepCommit};
use crate::config::Recipe;
use crate::disk;
use crate::error::LearnerError;
use crate::metrics::{MetricsLog, StepMetrics, Timing};
use crate::service::weights::{Published, Stored, manifest};
use crate::spool::Spool;
use crate::update::Updater;
use candle_core::{DType, Device};
use octet_policy::config::Dtype;
use octet_policy::files::{AdapterBase, StagedDir};
use octet_policy::layout::GroupTokens;
use octet_policy::model::Model;
use octet_policy::policy::{Policy, PolicyError};
use octet_proto::{PolicyVersion, StepIndex};
use octet_runtime::CancellationToken;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// All that a step needs. It moves to the step's thread and back.
pub(crate) struct Trainer {
    pub recipe: Recipe,
    pub policy: Policy,
    pub updater: Updater,
    /// Version 0, where the loss compares with it; of an adapted model its own weights, not a copy.
    pub reference: Option<Model>,
    /// What the adapter belongs to, where one is trained.
    pub base: Option<AdapterBase>,
    pub spool: Spool,
    pub checkpoints: Checkpoints,
    pub log: MetricsLog,
    pub board: Arc<Board>,
    /// What the model computes with, and where.
    pub compute: (DType, Device),
}

/// How a step ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is committed.
    Committed,
    /// It was given up before the weights changed; the spool still has its groups.
    Interrupted,
}

/// A step that was learned and is to be committed.
struct Learned {
    seen: Seen,
    metrics: StepMetrics,
}

impl Trainer {
    /// Takes step `step`, whose groups are all in the spool and were waited for for so long.
    pub fn step(
        &mut self,
        step: StepIndex,
        waited: Duration,
        stop: &CancellationToken,
    ) -> Result<Outcome, LearnerError> {
        match self.learn(step, waited, stop)? {
            Some(learned) => self.commit(step, learned).map(|()| Outcome::Committed),
            None => Ok(Outcome::Interrupted),
        }
    }

    fn learn(
        &mut self,
        step: StepIndex,
        waited: Duration,
        stop: &CancellationToken,
    ) -> Result<Option<Learned>, LearnerError> {
        let started = Instant::now();
        let recipe = self.recipe;
        let groups = self.spool.read(step.groups(recipe.batch))?;
        let batch = StepBatch::new(step.get(), groups, recipe.loss, recipe.shape.max_tokens)?;
        let sampler = self.sampler(step)?;
        let config = self.policy.model.config();
        let cost = match self.policy.model.lora() {
            None => ModelCost::new(config),
            Some(lora) => ModelCost::adapted(config, lora),
        };
        let mut seen = Seen::default();
        let (every, inert, limit) =
            (recipe.gap_every, recipe.check_inert, recipe.micro_batch_tokens);
        let measured = match &sampler {
            Some(_) => batch.spread(step.get(), every, inert, limit),
            // What is learned is measured on the way.
            None if inert => batch.inert(limit),
            None => Vec::new(),
        };
        for groups in measured {
            if stop.is_cancelled() {
                return Ok(None);
            }
            self.measure(&groups, sampler.as_ref(), &mut seen)?;
        }
        // The older weights are needed no longer.
        let on_policy = sampler.is_none();
        drop(sampler);
        for groups in batch.learned(limit) {
            if stop.is_cancelled() {
                return Ok(None);
            }
            self.accumulate(&batch, &groups, on_policy, &mut seen)?;
            seen.learned(&groups, &cost);
        }
        if stop.is_cancelled() {
            return Ok(None);
        }
        let learning_rate = recipe.schedule.learning_rate(step.get());
        let update = self.updater.apply(learning_rate)?;
        let timing = Timing {
            sample_wait_seconds: waited.as_secs_f64(),
            learn_seconds: started.elapsed().as_secs_f64(),
            ..Timing::default()
        };
        let made = step.makes().get();
        let metrics = seen.record(made, &batch, update, learning_rate, timing)?;
        Ok(Some(Learned { seen, metrics }))
    }

    /// The model that sampled the step, where it is not the one that learns.
    fn sampler(&self, step: StepIndex) -> Result<Option<Model>, LearnerError> {
        let version = step.sampled_with(self.recipe.lag);
        if version.get() == step.get() {
            return Ok(None);
        }
        // The publication keeps what the lag reaches, and an older version is never asked for.
        match self.board.publication.get(version) {
            Ok(published) => {
                let model = self.updater.model();
                let weights = published.params(model.trained())?;
                Ok(Some(model.with_trained(weights.to(self.compute.0, &self.compute.1)?)))
            }
            Err(error) => Err(candle_core::Error::wrap(error).into()),
        }
    }

    /// The gap alone, of groups whose model that sampled them is not the one that learns, or that teach nothing.
    fn measure(
        &self,
        groups: &[&Prepared],
        sampler: Option<&Model>,
        seen: &mut Seen,
    ) -> Result<(), LearnerError> {
        let model = sampler.unwrap_or(self.updater.model());
        let found = model.log_probs(&tokens(groups), self.recipe.shape.shaping)?;
        Ok(seen.gap.see(groups, &found.logprobs, self.recipe.logprob_gap_max)?)
    }

    /// Forward, loss and backward of one micro-batch; and the gap, where the policy that learns is the one that sampled.
    fn accumulate(
        &mut self,
        batch: &StepBatch,
        groups: &[&Prepared],
        on_policy: bool,
        seen: &mut Seen,
    ) -> Result<(), LearnerError> {
        let (tokens, shaping) = (tokens(groups), self.recipe.shape.shaping);
        let bound = self.recipe.logprob_gap_max;
        let reference = self.reference.as_ref();
        let reference = reference.map(|model| model.log_probs(&tokens, shaping)).transpose()?;
        let mut fault = None;
        let learned = self.updater.accumulate(&tokens, shaping, |current| {
            let gap = match on_policy {
                true => seen.gap.see(groups, &current.logprobs, bound).map_err(LearnerError::from),
                false => Ok(()),
            };
            let slopes = gap
                .and_then(|()| batch.slopes(groups, current, reference.as_ref(), &mut seen.tally));
            slopes.map_err(|error| {
                let message = error.to_string();
                fault = Some(error);
                candle_core::Error::Msg(message)
            })
        });
        match fault {
            Some(fault) => Err(fault),
            None => Ok(learned.map(drop)?),
        }
    }

    fn commit(&mut self, step: StepIndex, learned: Learned) -> Result<(), LearnerError> {
        let Learned { seen, mut metrics } = learned;
        let started = Instant::now();
        let weights = self.updater.weights();
        self.policy.model.replace(weights.clone());
        let version = PolicyVersion(metrics.step);
        // What is committed is what is optimised, so a resumed run goes on with the same bits. Where that is also what
        // is sampled with, it is given out from the commit; another type, or an adapter, is kept in memory.
        let (manifest, other) = match self.compute.0 {
            DType::F32 if self.base.is_none() => (manifest(version, weights)?, None),
            dtype => {
                let published = Published::new(version, &weights.to(dtype, &Device::Cpu)?)?;
                (published.manifest().clone(), Some(published))
            }
        };
        let digest = match other {
            None => manifest.digest.clone(),
            Some(_) => weights.digest()?.to_hex().to_string(),
        };
        let (policy, base) = (&self.policy, self.base.as_ref());
        let commit = StepCommit {
            groups: step.groups(self.recipe.batch),
            weights_digest: &digest,
            policy_bytes: manifest.total_bytes,
            metrics: &metrics,
            optimizer: self.updater.optimiser(),
        };
        let checkpoint = self.checkpoints.commit(&commit, |folder| write(policy, base, folder))?;
        if self.base.is_none() {
            // The next commit copies tokenizer and template from here: older ones are pruned.
            self.policy.directory = checkpoint.path().to_owned();
        }
        let published = match other {
            Some(published) => published,
            None => {
                let stored = Stored::open(checkpoint.path(), self.policy.model.config());
                Published::stored(manifest, stored.map_err(PolicyError::from)?)
            }
        };
        let committed = started.elapsed();
        self.board.publication.publish(published);
        self.board.show_commit(metrics.step);
        metrics.timing.commit_seconds = Some(committed.as_secs_f64());
        let publish_seconds = (started.elapsed() - committed).as_secs_f64();
        metrics.timing.publish_seconds = Some(publish_seconds);
        self.board.totals.send_modify(|totals| {
            totals.steps += 1;
            totals.learned_tokens += seen.tokens;
            totals.flops += seen.flops;
            totals.learn_seconds += metrics.timing.learn_seconds;
            totals.wait_seconds += metrics.timing.sample_wait_seconds;
            totals.commit_seconds += started.elapsed().as_secs_f64();
            totals.logprob_gap_max = totals.logprob_gap_max.max(seen.gap.largest());
        });
        self.log.append(&metrics)?;
        // Nobody may be listening.
        let _listeners = self.board.events.send(Arc::new(metrics));
        self.checkpoints.prune(&self.recipe.retention)?;
        Ok(())
    }
}

fn tokens(groups: &[&Prepared]) -> Vec<GroupTokens> {
    groups.iter().map(|prepared| prepared.tokens()).collect()
}

/// Fills a commit's directory with the policy's files, or its adapter's. The policy writes them into a directory of its
/// own making, from which they move up.
fn write(
    policy: &Policy,
    base: Option<&AdapterBase>,
    folder: &Path,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let staged = StagedDir::create(&folder.join("policy"))?;
    match base {
        None => policy.save_into(&staged, Dtype::F32)?,
        Some(base) => policy.save_adapter_into(&staged, base)?,
    }
    for entry in disk::entries(staged.path())? {
        if let Some(name) = entry.file_name() {
            std::fs::rename(&entry, folder.join(name))?;
        }
    }
    Ok(())
}
