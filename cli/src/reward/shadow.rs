//! `octet reward shadow`: what a swap would change, on completions that the run has sampled and scored.
//!
//! Invariant: nothing but the candidate is asked, and nothing is written: the spool is opened for reading,
//! also while the learner writes to it.

use crate::network::NetworkArgs;
use crate::reach::block_on;
use crate::recipe::Recipe;
use anyhow::{Context, Result, bail};
use clap::Args;
use octet_dataset::Example;
use octet_learner::group::ScoredGroup;
use octet_learner::learner::SPOOL_FILE;
use octet_learner::spool::Spool;
use octet_policy::source::Source;
use octet_policy::tokenizer::{SpecialTokens, Tokenizer};
use octet_proto::GroupIndex;
use octet_reward_service::service::client::{Ask, Outcome, Replica};
use octet_reward_service::shadow::{ShadowGroup, ShadowReport, Shadowed};
use octet_runtime::config::{Layers, load};
use octet_runtime::net::Dialer;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Score what a run has sampled with a candidate reward beside the active one, without touching training.
///
/// Reads the newest groups of the run's spool; the run may go on meanwhile. Shows how far the two rank the
/// completions of a group alike, how often the best one changes, and where they differ most.
#[derive(Args, Debug)]
pub struct ShadowArgs {
    /// The run's directory.
    #[arg(long, value_name = "DIRECTORY")]
    run: PathBuf,
    /// Where the candidate answers.
    #[arg(long, value_name = "URL")]
    to: String,
    /// How many of the newest groups to score.
    #[arg(long, default_value_t = 64)]
    groups: usize,
    /// Seconds that scoring one completion may take.
    #[arg(long, default_value_t = 60)]
    patience: u64,
    #[command(flatten)]
    network: NetworkArgs,
}

/// Runs the command.
pub fn run(args: &ShadowArgs) -> Result<()> {
    let recipe: Recipe = load(&Layers::new().file(&args.run.join("config.toml"))?)?;
    let texts = Texts::open(&recipe.model.path)?;
    let spooled = newest(&args.run.join(SPOOL_FILE), args.groups)?;
    let revisions: BTreeSet<u64> = spooled.iter().map(|g| g.reward_revision.get()).collect();
    let mut asks = Vec::new();
    for group in &spooled {
        for completion in &group.completions {
            let completion = texts.completion(&completion.tokens)?;
            asks.push(Ask { example_json: group.example_json.clone(), completion });
        }
    }
    let patience = Duration::from_secs(args.patience);
    let dialer: Dialer = Arc::new(args.network.exposure()?);
    let (name, outcomes) = block_on(async {
        let mut replica = Replica::meet(&args.to, &dialer).await?;
        let outcomes = replica.score(&asks, patience).await?;
        Ok((replica.described().name.clone(), outcomes))
    })?;
    let groups = pair(&spooled, asks, outcomes)?;
    let revisions: Vec<String> = revisions.iter().map(u64::to_string).collect();
    crate::screen::say(format_args!(
        "candidate {name} at {}, beside revision {}\n{}",
        args.to,
        revisions.join(" and "),
        ShadowReport::new(&groups)
    ));
    Ok(())
}

/// Tokens to the text that the run had scored.
struct Texts {
    tokenizer: Tokenizer,
    stops: Vec<u32>,
}

impl Texts {
    fn open(model: &Path) -> Result<Self> {
        let source = Source::open(&crate::model::locate(model)?)?;
        let (config, tokenizer) = (source.config()?, source.tokenizer()?);
        let mut stops = config.eos_token_ids;
        stops.extend(tokenizer.token_id("<|im_end|>"));
        Ok(Self { tokenizer, stops })
    }

    fn completion(&self, tokens: &[u32]) -> Result<String> {
        let tokens = match tokens.split_last() {
            Some((last, rest)) if self.stops.contains(last) => rest,
            _ => tokens,
        };
        Ok(self.tokenizer.decode(tokens, SpecialTokens::Keep)?)
    }
}

fn newest(path: &Path, count: usize) -> Result<Vec<ScoredGroup>> {
    let spool = Spool::read_only(path)?;
    let present = spool.present(GroupIndex(0)..GroupIndex(u64::MAX))?;
    if present.is_empty() || count == 0 {
        bail!(
            "{}: expected groups to score, found none: the run has not sampled any yet",
            path.display()
        );
    }
    let newest = &present[present.len().saturating_sub(count)..];
    let mut groups = Vec::new();
    for group in newest {
        groups.extend(spool.read(*group..group.next())?);
    }
    Ok(groups)
}

fn pair(
    spooled: &[ScoredGroup],
    asks: Vec<Ask>,
    outcomes: Vec<Outcome>,
) -> Result<Vec<ShadowGroup>> {
    let mut scored = asks.into_iter().zip(outcomes);
    let mut groups = Vec::new();
    for group in spooled {
        let example = Example::from_json(&group.example_json)
            .with_context(|| format!("reading the row of group {}", group.group))?;
        let pairs = group.completions.iter().zip(scored.by_ref());
        let completions = pairs.map(|(completion, (ask, outcome))| Shadowed {
            text: ask.completion,
            active: (completion.reward, completion.verdict.clone()),
            candidate: outcome.map(|scored| (scored.reward, scored.verdict)),
        });
        groups.push(ShadowGroup {
            group: group.group.get(),
            behaviour: example.behaviour(),
            completions: completions.collect(),
        });
    }
    Ok(groups)
}
