//! Learning: one GRPO update of packed groups, and the speed of its matrix products alone.
//!
//! Invariant: batch, micro-batches, slopes, gradients and update are the learner's own code, in the trainer's
//! order. A trainer holds no more (versions are given out from the files of their commits), so peak memory is that of a
//! learner.

use super::report::{Findings, Quantity, Samples};
use super::settings::Settings;
use super::{Bench, products, room};
use anyhow::Result;
use indicatif::ProgressBar;
use octet_learner::config::Recipe;
use octet_learner::group::{Finish, GroupParts, ScoredCompletion, ScoredGroup};
use octet_learner::objective::Tally;
use octet_learner::plan::{Available, MemoryPlan, Phase, Place, Workload, available_memory};
use octet_learner::step::{Gap, ModelCost, StepBatch};
use octet_learner::update::Updater;
use octet_policy::config::Dtype;
use octet_policy::kernel::head::Shaping;
use octet_policy::layout::GroupTokens;
use octet_policy::model::Model;
use octet_proto::{GroupIndex, LeaseEpoch, PolicyVersion, RevisionNumber};
use serde_json::json;
use std::time::{Duration, Instant};

/// A learner's parts, without the run around them.
pub struct Rig {
    /// The model with its gradients and moments.
    pub updater: Updater,
    recipe: Recipe,
}

/// How long the parts of an update took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Forward passes, up to the log-probabilities.
    pub forward: Duration,
    /// The loss and the backward passes.
    pub backward: Duration,
}

/// The memory of a learning step, or why it does not fit.
///
/// # Errors
/// Names what is needed and what is free.
pub fn plan(bench: &Bench, settings: &Settings) -> Result<MemoryPlan> {
    let recipe = settings.learner().resolve(&settings.run_shape())?;
    let workload = Workload::new(&recipe, Dtype::F32, false);
    let available = Available { host: available_memory(), device: None };
    Ok(MemoryPlan::choose(&bench.subject.config, &workload, available)?)
}

impl Rig {
    /// A learner with fresh moments.
    pub fn new(bench: &Bench, settings: &Settings, plan: &MemoryPlan) -> Result<Self> {
        let recipe = settings.learner().resolve(&settings.run_shape())?;
        let model = bench.subject.model(settings.seed)?;
        let updater = Updater::new(model, plan.keep(), recipe.hyperparameters)?;
        Ok(Self { updater, recipe })
    }

    /// A step's groups as workers would have delivered them: log-probabilities of this model, and rewards that
    /// teach something.
    pub fn batch(&self, bench: &Bench, settings: &Settings) -> Result<StepBatch> {
        let (groups, completions) = (settings.groups.get(), settings.completions);
        let prompts = settings.prompts(&bench.subject, groups, settings.prompt);
        let mut answers =
            settings.answers(&bench.subject, groups * completions, settings.new).into_iter();
        let mut scored = Vec::with_capacity(groups);
        for (index, prefix) in prompts.into_iter().enumerate() {
            let suffixes = answers.by_ref().take(completions).collect();
            scored.push(score(
                self.updater.model(),
                index as u64,
                GroupTokens { prefix, suffixes },
            )?);
        }
        Ok(StepBatch::new(0, scored, self.recipe.loss, settings.new)?)
    }

    /// Adds the gradients of all groups.
    pub fn accumulate(&mut self, batch: &StepBatch, bar: &ProgressBar) -> Result<Times> {
        let (mut tally, mut gap) = (Tally::default(), Gap::default());
        let mut times = Times::default();
        for groups in batch.learned(self.recipe.micro_batch_tokens) {
            let tokens: Vec<GroupTokens> = groups.iter().map(|group| group.tokens()).collect();
            let start = Instant::now();
            let mut predicted = start;
            self.updater.accumulate(&tokens, Shaping::default(), |current| {
                predicted = Instant::now();
                // After the first update the policy is not the one that was recorded any more.
                gap.see(&groups, &current.logprobs, f64::INFINITY)
                    .map_err(candle_core::Error::wrap)?;
                let slopes = batch.slopes(&groups, current, None, &mut tally);
                slopes.map_err(candle_core::Error::wrap)
            })?;
            times.forward += predicted - start;
            times.backward += predicted.elapsed();
            bar.inc(groups.len() as u64);
        }
        Ok(times)
    }
}

