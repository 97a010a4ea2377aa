//! What a run directory holds, for the page.
//!
//! Invariant: a run directory is all that is read. What is not there, or cannot be read, is said on the page, with
//! what to do about it, and takes nothing else away.

use super::groups::Groups;
use super::pairs::{Pair, pair};
use crate::evaluation::record::{self, AFTER_FILE, BEFORE_FILE};
use crate::evaluation::table::Report;
use crate::recipe::Recipe;
use crate::reward::history::of_run;
use crate::rollouts::{committed_tokenizer, tokenizer_of};
use crate::train::directory::{Identity, RunDirectory};
use crate::train::summary::Summary;
use crate::train::trivial::{TRIVIAL_FILE, Trivial};
use anyhow::{Context, Result};
use octet_coordinator::JOURNAL_FILE;
use octet_learner::learner::SPOOL_FILE;
use octet_learner::metrics::{self, StepMetrics};
use octet_learner::spool::Spool;
use octet_policy::tokenizer::Tokenizer;
use std::path::Path;

/// A run, as far as it is there.
pub struct Source {
    /// What the directory is called.
    pub name: String,
    /// What identifies it.
    pub identity: Identity,
    /// Its recipe.
    pub recipe: Recipe,
    /// The recipe's text.
    pub config: String,
    /// Its steps.
    pub steps: Vec<StepMetrics>,
    /// Its end.
    pub summary: Option<Summary>,
    /// The evaluation before it.
    pub before: Option<Report>,
    /// The rows of both evaluations.
    pub pairs: Option<Vec<Pair>>,
    /// What trivial policies earn.
    pub trivial: Option<Trivial>,
    /// The rewards in force: number, name, digest, and the first step that they scored, from 1.
    pub revisions: Vec<Revision>,
    /// A sample of its groups.
    pub groups: Option<Groups>,
    /// What is not there, and why.
    pub missing: Vec<String>,
}

/// A revision of the reward.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Revision {
    /// Its number.
    pub number: u64,
    /// What it is called; empty where that is not known.
    pub name: String,
    /// Its digest; empty where that is not known.
    pub digest: String,
    /// The first step that it scored, from 1.
    pub from: u64,
}

impl Source {
    /// Reads a run directory.
    ///
    /// # Errors
    /// It is none: there is no `config.toml` or no `run.json`, or they cannot be read.
    pub fn read(run: &Path, model: Option<&Path>, groups: usize) -> Result<Self> {
        let directory = RunDirectory::at(run);
        let recipe = directory.recipe()?;
        let identity: Option<Identity> = directory.read("run.json")?;
        let identity = identity.with_context(|| {
            format!("{} is not a run directory: it has no run.json", run.display())
        })?;
        let config = directory.join("config.toml");
        let config = std::fs::read_to_string(&config)
            .with_context(|| format!("reading {}", config.display()))?;
        let mut missing = Missing::default();
        let steps = missing.take("The curves", metrics::read(&directory.join("metrics.jsonl")));
        let steps = steps.unwrap_or_default();
        let summary = missing.take("The result", directory.read::<Summary>("summary.json"));
        let summary = summary.flatten();
        let before = match &summary {
            Some(summary) => summary.before.clone(),
            None => missing.take("The evaluation before", directory.read("before.json")).flatten(),
        };
        let trivial = missing.take("What trivial policies earn", directory.read(TRIVIAL_FILE));
        let revisions = revisions(run, &steps, &mut missing);
        let pairs = pairs(&directory, summary.is_some(), &mut missing);
        let groups = match groups {
            0 => None,
            most => missing.take("The groups", sample(run, &recipe, model, most)).flatten(),
        };
        let source = Self {
            name: directory.name(),
            identity,
            recipe,
            config,
            steps,
            summary,
            before,
            pairs,
            trivial: trivial.flatten(),
            revisions,
            groups,
            missing: missing.0,
        };
        Ok(source.with_what_is_missing())
    }

    /// The evaluation after the run.
    pub fn after(&self) -> Option<&Report> {
        self.summary.as_ref().and_then(|summary| summary.after.as_ref())
    }

