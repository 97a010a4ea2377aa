//! `octet rollouts`: what a run sampled, what it was worth, and what was learned from it.
//!
//! Invariant: the spool is opened for reading alone, also while its learner writes to it; what is shown is
//! what was stored, and what follows from it by the recipe's own arithmetic.

use crate::recipe::Recipe;
use crate::screen;
use crate::train::directory::RunDirectory;
use anyhow::{Context, Result, bail};
use clap::Args;
use octet_dataset::Example;
use octet_learner::advantage::GroupRewards;
use octet_learner::group::{Finish, ScoredGroup};
use octet_learner::learner::SPOOL_FILE;
use octet_learner::spool::Spool;
use octet_policy::source::Source;
use octet_policy::tokenizer::{SpecialTokens, Tokenizer};
use octet_proto::{GroupIndex, StepIndex};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Show what a run sampled: prompts, completions, rewards, advantages and log-probabilities.
///
/// Without --group or --step it shows the newest step that has groups. The run may go on meanwhile.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:

  octet rollouts runs/first
  octet rollouts runs/first --group 17
  octet rollouts runs/first --step 3 --json | jq '.completions[].reward'")]
pub struct RolloutsArgs {
    /// The run directory of the learner, or of `octet train`.
    run: PathBuf,
    /// Only this group.
    #[arg(long, value_name = "G", conflicts_with = "step")]
    group: Option<u64>,
    /// Only the groups of this step, counted from 0.
    #[arg(long, value_name = "K")]
    step: Option<u64>,
    /// A directory with the tokenizer; without it, that of the run's policy.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Print JSON, one group a line, with the log-probability of every token.
    #[arg(long)]
    json: bool,
}

/// A group, as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Shown {
    group: u64,
    step: u64,
    policy_version: u64,
    reward_revision: u64,
    worker: String,
    /// Whether all rewards are equal.
    zero_variance: bool,
    /// Whether nothing was learned from the group, but for a KL penalty.
    taught_nothing: bool,
    request: String,
    prompt: String,
    completions: Vec<ShownCompletion>,
}

/// A completion, as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct ShownCompletion {
    sample: u32,
    text: String,
    finish: &'static str,
    reward: f64,
    /// Its advantage; none where the objective picks completions instead.
    advantage: Option<f64>,
    /// What it was picked as, where the objective picks: `chosen`, `rejected` or `best`.
    picked: Option<&'static str>,
    verdict: String,
    detail: String,
    /// Of all its tokens together, in nats.
    logprob: f64,
    logprobs: Vec<f32>,
}

/// Runs the command.
pub fn run(args: &RolloutsArgs) -> Result<()> {
    let recipe = RunDirectory::at(&args.run).recipe()?;
    let path = args.run.join(SPOOL_FILE);
    let spool = Spool::read_only(&path).context("a run has one once its learner was started")?;
    let tokenizer = tokenizer(args, &recipe)?;
    for group in chosen(args, &recipe, &spool)? {
        let stored = spool.read(group..group.next())?;
        for stored in &stored {
            let shown = Shown::new(stored, &recipe, &tokenizer)?;
            if args.json {
                screen::say(serde_json::to_string(&shown)?);
            } else {
                screen::say(shown.text(args.group.is_some()));
            }
        }
    }
    Ok(())
}

/// The groups that were asked for and are there.
fn chosen(args: &RolloutsArgs, recipe: &Recipe, spool: &Spool) -> Result<Vec<GroupIndex>> {
    let batch = recipe.learner.batch;
    let all = || spool.present(GroupIndex(0)..GroupIndex(u64::MAX));
    let range = match (args.group, args.step) {
        (Some(group), _) => GroupIndex(group)..GroupIndex(group.saturating_add(1)),
        (None, Some(step)) => StepIndex(step).groups(batch),
        (None, None) => match all()?.last() {
            Some(newest) => newest.step(batch).groups(batch),
            None => bail!("{}: no group was delivered yet", spool.path().display()),
        },
    };
    let found = spool.present(range)?;
    if found.is_empty() {
        let there = match all()?.as_slice() {
            [] => "none".to_owned(),
            [first, .., last] => {
                format!("{first} to {last}, steps {} to {}", first.step(batch), last.step(batch))
            }
            [only] => format!("{only}, step {}", only.step(batch)),
        };
        bail!("{}: expected such a group, found groups {there}", spool.path().display());
    }
    Ok(found)
}

