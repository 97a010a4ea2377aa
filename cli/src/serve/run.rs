//! A run's directory as a source of better policies.
//!
//! Invariant: it only reads. A checkpoint is taken with the digest that its commit states, where weights are served as
//! they were committed; one that is pruned meanwhile is an error of the moment.

use super::better::{Rule, better};
use crate::train::directory::RunDirectory;
use anyhow::{Result, bail};
use octet_learner::commit::{RunState, directory, steps_of};
use octet_serving::{Candidate, Source};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A run that is followed.
pub struct RunSource {
    run: PathBuf,
    rule: Rule,
    /// The policy that the run began with.
    start: PathBuf,
    /// Whether a commit's digest, which is of f32 weights, is that of the weights as they are served.
    comparable: bool,
}

impl RunSource {
    /// Follows the run in that directory, which may have committed nothing yet; `dtype` is the type that weights are
    /// served in.
    ///
    /// # Errors
    /// It is not the directory of a run.
    pub fn open(run: &Path, rule: Rule, dtype: &str) -> Result<Self> {
        if !run.join("run.json").is_file() {
            bail!("--follow {}: expected a run directory, found no run.json in it", run.display());
        }
        let recipe = RunDirectory::at(run).recipe()?;
        Ok(Self { run: run.into(), rule, start: recipe.model.path, comparable: dtype == "f32" })
    }

    /// The policy that the run began with.
    pub fn start(&self) -> PathBuf {
        self.start.clone()
    }

    /// Mean reward by step.
    fn rewards(&self) -> Result<BTreeMap<u64, f64>, String> {
        // The last line may be in the making; it is whole the next time.
        let records = octet_learner::metrics::read(&self.run.join("metrics.jsonl"));
        let records = records.map_err(|error| error.to_string())?;
        Ok(records.into_iter().map(|record| (record.step, record.rollout.reward_mean)).collect())
    }
}

impl Source for RunSource {
    fn better(&mut self, serving: Option<u64>) -> Result<Option<Candidate>, String> {
        let steps = steps_of(&self.run).map_err(|error| error.to_string())?;
        let rewards = match self.rule {
            Rule::Reward => self.rewards()?,
            Rule::Newest => BTreeMap::new(),
        };
        let Some(version) = better(self.rule, &rewards, &steps, serving) else { return Ok(None) };
        let directory = directory(&self.run, version);
        let state = RunState::of(&directory).map_err(|error| error.to_string())?;
        let digest = self.comparable.then_some(state.weights_digest);
        Ok(Some(Candidate { version, directory, digest }))
    }
}
