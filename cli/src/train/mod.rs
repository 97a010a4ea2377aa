//! `octet train`: the whole job in one process, over the services of a cluster.
//!
//! Invariant: everything that can be found wrong is found before the run directory is made.

pub mod basis;
pub mod cluster;
pub mod directory;
pub mod progress;
pub mod setup;
pub mod summary;
pub mod trivial;

pub use cluster::{Work, token};

use crate::evaluation::{evaluate, record, table::Comparison, table::Report};
use crate::recipe::{QUICKSTART, Recipe};
use crate::track::{self, Tracked};
use crate::{compute, machine, plot, screen};
use anyhow::{Context, Result};
use clap::Args;
use directory::{Identity, RunDirectory};
use octet_dataset::Example;
use octet_policy::kernel::head::Shaping;
use octet_policy::policy::Policy;
use octet_policy::sampler::Sampling;
use octet_runtime::telemetry::{self, LogOptions};
use octet_tracking::event::Status;
use progress::{Screen, Steps};
use setup::Setup;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use summary::Summary;

/// Train a policy with GRPO: sample eight completions per prompt, score them, learn, and show what it
/// learned on held-out prompts with unseen tools.
///
/// Without arguments it teaches the bundled policy on the bundled data set. The same configuration
/// always gives the same weights, bit for bit, however often it is stopped and resumed.
#[derive(Args, Debug)]
pub struct TrainArgs {
    /// The run's recipe.
    #[arg(default_value = QUICKSTART)]
    recipe: PathBuf,
    /// The policy to start from, for model.path of the recipe: a Hugging Face directory, a GGUF file, or a name on
    /// the hub (OWNER/NAME[@REVISION]).
    #[arg(long)]
    model: Option<PathBuf>,
    /// The run directory; without it, the first free runs/NAME.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Override a key of the recipe, e.g. --set run.seed=2 --set learner.batch=16.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Rollout workers in this process. Their number changes no bit of the result.
    #[arg(long)]
    workers: Option<usize>,
    /// Resolve and validate the recipe, print it with its memory plan, and stop there. Needs no weights.
    #[arg(long)]
    plan: bool,
    /// Go on with a run that was stopped or killed.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["recipe", "out", "set", "plan", "model"])]
    resume: Option<PathBuf>,
}

/// The evaluations: what each is called, and where its rows are written.
const BEFORE: (&str, &str) = ("before", record::BEFORE_FILE);
const AFTER: (&str, &str) = ("after", record::AFTER_FILE);

/// Runs the command.
pub fn run(args: &TrainArgs) -> Result<()> {
    let begin = Instant::now();
    let resumed = args.resume.is_some();
    let mut directory = RunDirectory::choose(args.resume.as_deref().or(args.out.as_deref()), "");
    let mut recipe =
        if resumed { directory.recipe()? } else { Recipe::resolve(&args.recipe, &args.set)? };
    if let Some(model) = &args.model {
        recipe.model.path.clone_from(model);
    }
    if let Some(count) = args.workers {
        anyhow::ensure!(count > 0, "--workers: expected at least 1, found 0");
        recipe.workers.count = count;
    }
    if args.resume.is_none() && args.out.is_none() {
        directory = RunDirectory::choose(None, &recipe.run.name);
    }
    if args.plan {
        screen::say(setup::plan(&recipe)?);
        return Ok(());
    }
    let targets = track::targets(&recipe.tracking, &directory)?;
    let setup = Setup::new(recipe, &directory)?;
    let identity = if resumed {
        directory.check(&setup.identity)?
    } else {
        directory.begin(&setup.basis.recipe, &setup.identity)?;
        setup.identity.clone()
    };
    let screen = Screen::new();
    log(&screen, &directory)?;
    setup.introduce(&screen, &directory)?;
    let tracked = Tracked::begin(&setup.basis.recipe, &identity, &directory, targets)?;
    let outcome = complete(&setup, &identity, &directory, &screen, begin);
    tracked.finish(match &outcome {
        Ok(true) => Status::Finished,
        Ok(false) => Status::Killed,
        Err(_) => Status::Failed,
    });
    outcome.map(drop)
}

