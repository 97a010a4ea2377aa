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
pub mod whole;

pub use cluster::{Work, token};

use crate::evaluation::{Outcome, evaluate};
use crate::recipe::{QUICKSTART, Recipe};
use crate::{screen, track};
use anyhow::{Context, Result};
use clap::Args;
use directory::RunDirectory;
use octet_dataset::Example;
use octet_policy::kernel::head::Shaping;
use octet_policy::policy::Policy;
use octet_policy::sampler::Sampling;
use octet_runtime::CancellationToken;
use progress::Screen;
use setup::Setup;
use std::path::PathBuf;
use std::time::Instant;
use summary::Summary;
use whole::{Onlooker, Run, log};

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
    log(&screen, directory.join("log.jsonl"))?;
    setup.introduce(&screen, &directory);
    let stop = CancellationToken::new();
    let run = Run {
        setup: &setup,
        identity: &identity,
        directory: &directory,
        screen: &screen,
        begin,
        stop: &stop,
    };
    let mut alone = Alone { setup: &setup, directory: &directory, screen: &screen };
    if !run.complete(targets, &mut alone)? {
        screen.line(&format!(
            "stopped; go on with `octet train --resume {}`",
            directory.path().display()
        ));
    }
    Ok(())
}

/// Somebody with one run.
struct Alone<'a> {
    setup: &'a Setup,
    directory: &'a RunDirectory,
    screen: &'a Screen,
}

impl Onlooker for Alone<'_> {
    fn evaluate(&mut self, when: &str, policy: &Policy) -> Result<Option<Vec<Outcome>>> {
        self.setup.evaluate(self.screen, when, policy)
    }

    fn done(&mut self, summary: &Summary) {
        screen::say(format_args!(
            "\n{summary}\n\nrun          {run} (summary.json, metrics.jsonl, curves.png)\npolicy       {policy}\n\n\
             try next     octet report {run}\n             octet eval {policy} --show 5",
            run = self.directory.path().display(),
            policy = summary.policy,
        ));
    }
}

impl Setup {
    /// Scores a policy on the held-out set; `None` where evaluation is disabled.
    fn evaluate(
        &self,
        screen: &Screen,
        when: &str,
        policy: &Policy,
    ) -> Result<Option<Vec<Outcome>>> {
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
        Ok(Some(outcomes))
    }
}
