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
pub struct Shown {
    /// Its index in the run.
    pub group: u64,
    /// The step that consumed it, from 0.
    pub step: u64,
    /// The version that sampled it.
    pub policy_version: u64,
    /// The revision that scored it.
    pub reward_revision: u64,
    /// Who sampled it.
    pub worker: String,
    /// Whether all rewards are equal.
    pub zero_variance: bool,
    /// Whether nothing was learned from the group, but for a KL penalty.
    pub taught_nothing: bool,
    /// The last message of the user.
    pub request: String,
    /// The prompt as the policy saw it.
    pub prompt: String,
    /// Its completions.
    pub completions: Vec<ShownCompletion>,
}

/// A completion, as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownCompletion {
    /// Its index in the group.
    pub sample: u32,
    /// What the policy wrote, special tokens included.
    pub text: String,
    /// Why it ended: `stop` or `length`.
    pub finish: &'static str,
    /// Its reward.
    pub reward: f64,
    /// What it counts for, beside the others of its group; none where the objective picks completions instead.
    pub advantage: Option<f64>,
    /// What it was picked as, where the objective picks: `chosen`, `rejected` or `best`.
    pub picked: Option<&'static str>,
    /// The reward's label.
    pub verdict: String,
    /// The reward's line for a person.
    pub detail: String,
    /// Of all its tokens together, in nats.
    pub logprob: f64,
    /// Of each token, in nats.
    pub logprobs: Vec<f32>,
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

/// The tokenizer of the run's policy: the one named, that of a commit, or that of the policy it started from.
fn tokenizer(args: &RolloutsArgs, recipe: &Recipe) -> Result<Tokenizer> {
    if let Some(model) = &args.model {
        return tokenizer_of(model);
    }
    match committed_tokenizer(&args.run) {
        Some(found) => Ok(found),
        None => tokenizer_of(&recipe.model.path)
            .context("looking for the policy's tokenizer; name its directory with --model"),
    }
}

/// The tokenizer of a policy; one on the hub is downloaded unless it is there already.
///
/// # Errors
/// There is no such policy, or it has none.
pub fn tokenizer_of(model: &Path) -> Result<Tokenizer> {
    Ok(Source::open(&crate::model::locate(model)?)?.tokenizer()?)
}

/// The tokenizer that lies beside a run's newest commit: seen from another machine or folder, it is there too.
pub fn committed_tokenizer(run: &Path) -> Option<Tokenizer> {
    newest_commit(run).and_then(|commit| Tokenizer::from_dir(&commit).ok())
}

fn newest_commit(run: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(run.join("checkpoints")).ok()?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.join("tokenizer.json").is_file()).max()
}

impl Shown {
    /// A stored group with its texts and the advantages that the recipe gives.
    ///
    /// # Errors
    /// Tokens that the tokenizer does not have.
    pub fn new(stored: &ScoredGroup, recipe: &Recipe, tokenizer: &Tokenizer) -> Result<Self> {
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
