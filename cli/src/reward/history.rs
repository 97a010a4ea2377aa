//! `octet reward history`: which reward scored which steps, and the recipe that repeats it.
//!
//! Invariant: read from the journal of the run alone, which the coordinator writes before a swap counts.

use crate::recipe::{Recipe, ScheduledReward};
use anyhow::{Context, Result, bail};
use clap::Args;
use octet_coordinator::JOURNAL_FILE;
use octet_coordinator::journal::read_revisions;
use octet_coordinator::machine::Revision;
use octet_reward_service::{RewardSource, builtin, open};
use octet_runtime::config::{Layers, load, to_toml};
use std::path::{Path, PathBuf};

/// Show which reward scored which steps of a run, from its record.
#[derive(Args, Debug)]
pub struct HistoryArgs {
    /// The run's directory.
    #[arg(long, value_name = "DIRECTORY")]
    run: PathBuf,
    /// Print the run's recipe with its swaps as `reward.schedule`: training it again gives the same weights.
    #[arg(long)]
    replay: bool,
}

/// Runs the command.
pub fn run(args: &HistoryArgs) -> Result<()> {
    let in_force = of_run(&args.run)?;
    if !args.replay {
        for (revision, from) in &in_force {
            crate::screen::say(format_args!(
                "from step {from:>6}  revision {:>3}  {}  {}",
                revision.number, revision.digest, revision.name
            ));
        }
        return Ok(());
    }
    let file = args.run.join("config.toml");
    let mut recipe: Recipe = load(&Layers::new().file(&file)?)?;
    let known = known(&recipe)?;
    let named = |revision: &Revision| {
        known.iter().find(|(digest, _)| *digest == revision.digest).map(|(_, name)| name.clone())
    };
    let [(first, _), later @ ..] = in_force.as_slice() else {
        bail!("{} names no reward: the run has not begun", args.run.display());
    };
    recipe.reward.function = named(first).with_context(|| {
        format!(
            "revision {} ({}) scored the first step and is no function that the recipe knows",
            first.number, first.name
        )
    })?;
    let scheduled = later.iter().map(|(revision, from)| match named(revision) {
        Some(function) => {
            ScheduledReward { step: *from, function: Some(function), ..ScheduledReward::default() }
        }
        None => ScheduledReward {
            step: *from,
            name: Some(revision.name.clone()),
            digest: Some(revision.digest.clone()),
            endpoints: revision.endpoints.clone(),
            ..ScheduledReward::default()
        },
    });
    recipe.reward.schedule = scheduled.collect();
    crate::screen::say(to_toml(&recipe)?);
    Ok(())
}

/// The revisions that rewarded, or will reward, any step of a run, each with its first step, from 0: by step.
///
/// # Errors
/// The journal of the run's coordinator cannot be read.
pub fn of_run(run: &Path) -> Result<Vec<(Revision, u64)>> {
    let (bound, _) = read_revisions(&run.join(JOURNAL_FILE))?;
    let bound: Vec<(Revision, u64)> =
        bound.into_iter().map(|(revision, from)| (revision, from.get())).collect();
    Ok(in_force(&bound))
}

/// Of all that was bound, what counted.
fn in_force(bound: &[(Revision, u64)]) -> Vec<(Revision, u64)> {
    let kept = bound.iter().enumerate().filter(|(at, (_, from))| {
        // One that was bound later, and to an earlier step or the same, took all its steps.
        bound[at + 1..].iter().all(|(_, later)| later > from)
    });
    kept.map(|(_, bound)| bound.clone()).collect()
}

/// Digests of the functions that a recipe can name, with what it calls them.
fn known(recipe: &Recipe) -> Result<Vec<(String, String)>> {
    let mut known: Vec<(String, String)> =
        builtin().iter().map(|function| (function.digest(), function.name().to_owned())).collect();
    let scheduled = recipe.reward.schedule.iter().filter_map(|entry| entry.function.as_ref());
    for name in scheduled.chain([&recipe.reward.function]) {
        let source: RewardSource = name.parse()?;
        if matches!(source, RewardSource::Python(..)) {
            known.push((open(&source)?.digest(), name.clone()));
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use octet_proto::RevisionNumber;

    fn bound(steps: &[u64]) -> Vec<u64> {
        let revision = |number| Revision {
            number: RevisionNumber(number),
            name: String::new(),
            digest: String::new(),
            endpoints: Vec::new(),
        };
        let bound: Vec<_> = (1..).map(revision).zip(steps.iter().copied()).collect();
        in_force(&bound).iter().map(|(revision, _)| revision.number.get()).collect()
    }

    #[test]
    fn what_was_taken_back_before_it_counted_is_no_part_of_the_history() {
        assert_eq!(bound(&[0]), [1]);
        assert_eq!(bound(&[0, 3, 3, 7]), [1, 3, 4]);
        assert_eq!(bound(&[0, 4, 8, 2]), [1, 4], "a schedule that was overruled");
        assert_eq!(bound(&[0, 0]), [2]);
    }
}
