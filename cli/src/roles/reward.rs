//! Which rewards a run begins with, and where they answer.
//!
//! Invariant: a run does not begin before every replica has said that it is well and which reward it is, and
//! that is the recipe's. A run that goes on takes the reward from its journal, so that a coordinator comes
//! back while the reward service is away.

use crate::recipe;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use octet_coordinator::Reward;
use octet_coordinator::journal::read_revisions;
use octet_proto::StepIndex;
use octet_proto::transport::Address;
use octet_reward_service::service::client::{ClientError, Replica};
use octet_reward_service::{RewardSource, open};
use octet_runtime::backoff::Backoff;
use octet_runtime::net::{Dialer, Exposure};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Where rewards answer.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Rewards")]
pub struct Rewards {
    /// Where the recipe's reward answers; once for each replica.
    #[arg(long, value_name = "URL", required = true, value_delimiter = ',')]
    reward: Vec<String>,
    /// Where a function of reward.schedule answers, by its step; once for each replica.
    #[arg(long, value_name = "STEP=URL", value_delimiter = ',')]
    scheduled_reward: Vec<Scheduled>,
    /// The digest of a reward of your own that stands in for the recipe's function.
    #[arg(long, value_name = "HEX")]
    reward_digest: Option<String>,
    /// Seconds to wait for the rewards to answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    reward_patience: u64,
}

/// Where the reward of a later step answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    step: u64,
    endpoint: String,
}

impl FromStr for Scheduled {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected STEP=URL, e.g. 12=http://127.0.0.1:50061, found {text:?}");
        let (step, endpoint) = text.split_once('=').ok_or_else(wrong)?;
        let step = step.trim().parse().map_err(|_| wrong())?;
        Ok(Self { step, endpoint: endpoint.trim().to_owned() })
    }
}

/// The rewards that a journal knows, as they were bound: name and digest.
#[derive(Clone, Debug, Default)]
pub struct Known(Vec<(String, String)>);

/// The rewards that a run begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// From step 0 on.
    pub first: Reward,
    /// From later steps on.
    pub later: Vec<(StepIndex, Reward)>,
}

impl Known {
    /// Reads a journal, if there is one.
    ///
    /// # Errors
    /// It cannot be read, or is something else.
    pub fn read(journal: &Path) -> Result<Self> {
        if !journal.is_file() {
            return Ok(Self::default());
        }
        let (revisions, _) = read_revisions(journal)?;
        Ok(Self(revisions.into_iter().map(|(known, _)| (known.name, known.digest)).collect()))
    }

    /// Whether the run has not begun.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Rewards {
    /// Finds out which rewards answer.
    ///
    /// # Errors
    /// One does not answer in time, or is another one than the recipe's.
    pub async fn find(
        &self,
        recipe: &recipe::Reward,
        known: &Known,
        exposure: &Exposure,
    ) -> Result<Found> {
        let until = Instant::now() + Duration::from_secs(self.reward_patience);
        let search = Search { dialer: Arc::new(exposure.clone()), until, known };
        let expected =
            Expected { function: &recipe.function, stands_in: self.reward_digest.as_deref() };
        let first = search.reward(0, "--reward", &expected, &self.reward).await?;
        let mut later = Vec::new();
        for (at, entry) in recipe.schedule.iter().enumerate() {
            let reward = match (&entry.function, &entry.digest) {
                (Some(function), _) => {
                    let at_step = self.scheduled_reward.iter().filter(|s| s.step == entry.step);
                    let endpoints: Vec<String> = at_step.map(|s| s.endpoint.clone()).collect();
                    ensure!(
                        !endpoints.is_empty(),
                        "reward.schedule[{at}] rewards with {function} from step {step} on: start \
                         `octet reward-service` with it and say where with --scheduled-reward {step}=URL",
                        step = entry.step
                    );
                    let expected = Expected { function, stands_in: None };
                    search.reward(at + 1, "--scheduled-reward", &expected, &endpoints).await?
                }
                (None, digest) => Reward {
                    name: entry.name.clone().unwrap_or_else(|| "scheduled".into()),
                    digest: digest.clone().unwrap_or_default(),
                    endpoints: entry.endpoints.clone(),
                },
            };
            later.push((StepIndex(entry.step), reward));
        }
        Ok(Found { first, later })
    }
}

/// Which reward a flag is to name.
struct Expected<'a> {
    function: &'a str,
    stands_in: Option<&'a str>,
}

struct Search<'a> {
    dialer: Dialer,
    until: Instant,
    known: &'a Known,
}