/// The tokenizer of the run's policy, wherever that is by now.
fn tokenizer(args: &RolloutsArgs, recipe: &Recipe) -> Result<Tokenizer> {
    if let Some(model) = &args.model {
        return tokenizer_of(model);
    }
    let first = match tokenizer_of(&recipe.model.path) {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    // Seen from another machine or folder, the commits have it too.
    match newest_commit(&args.run).map(|commit| Tokenizer::from_dir(&commit)) {
        Some(Ok(found)) => Ok(found),
        _ => Err(first)
            .context("looking for the policy's tokenizer; name its directory with --model"),
    }
}

fn tokenizer_of(model: &Path) -> Result<Tokenizer> {
    Ok(Source::open(&crate::model::locate(model)?)?.tokenizer()?)
}

fn newest_commit(run: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(run.join("checkpoints")).ok()?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.join("tokenizer.json").is_file()).max()
}

impl Shown {
    fn new(stored: &ScoredGroup, recipe: &Recipe, tokenizer: &Tokenizer) -> Result<Self> {
        let rewards = GroupRewards::new(stored.rewards())
            .with_context(|| format!("the rewards of group {}", stored.group))?;
        let learner = &recipe.learner;
        let lesson = learner.objective.lesson(&rewards, learner.advantage_epsilon);
        let text = |tokens: &[u32]| tokenizer.decode(tokens, SpecialTokens::Keep);
        let completions = stored.completions.iter().enumerate().map(|(index, completion)| {
            Ok(ShownCompletion {
                sample: completion.sample,
                text: text(&completion.tokens)?,
                finish: match completion.finish {
                    Finish::Stop => "stop",
                    Finish::Length => "length",
                },
                reward: completion.reward,
                advantage: lesson.weight(index).filter(|_| !learner.objective.picks()),
                picked: lesson.picked(index),
                verdict: completion.verdict.clone(),
                detail: completion.detail.clone(),
                logprob: completion.logprobs.iter().map(|nats| f64::from(*nats)).sum(),
                logprobs: completion.logprobs.clone(),
            })
        });
        Ok(Self {
            group: stored.group.get(),
            step: stored.group.step(recipe.learner.batch).get(),
            policy_version: stored.policy_version.get(),
            reward_revision: stored.reward_revision.get(),
            worker: stored.worker.clone(),
            zero_variance: rewards.is_zero_variance(),
            taught_nothing: lesson.is_nothing(),
            request: Example::from_json(&stored.example_json)
                .map_or_else(|_| String::new(), |example| example.request().to_owned()),
            prompt: text(&stored.prompt_tokens)?,
            completions: completions.collect::<Result<_>>()?,
        })
    }

    /// For a screen; the whole prompt only where one group is looked at.
    fn text(&self, whole: bool) -> String {
        let inert = match (self.taught_nothing, self.zero_variance) {
            (true, true) => ", all rewards equal: it taught nothing",
            (true, false) => ": it taught nothing",
            (false, _) => "",
        };
        let (label, asked) =
            if whole { ("prompt", &self.prompt) } else { ("asked", &self.request) };
        let mut text = format!(
            "group {} of step {}, policy version {}, reward revision {}, sampled by {}{inert}\n  {label}  {}",
            self.group,
            self.step,
            self.policy_version,
            self.reward_revision,
            self.worker,
            one_line(asked)
        );
        for c in &self.completions {
            text.push_str(&format!(
                "\n  {}  reward {:.3}  {}  logprob {:.2} over {} tokens  {} ({})\n     {}",
                c.sample,
                c.reward,
                match (c.advantage, c.picked) {
                    (Some(advantage), _) => format!("advantage {advantage:+.3}"),
                    (None, Some(picked)) => picked.to_owned(),
                    (None, None) => "left out".to_owned(),
                },
                c.logprob,
                c.logprobs.len(),
                c.verdict,
                c.finish,
                one_line(&c.text)
            ));
            if whole && !c.detail.is_empty() {
                text.push_str(&format!("\n     {}", one_line(&c.detail)));
            }
        }
        text
    }
}

fn one_line(text: &str) -> String {
    text.replace('\n', "⏎")
}