/// From the first evaluation to the last; false when it was stopped between.
fn complete(
    setup: &Setup,
    identity: &Identity,
    directory: &RunDirectory,
    screen: &Screen,
    begin: Instant,
) -> Result<bool> {
    let machine_gflops = machine::gflops();

    let before = match directory.read("before.json")? {
        Some(report) => Some(report),
        None => {
            let report = setup.evaluate(screen, directory, BEFORE, &setup.basis.policy)?;
            if let Some(report) = &report {
                directory.write("before.json", &serde_json::to_vec_pretty(report)?)?;
            }
            report
        }
    };
    if let Some(report) = &before {
        screen.line(&format!("held out, before\n{report}"));
    }
    let mut steps = Steps::new(screen, setup.basis.steps.get());
    let result = cluster::train(setup, identity, directory, move |m| steps.show(m))?;
    let Some(done) = result else {
        screen.line(&format!(
            "stopped; go on with `octet train --resume {}`",
            directory.path().display()
        ));
        return Ok(false);
    };

    let metrics = octet_learner::metrics::read(&directory.join("metrics.jsonl"))?;
    plot::write(directory.path(), &metrics)?;
    // A device that is opened anew: what a thread of the run could not free when it ended, the old one would
    // report here.
    let device = compute::open(&setup.basis.recipe.model.device)?;
    let trained = Policy::load(&done.policy, setup.basis.dtype, &device)?;
    let summary = Summary {
        before,
        after: setup.evaluate(screen, directory, AFTER, &trained)?,
        weights_digest: done.weights_digest,
        logprob_gap_max: done.logprob_gap_max,
        steps: setup.identity.total_steps,
        wall_seconds: begin.elapsed().as_secs_f64(),
        sampling: done.sampling.map(|s| s.beside(machine_gflops)),
        learning: done.learning.map(|s| s.beside(machine_gflops)),
        policy: done.policy.display().to_string(),
        config_digest: identity.config_digest.to_string(),
    };
    if let (Some(before), Some(after)) = (&summary.before, &summary.after) {
        directory.write("evaluation.md", Comparison { before, after }.markdown().as_bytes())?;
    }
    directory.write("summary.json", &serde_json::to_vec_pretty(&summary)?)?;
    screen::say(format_args!(
        "\n{summary}\n\nrun          {run} (summary.json, metrics.jsonl, curves.png)\npolicy       {policy}\n\n\
         try next     octet report {run}\n             octet eval {policy} --show 5",
        run = directory.path().display(),
        policy = done.policy.display(),
    ));
    Ok(true)
}

/// Warnings go to the screen between the bars, and to the run's log.
fn log(screen: &Screen, directory: &RunDirectory) -> Result<()> {
    let bars = screen.bars();
    let mut options = LogOptions::from_environment();
    options.filter.get_or_insert_with(|| "warn".into());
    options.file = Some(directory.join("log.jsonl"));
    options.around_write = Some(Arc::new(move |write| bars.suspend(write)));
    Ok(telemetry::init(&options)?)
}

impl Setup {
    /// Scores a policy on the held-out set, and writes down each row; `None` where evaluation is disabled.
    fn evaluate(
        &self,
        screen: &Screen,
        directory: &RunDirectory,
        (when, file): (&str, &str),
        policy: &Policy,
    ) -> Result<Option<Report>> {
        let keys = &self.basis.recipe.evaluation;
        if !keys.enabled {
            return Ok(None);
        }
        let rows: &[Example] = &self.held_out;
        let sampling = Sampling {
            seed: self.basis.recipe.run.seed,
            completions: keys.completions,
            shaping: Shaping { temperature: keys.temperature, ..Shaping::default() },
            max_tokens: self.basis.recipe.sampling.max_tokens,
            stop_tokens: policy.stop_tokens(),
        };
        let bar = screen.bar(when, (rows.len() * keys.completions) as u64);
        let outcomes =
            evaluate(policy, rows, &*self.function, sampling, |n| bar.set_position(n as u64))
                .context("evaluating the held-out set")?;
        bar.finish_and_clear();
        directory.write(file, &record::lines(rows, &outcomes)?)?;
        Ok(Some(Report::new(&outcomes)))
    }
}