/// A group with the log-probabilities that the model gives its tokens.
fn score(model: &Model, index: u64, tokens: GroupTokens) -> Result<ScoredGroup> {
    let tokens = [tokens];
    let found = model.log_probs(&tokens, Shaping::default())?;
    let [GroupTokens { prefix, suffixes }] = tokens;
    let mut logprobs = found.logprobs.into_iter();
    let completions = suffixes.into_iter().enumerate().map(|(sample, tokens)| ScoredCompletion {
        sample: sample as u32,
        logprobs: logprobs.by_ref().take(tokens.len()).collect(),
        tokens,
        finish: Finish::Length,
        reward: (sample % 2) as f64,
        verdict: "bench".into(),
        detail: String::new(),
    });
    Ok(ScoredGroup::new(GroupParts {
        group: GroupIndex(index),
        lease_epoch: LeaseEpoch(0),
        policy_version: PolicyVersion(0),
        reward_revision: RevisionNumber(0),
        worker: "bench".into(),
        example_json: "{}".into(),
        completions: completions.collect(),
        prompt_tokens: prefix,
    })?)
}

/// Measures.
pub fn measure(bench: &Bench) -> Result<Findings> {
    let s = &bench.settings;
    let plan = plan(bench, s)?;
    let bar = bench.begin("learning", ((1 + s.repeats) * s.groups.get()) as u64);
    let mut rig = Rig::new(bench, s, &plan)?;
    let batch = rig.batch(bench, s)?;
    let [mut forward, mut backward, mut optimiser, mut update] =
        [(); 4].map(|()| Samples::default());
    let (result, peak) = room::peak_of(|| -> Result<()> {
        for repetition in 0..=s.repeats {
            let start = Instant::now();
            let times = rig.accumulate(&batch, &bar)?;
            let applied = Instant::now();
            rig.updater.apply(rig.recipe.schedule.learning_rate(0))?;
            if repetition > 0 {
                forward.push(times.forward);
                backward.push(times.backward);
                optimiser.push(applied.elapsed());
                update.push(start.elapsed());
            }
        }
        Ok(())
    });
    result?;
    let products = products::measure(rig.updater.model(), largest(&batch, rig.recipe))?;
    bar.finish_and_clear();

    let headline = format!("{}, micro-batches of {} tokens", s.work(), plan.tokens());
    let mut found = Findings::new("learning", headline, s.conditions());
    found.condition("micro_batch_tokens", json!(s.micro_batch_tokens));
    found.time("forward", &forward);
    found.time("backward", &backward);
    found.time("optimiser", &optimiser);
    found.time("update", &update);
    let (seconds, groups) = (update.median(), s.groups.get() as f64);
    let rows = groups * (s.prompt + s.completions * s.new) as f64;
    found.add("update", Quantity::Tokens, rows / seconds);
    let lengths = std::iter::repeat_n(s.new, s.completions);
    let operations = groups * ModelCost::new(&bench.subject.config).learn(s.prompt, lengths);
    found.flops("update", operations, seconds, bench.machine.gflops);
    found.flops("products", products.operations, products.seconds, bench.machine.gflops);
    let planned = |phase| plan.bytes(phase, Place::Host);
    found.memory(peak, planned(Phase::Always) + planned(Phase::Learning));
    Ok(found)
}

/// Rows of the largest micro-batch, and how many of them predict a token.
fn largest(batch: &StepBatch, recipe: Recipe) -> (usize, usize) {
    let rows = |groups: &Vec<&octet_learner::step::batch::Prepared>| {
        let completions = groups.iter().flat_map(|group| &group.group().completions);
        let own: usize = completions.map(|c| c.tokens.len() - 1).sum();
        let prompts: usize = groups.iter().map(|group| group.group().prompt_tokens.len()).sum();
        (prompts + own, groups.len() + own)
    };
    batch.learned(recipe.micro_batch_tokens).iter().map(rows).max().unwrap_or((1, 1))
}
