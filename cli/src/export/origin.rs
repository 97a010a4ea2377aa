//! Where exported weights come from, and what is written down about them.
//!
//! Invariant: what is told of a checkpoint is its own: the evaluation after a run is told of the weights that were
//! evaluated, and of no others.

use crate::evaluation::table::Report;
use crate::recipe::Recipe;
use crate::train::directory::{Identity, RunDirectory};
use crate::train::summary::Summary;
use anyhow::{Context, Result, bail, ensure};
use octet_learner::commit::{RunState, directory, steps_of};
use octet_policy::files::AdapterFiles;
use std::path::{Path, PathBuf};

/// A policy's directory, and the run that made it, if one did.
pub struct Origin {
    /// The policy.
    pub checkpoint: PathBuf,
    /// What is known of the run.
    pub run: Option<Run>,
}

/// A run that made a checkpoint.
pub struct Run {
    /// What identifies it.
    pub identity: Identity,
    /// Its recipe.
    pub recipe: Recipe,
    /// What the checkpoint says of itself.
    pub state: RunState,
    /// The held-out set before the run.
    pub before: Option<Report>,
    /// The held-out set with exactly these weights.
    pub after: Option<Report>,
}

impl Origin {
    /// Finds the policy: in a run directory its commit of `step`, or else the newest; in any other directory the
    /// one there.
    ///
    /// # Errors
    /// It is neither, or the run has no such commit.
    pub fn find(source: &Path, step: Option<u64>) -> Result<Self> {
        if source.join("run.json").is_file() {
            let steps = steps_of(source)?;
            let Some(newest) = steps.last().copied() else {
                bail!(
                    "{} has committed nothing yet: expected a checkpoint in it",
                    source.display()
                );
            };
            let step = step.unwrap_or(newest);
            ensure!(
                steps.contains(&step),
                "--step {step}: {} holds the checkpoints of the steps {steps:?}; others were pruned \
                 (learner.keep_every keeps some for good)",
                source.display()
            );
            let checkpoint = directory(source, step);
            let run = Some(Run::read(source, &checkpoint)?);
            return Ok(Self { checkpoint, run });
        }
        ensure!(
            source.join("config.json").is_file() || AdapterFiles::is_one(source),
            "{}: expected a run directory (run.json) or a policy (config.json), found neither",
            source.display()
        );
        ensure!(step.is_none(), "--step is for a run directory, and {} is none", source.display());
        // RUN/checkpoints/step-…
        let absolute = std::path::absolute(source).context("finding the checkpoint's run")?;
        let run = absolute.parent().and_then(Path::parent).filter(|run| {
            run.join("run.json").is_file() && source.join("octet/state.json").is_file()
        });
        let run = run.map(|run| Run::read(run, source)).transpose()?;
        Ok(Self { checkpoint: source.into(), run })
    }

    /// Checks that the weights that were loaded are those that were committed; a commit holds them as f32, whatever
    /// was computed with.
    ///
    /// # Errors
    /// They are not.
    pub fn check(&self, digest: &str) -> Result<()> {
        let Some(run) = &self.run else { return Ok(()) };
        ensure!(
            run.state.weights_digest == digest,
            "{} holds other weights than were committed: expected digest {}, found {digest}; the directory is damaged",
            self.checkpoint.display(),
            run.state.weights_digest
        );
        Ok(())
    }
}

impl Run {
    fn read(run: &Path, checkpoint: &Path) -> Result<Self> {
        let files = RunDirectory::at(run);
        let identity: Identity = files
            .read("run.json")?
            .with_context(|| format!("{} has no run.json", run.display()))?;
        let state = RunState::of(checkpoint)?;
        let summary: Option<Summary> = files.read("summary.json")?;
        let (before, after) = match summary {
            Some(summary) if summary.weights_digest == state.weights_digest => {
                (summary.before, summary.after)
            }
            _ => (files.read("before.json")?, None),
        };
        Ok(Self { identity, recipe: files.recipe()?, state, before, after })
    }
}