impl Search<'_> {
    /// The reward that was bound as the revision with this index, or else who answers.
    async fn reward(
        &self,
        index: usize,
        flag: &'static str,
        expected: &Expected<'_>,
        endpoints: &[String],
    ) -> Result<Reward> {
        for endpoint in endpoints {
            Address::parse(endpoint).context(flag)?;
        }
        let endpoints = endpoints.to_vec();
        if let Some((name, digest)) = self.known.0.get(index) {
            let (name, digest) = (name.clone(), digest.clone());
            return Ok(Reward { name, digest, endpoints });
        }
        let mut met: Option<Reward> = None;
        for endpoint in &endpoints {
            let described = self.meet(flag, endpoint).await?;
            let (name, digest) =
                (described.described().name.clone(), &described.described().digest);
            match &met {
                None => {
                    expected.check(flag, endpoint, &name, digest)?;
                    met =
                        Some(Reward { name, digest: digest.clone(), endpoints: endpoints.clone() });
                }
                Some(first) if first.digest != *digest => bail!(
                    "{flag}: expected replicas of one reward, found digest {} at {} and {digest} at {endpoint}: \
                     start all of them with the same function",
                    first.digest,
                    endpoints[0]
                ),
                Some(_) => {}
            }
        }
        met.with_context(|| format!("{flag}: expected an address, found none"))
    }

    /// Asks until it answers, or the time is up.
    async fn meet(&self, flag: &'static str, endpoint: &str) -> Result<Replica> {
        let mut attempts = Backoff::quick(u64::from(std::process::id())).attempts();
        loop {
            let error =
                match tokio::time::timeout_at(self.until, Replica::meet(endpoint, &self.dialer))
                    .await
                {
                    Ok(Ok(replica)) => return Ok(replica),
                    Ok(Err(error)) => error,
                    Err(_late) => {
                        bail!("{flag} {endpoint}: did not answer within --reward-patience")
                    }
                };
            let passing = matches!(
                error,
                ClientError::Broken { .. }
                    | ClientError::Late { .. }
                    | ClientError::Unhealthy { .. }
            );
            let pause = attempts.next_delay();
            if !passing || Instant::now() + pause >= self.until {
                return Err(error).context(flag);
            }
            if attempts.failed() == 1 {
                tracing::warn!(endpoint, %error, "waiting for the reward service to answer");
            }
            tokio::time::sleep(pause).await;
        }
    }
}

impl Expected<'_> {
    /// Refuses another reward than the recipe's. What a Python file's digest is only its service knows: it
    /// runs the file.
    fn check(&self, flag: &str, endpoint: &str, name: &str, digest: &str) -> Result<()> {
        let (wanted, function) = match (self.stands_in, self.function.parse()?) {
            (Some(wanted), _) => (wanted.to_owned(), "--reward-digest"),
            (None, RewardSource::Python(..)) => return Ok(()),
            (None, builtin) => (open(&builtin)?.digest(), self.function),
        };
        ensure!(
            wanted == digest,
            "{flag} {endpoint}: expected the recipe's reward {function} with digest {wanted}, found {name} \
             with {digest}: start its service with that function, or name the one that stands in for it with \
             --reward-digest {digest}"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rewards(reward: &str) -> Rewards {
        Rewards {
            reward: vec![reward.to_owned()],
            scheduled_reward: Vec::new(),
            reward_digest: None,
            reward_patience: 1,
        }
    }

    #[tokio::test]
    async fn a_run_that_goes_on_does_not_need_its_reward_to_come_back() {
        let known = Known(vec![("tool-call".into(), "cafe".into())]);
        let recipe = recipe::Reward::default();
        let nobody = "http://127.0.0.1:9";
        let found = rewards(nobody).find(&recipe, &known, &Exposure::Loopback).await.unwrap();
        assert_eq!((found.first.digest.as_str(), found.first.endpoints.len()), ("cafe", 1));
        let error = rewards(nobody).find(&recipe, &Known::default(), &Exposure::Loopback).await;
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains("--reward") && error.contains("start the service"), "{error}");
    }

    #[tokio::test]
    async fn a_scheduled_function_needs_a_service() {
        let entry = recipe::ScheduledReward {
            step: 7,
            function: Some("aws-compat".into()),
            ..recipe::ScheduledReward::default()
        };
        let recipe = recipe::Reward { schedule: vec![entry], ..recipe::Reward::default() };
        let known = Known(vec![("a".into(), "a".into()), ("b".into(), "b".into())]);
        let mut given = rewards("http://127.0.0.1:9");
        let error = given.find(&recipe, &known, &Exposure::Loopback).await.unwrap_err();
        assert!(error.to_string().contains("--scheduled-reward 7=URL"), "{error}");
        given.scheduled_reward = vec!["7=http://127.0.0.1:8".parse().unwrap()];
        let found = given.find(&recipe, &known, &Exposure::Loopback).await.unwrap();
        assert_eq!(found.later[0].0, StepIndex(7));
        assert_eq!(found.later[0].1.digest, "b");
        assert!("http://x".parse::<Scheduled>().unwrap_err().contains("STEP=URL"));
    }

    #[test]
    fn another_reward_than_the_recipes_is_refused_unless_it_is_named() {
        let ours = open(&"tool-call".parse().unwrap()).unwrap().digest();
        let recipe = Expected { function: "tool-call", stands_in: None };
        assert!(recipe.check("--reward", "http://a:1", "tool-call", &ours).is_ok());
        let error = recipe.check("--reward", "http://a:1", "mine", "cafe").unwrap_err().to_string();
        assert!(
            error.contains("mine with cafe") && error.contains("--reward-digest cafe"),
            "{error}"
        );
        let named = Expected { function: "tool-call", stands_in: Some("cafe") };
        assert!(named.check("--reward", "http://a:1", "mine", "cafe").is_ok());
        assert!(named.check("--reward", "http://a:1", "tool-call", &ours).is_err());
    }
}
