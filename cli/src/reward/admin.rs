//! `octet reward swap`, `rollback` and `status`: what a run is rewarded by, and from when on.
//!
//! Invariant: the coordinator calls nobody, so everything about a candidate is found out here, before it is
//! asked to bind it.

use crate::reach::{Reached, RunArgs, block_on};
use anyhow::{Context, Result, bail};
use clap::Args;
use octet_dataset::Example;
use octet_proto::admin::{
    AdminClient, GetRewardsRequest, GetRewardsResponse, RollbackRewardRequest, SwapRewardRequest,
    SwapRewardResponse, admin_client,
};
use octet_proto::coordinator::{RewardBinding, RewardState};
use octet_proto::transport::ClientOptions;
use octet_reward_service::service::client::{Probed, Replica, probe};
use octet_runtime::net::Dialer;
use std::time::Duration;

/// How many rows of the run's data a candidate is probed with.
const PROBED_ROWS: u32 = 8;
/// Show the reward revisions of a run and where each stands.
#[derive(Args, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    run: RunArgs,
}

/// Swap the reward of a run while it goes on.
///
/// The candidate is asked for its health and who it is, and scores rows of the run's data twice. Then it is
/// bound to the first step that was never leased; groups that are under way keep the old one.
#[derive(Args, Debug)]
pub struct SwapArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Where the new reward answers; once for each replica.
    #[arg(long, value_name = "URL", required = true)]
    to: Vec<String>,
    /// What to call it; without it, what it calls itself.
    #[arg(long)]
    name: Option<String>,
    /// Seconds that scoring one probe may take.
    #[arg(long, default_value_t = 60)]
    patience: u64,
    /// Find out all there is to find out, and bind nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Swap back to a reward that the run has had.
#[derive(Args, Debug)]
pub struct RollbackArgs {
    #[command(flatten)]
    run: RunArgs,
    /// The revision to go back to; without it, the one before the one in force.
    #[arg(long, value_name = "NUMBER")]
    to_revision: Option<u64>,
    /// Seconds that scoring one probe may take.
    #[arg(long, default_value_t = 60)]
    patience: u64,
}

/// Asks a coordinator.
struct Asker {
    client: AdminClient,
    coordinator: String,
    dialer: Dialer,
}

impl Asker {
    fn new(run: &RunArgs) -> Result<Self> {
        let Reached { coordinator, line, dialer } = run.dial(&ClientOptions::default())?;
        Ok(Self { client: admin_client(line), coordinator, dialer })
    }

    async fn rewards(&mut self) -> Result<GetRewardsResponse> {
        let answer = self.client.get_rewards(GetRewardsRequest { rows: PROBED_ROWS }).await;
        Ok(answer
            .map_err(|status| self.refused("asking for the run's rewards", &status))?
            .into_inner())
    }

    fn refused(&self, action: &str, status: &tonic::Status) -> anyhow::Error {
        anyhow::anyhow!("{}: {action}: {}", self.coordinator, status.message())
    }

    /// Finds out whether a reward can be relied on, and says so.
    async fn examine(
        &self,
        endpoints: &[String],
        rows: &[String],
        patience: u64,
    ) -> Result<Probed> {
        let mut replicas = Vec::new();
        for endpoint in endpoints {
            let replica = Replica::meet(endpoint, &self.dialer).await?;
            let described = replica.described();
            crate::screen::say(format_args!(
                "{endpoint} answers: {} with digest {}, {}",
                described.name,
                described.digest,
                replica.range().map_or_else(
                    || "no range named".to_owned(),
                    |range| format!("rewards from {} to {}", range.min, range.max)
                )
            ));
            replicas.push(replica);
        }
        let examples: Result<Vec<Example>, _> =
            rows.iter().map(|row| Example::from_json(row)).collect();
        let examples = examples.context("reading the run's rows")?;
        let probed = probe(&mut replicas, &examples, Duration::from_secs(patience))
            .await
            .context("probing the reward")?;
        crate::screen::say(format_args!(
            "{} answers to {} rows scored twice by {} of {}: the same each time, from {} to {}",
            probed.scored,
            examples.len(),
            replicas.len(),
            replicas.len(),
            probed.seen.min,
            probed.seen.max
        ));
        Ok(probed)
    }
}

/// Runs `octet reward status`.
pub fn status(args: &StatusArgs) -> Result<()> {
    block_on(async {
        let told = Asker::new(&args.run)?.rewards().await?;
        crate::screen::say(table(&told));
        Ok(())
    })
}

