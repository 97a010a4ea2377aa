//! A whole step: sampled, scored, learned, committed and published by the services that `octet train` runs.
//!
//! Invariant: nothing is measured but the time from one commit to the next, as the run itself reports them; the
//! first step, which includes the start of all services, is not counted, nor are the last ones of a run with a lag, beside
//! which nothing is sampled any more.

use super::report::{Findings, Quantity, Samples};
use super::{Bench, learning, room, synthetic};
use crate::recipe::Recipe;
use crate::train::cluster;
use crate::train::directory::RunDirectory;
use crate::train::setup::Setup;
use anyhow::{Context, Result};
use octet_learner::metrics::{StepMetrics, Timing};
use octet_learner::plan::Place;
use octet_learner::step::ModelCost;
use serde_json::json;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The steps as they were committed.
type Committed = Arc<Mutex<Vec<(Instant, Timing)>>>;

/// Measures.
pub fn measure(bench: &Bench) -> Result<Findings> {
    let s = &bench.settings;
    let plan = learning::plan(bench, s)?;
    let steps = 1 + s.repeats as u64 + s.lag;
    let bar = bench.begin("step", steps);
    let home = tempfile::tempdir().context("making a directory for the run")?;
    let setup = prepare(bench, home.path(), steps)?;
    let directory = RunDirectory::at(&home.path().join("run"));
    let identity = setup.basis.identity(&directory);
    directory.begin(&setup.basis.recipe, &identity)?;
    let committed = Committed::default();
    let seen = Arc::clone(&committed);
    let shown = bar.clone();
    let show = move |metrics: &StepMetrics| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push((Instant::now(), metrics.timing.clone()));
        shown.inc(1);
    };
    let (done, peak) = room::peak_of(|| cluster::train(&setup, &identity, &directory, show));
    done?.context("the run was stopped before its last step")?;
    bar.finish_and_clear();

    let committed = committed.lock().unwrap_or_else(PoisonError::into_inner);
    let [mut wait, mut learn, mut commit, mut whole] = [(); 4].map(|()| Samples::default());
    for step in committed.windows(2).take(s.repeats) {
        let ((before, _), (at, timing)) = (&step[0], &step[1]);
        let seconds = |value: Option<f64>| Duration::from_secs_f64(value.unwrap_or(0.0));
        wait.push(seconds(Some(timing.sample_wait_seconds)));
        learn.push(seconds(Some(timing.learn_seconds)));
        commit.push(seconds(timing.commit_seconds) + seconds(timing.publish_seconds));
        whole.push(*at - *before);
    }
    let headline = format!("{}, lag {}", s.work(), s.lag);
    let mut found = Findings::new("step", headline, s.conditions());
    found.condition("lag", json!(s.lag));
    found.condition("rows", json!(s.rows));
    found.condition("micro_batch_tokens", json!(s.micro_batch_tokens));
    found.time("wait", &wait);
    found.time("learn", &learn);
    found.time("commit", &commit);
    found.time("whole", &whole);
    let (seconds, groups) = (whole.median(), s.groups.get() as f64);
    let tokens = groups * (s.prompt + s.completions * s.new) as f64;
    found.add("whole", Quantity::Tokens, tokens / seconds);
    let lengths = || std::iter::repeat_n(s.new, s.completions);
    let cost = ModelCost::new(&bench.subject.config);
    let operations = groups * (cost.sample(s.prompt, lengths()) + cost.learn(s.prompt, lengths()));
    found.flops("whole", operations, seconds, bench.machine.gflops);
    // The learner plans for itself; the worker of the same process samples beside it.
    let worker = room::sampling(&bench.subject.config, s);
    found.memory(peak, plan.peak(Place::Host) + worker);
    Ok(found)
}

/// A run over synthetic prompts in a directory that goes away.
fn prepare(bench: &Bench, home: &Path, steps: u64) -> Result<Setup> {
    let s = &bench.settings;
    let (model, data) = (home.join("policy"), home.join("rows.jsonl"));
    synthetic::policy(&bench.subject, s.seed, &model)?;
    let rows = synthetic::rows(&bench.subject, s, s.groups.get() * steps as usize);
    std::fs::write(&data, rows).with_context(|| format!("writing {}", data.display()))?;
    let mut recipe = Recipe::default();
    recipe.run.name = "bench".into();
    recipe.run.seed = s.seed;
    recipe.run.steps = Some(steps);
    recipe.model.path = model;
    recipe.data.train = data;
    recipe.data.max_prompt_tokens = s.prompt;
    recipe.sampling.completions = s.completions;
    recipe.sampling.max_tokens = s.new;
    recipe.evaluation.enabled = false;
    recipe.workers.rows = s.rows;
    recipe.learner = s.learner();
    let mut setup = Setup::new(recipe, &RunDirectory::at(&home.join("run")))?;
    setup.function = Arc::new(synthetic::Lots);
    Ok(setup)
}