    /// Says what a page without a part would leave its reader to guess.
    fn with_what_is_missing(mut self) -> Self {
        let mut say = |text: String| self.missing.push(text);
        let (done, total) = (self.steps.len() as u64, self.identity.total_steps);
        let evaluated = self.recipe.evaluation.enabled;
        if done == 0 {
            say("No step is committed yet, so there are no curves.".into());
        }
        if self.summary.is_none() {
            let end = match done < total {
                true => format!("The run is not over: {done} of {total} steps are committed."),
                false => "The run has no summary.json: `octet train` writes it when the run is over, a learner \
                          alone does not."
                    .into(),
            };
            say(format!(
                "{end} What comes at its end (the evaluation after it, its speeds) is not here."
            ));
        }
        if !evaluated {
            say("evaluation.enabled is false in the recipe, so there is no before and after."
                .into());
        } else if self.before.is_none() {
            say("There is no evaluation before the run: `octet train` makes one when it begins."
                .into());
        } else if self.pairs.is_none() && self.summary.as_ref().is_some_and(|s| s.after.is_some()) {
            say(format!(
                "The rows of the evaluations ({BEFORE_FILE}, {AFTER_FILE}) are not here: the run was made by an \
                 octet that did not keep them, so single prompts cannot be compared."
            ));
        }
        if self.trivial.is_none() {
            say(format!(
                "What trivial policies earn is not known: `octet train` writes {TRIVIAL_FILE}, the roles alone do not."
            ));
        }
        self
    }
}

/// What could not be read.
#[derive(Default)]
struct Missing(Vec<String>);

impl Missing {
    fn take<T, E: Into<anyhow::Error>>(&mut self, what: &str, read: Result<T, E>) -> Option<T> {
        match read {
            Ok(found) => Some(found),
            Err(error) => {
                self.0.push(format!("{what} cannot be shown: {:#}.", error.into()));
                None
            }
        }
    }
}

/// From the coordinator's journal, or what the steps say.
fn revisions(run: &Path, steps: &[StepMetrics], missing: &mut Missing) -> Vec<Revision> {
    if run.join(JOURNAL_FILE).is_file() {
        let known = missing.take("The reward's history", of_run(run)).unwrap_or_default();
        let known = known.into_iter().map(|(revision, from)| Revision {
            number: revision.number.get(),
            name: revision.name,
            digest: revision.digest,
            from: from + 1,
        });
        return known.collect();
    }
    let mut known: Vec<Revision> = Vec::new();
    for step in steps {
        for number in step.rollout.reward_revisions.iter().map(|number| number.get()) {
            if known.iter().all(|revision| revision.number != number) {
                let (name, digest) = (String::new(), String::new());
                known.push(Revision { number, name, digest, from: step.step });
            }
        }
    }
    known
}

fn pairs(directory: &RunDirectory, is_over: bool, missing: &mut Missing) -> Option<Vec<Pair>> {
    let mut read =
        |file| missing.take("Single prompts", record::read(&directory.join(file))).flatten();
    let (before, after) = (read(BEFORE_FILE)?, read(AFTER_FILE)?);
    // An evaluation after the run that its summary does not know is one that was broken off.
    let (pairs, alone) = if is_over { pair(before, after) } else { return None };
    if alone > 0 {
        missing.0.push(format!(
            "{alone} held-out rows are not the same in both evaluations, and are not compared: the data set changed \
             while the run was stopped."
        ));
    }
    Some(pairs)
}

fn sample(
    run: &Path,
    recipe: &Recipe,
    model: Option<&Path>,
    most: usize,
) -> Result<Option<Groups>> {
    let path = run.join(SPOOL_FILE);
    if !path.is_file() {
        anyhow::bail!("{} is not there yet; the learner makes it", path.display());
    }
    let spool = Spool::read_only(&path)?;
    Groups::sample(&spool, recipe, &tokenizer(run, recipe, model)?, most).map(Some)
}

/// The tokenizer that was named, a commit's, or that of a policy on this machine: a report asks no network.
fn tokenizer(run: &Path, recipe: &Recipe, model: Option<&Path>) -> Result<Tokenizer> {
    if let Some(model) = model {
        return tokenizer_of(model);
    }
    if let Some(found) = committed_tokenizer(run) {
        return Ok(found);
    }
    let path = &recipe.model.path;
    anyhow::ensure!(
        path.exists(),
        "expected a tokenizer in a checkpoint of the run or in {}, found none; name the policy's directory with \
         --model",
        path.display()
    );
    tokenizer_of(path)
}
