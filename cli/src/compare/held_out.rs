//! What all policies of a comparison are scored with: the same rows, reward and way to sample; and what was found, kept.
//!
//! Invariant: outcomes are kept with a digest of all that they depend on besides the policy, and used again only for
//! the same.

use crate::evaluation::{Outcome, evaluate};
use crate::recipe::Recipe;
use crate::train::progress::Screen;
use anyhow::{Context, Result};
use octet_dataset::{Example, load};
use octet_policy::kernel::head::Shaping;
use octet_policy::policy::Policy;
use octet_policy::sampler::Sampling;
use octet_reward_service::{RewardFunction, open};
use octet_runtime::config::digest;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// The file in a run's directory with the outcomes of its final policy.
pub const FILE: &str = "held-out.json";

/// What policies are scored with.
pub struct Yardstick {
    /// The rows.
    pub rows: Vec<Example>,
    /// The setting, for whoever reads the report later.
    pub setting: Setting,
    function: Arc<dyn RewardFunction>,
    asked: String,
}

/// How policies are scored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// The data set.
    pub data: String,
    /// How many rows of it.
    pub rows: usize,
    /// The reward.
    pub function: String,
    /// Completions of each row.
    pub samples: usize,
    /// Sampling temperature; 0 takes the likeliest token.
    pub temperature: f32,
    /// Most tokens of a completion.
    pub max_tokens: usize,
    /// Seed of the sampling and of the intervals.
    pub seed: u64,
}

/// Outcomes on disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    asked: String,
    outcomes: Vec<KeptOutcome>,
}

#[derive(Serialize, Deserialize)]
struct KeptOutcome {
    row: usize,
    behaviour: String,
    reward: f64,
    verdict: String,
    detail: String,
    completion: String,
}

impl Yardstick {
    /// What a recipe scores with, on at most so many rows.
    ///
    /// # Errors
    /// The data set or the reward cannot be read.
    pub fn new(recipe: &Recipe, most: Option<usize>, seed: u64) -> Result<Self> {
        let function = open(&recipe.reward.function.parse()?)?;
        let path = &recipe.data.held_out;
        let mut rows = load(path)?;
        rows.truncate(most.unwrap_or(usize::MAX));
        anyhow::ensure!(
            !rows.is_empty(),
            "{}: expected at least 1 held-out row to score policies on, found 0",
            path.display()
        );
        let setting = Setting {
            data: path.display().to_string(),
            rows: rows.len(),
            function: function.name().to_owned(),
            samples: recipe.evaluation.completions,
            temperature: recipe.evaluation.temperature,
            max_tokens: recipe.sampling.max_tokens,
            seed,
        };
        let content = rows.iter().map(Example::to_json).collect::<Vec<_>>();
        // Where the rows are is no part of what was asked.
        let asked = Setting { data: String::new(), ..setting.clone() };
        let asked = digest(&(asked, function.digest(), content))?.to_string();
        Ok(Self { rows, setting, function, asked })
    }

    /// Scores a policy.
    ///
    /// # Errors
    /// A prompt that cannot be rendered, or a reward that fails.
    pub fn score(&self, screen: &Screen, name: &str, policy: &Policy) -> Result<Vec<Outcome>> {
        let setting = &self.setting;
        let sampling = Sampling {
            seed: setting.seed,
            completions: setting.samples,
            shaping: Shaping { temperature: setting.temperature, ..Shaping::default() },
            max_tokens: setting.max_tokens,
            stop_tokens: policy.stop_tokens(),
        };
        let bar = screen.bar(name, (self.rows.len() * setting.samples) as u64);
        let outcomes = evaluate(policy, &self.rows, &*self.function, sampling, |n| {
            bar.set_position(n as u64);
        })
        .context("evaluating the held-out set")?;
        bar.finish_and_clear();
        Ok(outcomes)
    }

    /// Keeps what was found.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&self, file: &Path, outcomes: &[Outcome]) -> Result<()> {
        let keep = |outcome: &Outcome| KeptOutcome {
            row: outcome.row,
            behaviour: outcome.behaviour.name().to_owned(),
            reward: outcome.reward,
            verdict: outcome.verdict.clone(),
            detail: outcome.detail.clone(),
            completion: outcome.completion.clone(),
        };
        let kept =
            Kept { asked: self.asked.clone(), outcomes: outcomes.iter().map(keep).collect() };
        let partial = file.with_extension("partial");
        std::fs::write(&partial, serde_json::to_vec_pretty(&kept)?)
            .and_then(|()| std::fs::rename(&partial, file))
            .with_context(|| format!("writing {}", file.display()))
    }

    /// What was found before, where the same was asked.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn kept(&self, file: &Path) -> Result<Option<Vec<Outcome>>> {
        if !file.is_file() {
            return Ok(None);
        }
        let reading = || format!("reading {}; remove it to score again", file.display());
        let text = std::fs::read(file).with_context(reading)?;
        let kept: Kept = serde_json::from_slice(&text).with_context(reading)?;
        if kept.asked != self.asked {
            return Ok(None);
        }
        let outcome = |kept: KeptOutcome| {
            let row = self.rows.get(kept.row).with_context(reading)?;
            Ok(Outcome {
                row: kept.row,
                behaviour: row.behaviour(),
                completion: kept.completion,
                reward: kept.reward,
                verdict: kept.verdict,
                detail: kept.detail,
            })
        };
        kept.outcomes.into_iter().map(outcome).collect::<Result<_>>().map(Some)
    }
}
