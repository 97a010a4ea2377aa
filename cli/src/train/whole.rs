//! One run from its first evaluation to its summary, whoever asked for it: `octet train`, or `octet compare` for
//! each of several.
//!
//! Invariant: what is in the run directory afterwards does not depend on who asked.

use super::cluster;
use super::directory::{Identity, RunDirectory};
use super::progress::{Screen, Steps};
use super::setup::Setup;
use super::summary::Summary;
use crate::evaluation::Outcome;
use crate::evaluation::record::{self, AFTER_FILE, BEFORE_FILE};
use crate::evaluation::table::{Comparison, Report};
use crate::track::Tracked;
use crate::{compute, machine, plot};
use anyhow::Result;
use octet_policy::policy::Policy;
use octet_runtime::CancellationToken;
use octet_runtime::telemetry::{self, LogOptions};
use octet_tracking::Targets;
use octet_tracking::event::Status;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// A run whose directory was begun.
pub struct Run<'a> {
    /// All that it needs.
    pub setup: &'a Setup,
    /// What identifies it.
    pub identity: &'a Identity,
    /// Where it is.
    pub directory: &'a RunDirectory,
    /// Where it is shown.
    pub screen: &'a Screen,
    /// When it began.
    pub begin: Instant,
    /// Cancelled where it shall not go on; a signal while it trains stops it anyway.
    pub stop: &'a CancellationToken,
}

/// Who looks on: scores the policies of a run, and says how it ended.
pub trait Onlooker {
    /// Samples and scores the held-out rows, `before` or `after` the run; `None` where nobody wants to know.
    ///
    /// # Errors
    /// The policy cannot be scored.
    fn evaluate(&mut self, when: &str, policy: &Policy) -> Result<Option<Vec<Outcome>>>;

    /// The run is complete.
    fn done(&mut self, summary: &Summary);
}

impl Run<'_> {
    /// Runs to the end, and tracks it; false where it was stopped before.
    ///
    /// # Errors
    /// Names what broke, and where.
    pub fn complete(&self, targets: Targets, onlooker: &mut dyn Onlooker) -> Result<bool> {
        let recipe = &self.setup.basis.recipe;
        let tracked = Tracked::begin(recipe, self.identity, self.directory, targets)?;
        let outcome = self.go(onlooker);
        tracked.finish(match &outcome {
            Ok(true) => Status::Finished,
            Ok(false) => Status::Killed,
            Err(_) => Status::Failed,
        });
        outcome
    }

    fn go(&self, onlooker: &mut dyn Onlooker) -> Result<bool> {
        let Self { setup, identity, directory, screen, begin, stop } = self;
        let machine_gflops = machine::gflops();
        setup.keep_trivial(directory)?;
        let before = match directory.read("before.json")? {
            Some(report) => Some(report),
            None => {
                let scored = onlooker.evaluate("before", &setup.basis.policy)?;
                let report = self.keep(BEFORE_FILE, scored)?;
                if let Some(report) = &report {
                    directory.write("before.json", &serde_json::to_vec_pretty(report)?)?;
                }
                report
            }
        };
        if let Some(report) = &before {
            screen.line(&format!("held out, before\n{report}"));
        }
        if stop.is_cancelled() {
            return Ok(false);
        }
        let mut steps = Steps::new(screen, setup.basis.steps.get());
        let result = cluster::train(setup, identity, directory, move |m| steps.show(m))?;
        let Some(done) = result else { return Ok(false) };

        let metrics = octet_learner::metrics::read(&directory.join("metrics.jsonl"))?;
        plot::write(directory.path(), &metrics)?;
        // A device that is opened anew: what a thread of the run could not free when it ended, the old one would
        // report here.
        let device = compute::open(&setup.basis.recipe.model.device)?;
        let trained = Policy::load(&done.policy, setup.basis.dtype, &device)?;
        let summary = Summary {
            before,
            after: self.keep(AFTER_FILE, onlooker.evaluate("after", &trained)?)?,
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
        onlooker.done(&summary);
        Ok(true)
    }

    /// Writes down what an evaluation found, row by row, and sums it up.
    fn keep(&self, file: &str, scored: Option<Vec<Outcome>>) -> Result<Option<Report>> {
        let Some(outcomes) = scored else { return Ok(None) };
        self.directory.write(file, &record::lines(&self.setup.held_out, &outcomes)?)?;
        Ok(Some(Report::new(&outcomes)))
    }
}

/// Warnings go to the screen between the bars, and to a file.
///
/// # Errors
/// The file cannot be written, or the process logs already.
pub fn log(screen: &Screen, file: PathBuf) -> Result<()> {
    let bars = screen.bars();
    let mut options = LogOptions::from_environment();
    options.filter.get_or_insert_with(|| "warn".into());
    options.file = Some(file);
    options.around_write = Some(Arc::new(move |write| bars.suspend(write)));
    Ok(telemetry::init(&options)?)
}