/// Runs `octet reward swap`.
pub fn swap(args: &SwapArgs) -> Result<()> {
    block_on(async {
        let mut asker = Asker::new(&args.run)?;
        let told = asker.rewards().await?;
        let probed = asker.examine(&args.to, &told.rows, args.patience).await?;
        let newest_known = newest(&told.rewards);
        let in_force = told.rewards.iter().rev().find(|b| b.state() != RewardState::Superseded);
        let same =
            in_force.and_then(|b| b.revision.as_ref()).is_some_and(|r| r.digest == probed.digest);
        if same {
            crate::screen::say(
                "the digest is that of the reward in force: the same reward, answering elsewhere",
            );
        }
        if args.dry_run {
            crate::screen::say("nothing is bound (--dry-run)");
            return Ok(());
        }
        let request = SwapRewardRequest {
            name: args.name.clone().unwrap_or(probed.name),
            digest: probed.digest,
            endpoints: args.to.clone(),
            newest_known,
        };
        let answer = asker.client.swap_reward(request).await;
        let bound = answer.map_err(|status| asker.refused("swapping the reward", &status))?;
        report(&told.rewards, &bound.into_inner());
        Ok(())
    })
}

/// Runs `octet reward rollback`.
pub fn rollback(args: &RollbackArgs) -> Result<()> {
    block_on(async {
        let mut asker = Asker::new(&args.run)?;
        let told = asker.rewards().await?;
        let newest_known = newest(&told.rewards);
        // The reward to go back to has to answer as any other; the coordinator decides which it is.
        if let Some(number) = args.to_revision {
            let known = told.rewards.iter().filter_map(|b| b.revision.as_ref());
            let target = known.into_iter().find(|revision| revision.number == number);
            if let Some(target) = target {
                let probed = asker.examine(&target.endpoints, &told.rows, args.patience).await?;
                if probed.digest != target.digest {
                    bail!(
                        "revision {number}: expected the digest {}, found {} at {}: start its service again as it was",
                        target.digest,
                        probed.digest,
                        target.endpoints.join(", ")
                    );
                }
            }
        }
        let to_revision = args.to_revision.unwrap_or(0);
        let request = RollbackRewardRequest { to_revision, newest_known };
        let answer = asker.client.rollback_reward(request).await;
        let bound = answer.map_err(|status| asker.refused("rolling the reward back", &status))?;
        report(&told.rewards, &bound.into_inner());
        Ok(())
    })
}

fn newest(rewards: &[RewardBinding]) -> u64 {
    rewards.iter().filter_map(|b| b.revision.as_ref()).map(|r| r.number).max().unwrap_or(0)
}

fn report(before: &[RewardBinding], bound: &SwapRewardResponse) {
    let Some(revision) = &bound.revision else { return };
    crate::screen::say(format_args!(
        "revision {} ({}) rewards the run from step {} on",
        revision.number, revision.name, bound.from_step
    ));
    for binding in before.iter().filter(|b| b.state() == RewardState::Active) {
        if let Some(old) = &binding.revision {
            crate::screen::say(format_args!(
                "revision {} ({}) keeps the groups of earlier steps; leave its service up until `octet reward status` calls it idle",
                old.number, old.name
            ));
        }
    }
    for number in &bound.superseded {
        crate::screen::say(format_args!(
            "revision {number} was scheduled for a later step and will not take effect"
        ));
    }
}

fn table(told: &GetRewardsResponse) -> String {
    let mut text = format!(
        "run {}, {} of {} steps committed\n{:>8}  {:16}  {:>15}  {:10}  {:>6}  answers at",
        told.run_id,
        told.committed_steps,
        told.total_steps,
        "revision",
        "name",
        "steps",
        "state",
        "leases"
    );
    for binding in &told.rewards {
        let Some(revision) = &binding.revision else { continue };
        let state = match binding.state() {
            RewardState::Scheduled => "scheduled",
            RewardState::Active => "active",
            RewardState::Draining => "draining",
            RewardState::Idle => "idle",
            RewardState::Superseded => "superseded",
            RewardState::Unspecified => "unknown",
        };
        let steps = match binding.from_step == binding.until_step {
            true => "none".to_owned(),
            false => format!("{} to {}", binding.from_step, binding.until_step - 1),
        };
        text.push_str(&format!(
            "\n{:>8}  {:16}  {steps:>15}  {state:10}  {:>6}  {}\n{:>8}  {}",
            revision.number,
            revision.name,
            binding.leased_groups,
            revision.endpoints.join(", "),
            "",
            revision.digest
        ));
    }
    text
}
