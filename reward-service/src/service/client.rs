//! Asking a reward service, and finding out whether it can be relied on before a run does.
//!
//! Invariants: every call has a deadline; nothing is believed that was not seen: a service that passes
//! [`probe`] was healthy, speaks this contract, gave each probe a finite reward in its range, gave it twice,
//! and gave what every other replica gave.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use octet_dataset::Example;
use octet_proto::CONTRACT_VERSION;
use octet_proto::reward::{
    DescribeRequest, DescribeResponse, RewardClient, ScoreOutcome, ScoreRequest, Scored,
    reward_client,
};
use octet_proto::transport::{AddressError, ClientOptions};
use octet_runtime::net::Dialer;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::function::RewardRange;
use crate::trivial::TrivialPolicy;

/// How long meeting a replica may take.
const MEETING: Duration = Duration::from_secs(10);
/// How many questions a replica gets at once that does not say.
const USUAL_ROOM: usize = 64;
/// The most that it gets.
const MOST_ROOM: usize = 1024;
/// The name that the standard health service has for this contract.
const SERVICE: &str = "octet.v1.RewardService";

/// Why a reward service cannot be relied on.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address cannot be dialled.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// It cannot be reached, or broke off.
    #[error("{endpoint}: {action}: expected an answer, found {}: start the service, or correct the address", status.message())]
    Broken {
        /// Its address.
        endpoint: String,
        /// What was asked.
        action: &'static str,
        /// What the network or the service says.
        status: Box<Status>,
    },
    /// It does not answer.
    #[error(
        "{endpoint}: {action}: expected an answer within {within:?}, found none: the service hangs or is overloaded"
    )]
    Late {
        /// Its address.
        endpoint: String,
        /// What was asked.
        action: &'static str,
        /// How long was waited.
        within: Duration,
    },
    /// It says that it is not well.
    #[error(
        "{endpoint}: expected a service that is healthy, found {found}: wait until it is, or restart it"
    )]
    Unhealthy {
        /// Its address.
        endpoint: String,
        /// What it says.
        found: String,
    },
    /// It speaks another contract.
    #[error(
        "{endpoint}: expected contract version {CONTRACT_VERSION}, found {found}: run a reward service of this version"
    )]
    Contract {
        /// Its address.
        endpoint: String,
        /// What it speaks.
        found: u32,
    },
    /// What it says of itself cannot be.
    #[error("{endpoint}: expected a description with {expected}, found {found}: mend the service")]
    Description {
        /// Its address.
        endpoint: String,
        /// What was expected.
        expected: &'static str,
        /// What it says.
        found: String,
    },
    /// Two replicas are not the same reward.
    #[error(
        "expected replicas of one reward, found {first} with digest {first_digest} and {second} with {second_digest}: start all with the same function"
    )]
    Differ {
        /// One address.
        first: String,
        /// Its digest.
        first_digest: String,
        /// Another address.
        second: String,
        /// Its digest.
        second_digest: String,
    },
    /// A probe got no usable reward.
    #[error(
        "{endpoint}: row {row}, the answer {answer:?}: expected a reward, found {found}: mend the function"
    )]
    NoReward {
        /// Its address.
        endpoint: String,
        /// The probe's row, from 1.
        row: usize,
        /// The probe's answer.
        answer: String,
        /// What was found.
        found: String,
    },
    /// A probe got two rewards.
    #[error(
        "row {row}, the answer {answer:?}: expected the same reward every time, found {first} from {first_endpoint} and {second} from {second_endpoint}: a reward may depend on nothing but the row and the answer"
    )]
    Unsteady {
        /// The probe's row, from 1.
        row: usize,
        /// The probe's answer.
        answer: String,
        /// One reward.
        first: f64,
        /// Who gave it.
        first_endpoint: String,
        /// Another.
        second: f64,
        /// Who gave it.
        second_endpoint: String,
    },
}

/// A replica that was met.
#[derive(Clone, Debug)]
pub struct Replica {
    endpoint: String,
    client: RewardClient,
    described: DescribeResponse,
}

/// What is to be scored: an example's row as JSON, and a completion's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The row.
    pub example_json: String,
    /// The text.
    pub completion: String,
}

/// An answer: a reward that may be used, or what was found instead.
pub type Outcome = Result<Scored, String>;

/// What a probe found.
#[derive(Clone, Debug, PartialEq)]
pub struct Probed {
    /// What the reward is called.
    pub name: String,
    /// Its digest.
    pub digest: String,
    /// The rewards that it can give; `None` when it does not say.
    pub range: Option<RewardRange>,
    /// How many rewards each replica gave.
    pub scored: usize,
    /// The least and the most of them.
    pub seen: RewardRange,
}

impl Replica {
    /// Asks for its health and who it is.
    ///
    /// # Errors
    /// It cannot be reached in time, is not healthy, or speaks another contract.
    pub async fn meet(endpoint: &str, dialer: &Dialer) -> Result<Self, ClientError> {
        let channel = dialer.dial(endpoint, &ClientOptions::default())?;
        let endpoint = endpoint.to_owned();
        let mut health = HealthClient::new(channel.clone());
        let check = health.check(HealthCheckRequest { service: SERVICE.to_owned() });
        match within(&endpoint, "asking for its health", check).await {
            Ok(answer) => {
                let status = answer.into_inner().status();
                if status != ServingStatus::Serving {
                    let found = status.as_str_name().to_owned();
                    return Err(ClientError::Unhealthy { endpoint, found });
                }
            }
            // The contract asks for two calls, and health is neither.
            Err(ClientError::Broken { status, .. })
                if matches!(status.code(), Code::Unimplemented | Code::NotFound) => {}
            Err(error) => return Err(error),
        }
        let mut client = reward_client(channel);
        let describe = client.describe(DescribeRequest {});
        let described = within(&endpoint, "asking who it is", describe).await?.into_inner();
        check_description(&endpoint, &described)?;
        Ok(Self { endpoint, client, described })
    }

    /// Its address.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What it says of itself.
    pub fn described(&self) -> &DescribeResponse {
        &self.described
    }

    /// The rewards that it promises; `None` when it does not say.
    pub fn range(&self) -> Option<RewardRange> {
        let DescribeResponse { min_reward: min, max_reward: max, .. } = self.described;
        (min < max).then_some(RewardRange { min, max })
    }

    /// Has all scored, in the order in which they are asked; each answer may take `patience`.
    ///
    /// # Errors
    /// It went away or did not answer in time. What is no reward is an answer, and no error.
    pub async fn score(
        &mut self,
        asks: &[Ask],
        patience: Duration,
    ) -> Result<Vec<Outcome>, ClientError> {
        const ACTION: &str = "having completions scored";
        let room = match self.described.max_in_flight as usize {
            0 => USUAL_ROOM,
            room => room.min(MOST_ROOM),
        };
        let (endpoint, range) = (self.endpoint.clone(), self.range());
        let broken = |status: Status| ClientError::Broken {
            endpoint: endpoint.clone(),
            action: ACTION,
            status: Box::new(status),
        };
        let late =
            || ClientError::Late { endpoint: endpoint.clone(), action: ACTION, within: patience };
        let (send, questions) = tokio::sync::mpsc::channel(room);
        let mut waiting = (0u64..).zip(asks).map(|(id, ask)| ScoreRequest {
            id,
            group: 0,
            sample: 0,
            completion: ask.completion.clone(),
            example_json: ask.example_json.clone(),
        });
        for question in waiting.by_ref().take(room) {
            // There is room, and the other end is held.
            drop(send.try_send(question));
        }
        let mut answers = BTreeMap::new();
        if asks.is_empty() {
            return Ok(Vec::new());
        }
        let opened = timeout(patience, self.client.score(ReceiverStream::new(questions))).await;
        let mut stream = opened.map_err(|_| late())?.map_err(broken)?.into_inner();
        while answers.len() < asks.len() {
            let next = timeout(patience, stream.next()).await.map_err(|_| late())?;
            let response = match next {
                Some(response) => response.map_err(broken)?,
                None => return Err(broken(Status::unavailable("the end of the stream"))),
            };
            // An answer to nothing, or a second one, is not believed.
            if response.id < asks.len() as u64 {
                answers.entry(response.id).or_insert_with(|| judge(response.outcome, range));
            }
            if let Some(question) = waiting.next() {
                drop(send.try_send(question));
            }
        }
        Ok(answers.into_values().collect())
    }
}

/// Has a handful of rows scored with answers that say nothing, twice, by every replica.
///
/// # Errors
/// The first thing that a run could not rely on.
pub async fn probe(
    replicas: &mut [Replica],
    rows: &[Example],
    patience: Duration,
) -> Result<Probed, ClientError> {
    let asks = asks(rows);
    let mut all = Vec::new();
    for replica in replicas.iter_mut() {
        for _ in 0..2 {
            let outcomes = replica.score(&asks, patience).await?;
            all.push((replica.endpoint.clone(), outcomes));
        }
    }
    let described = replicas.iter().map(|replica| (replica.endpoint.as_str(), &replica.described));
    compare(&described.collect::<Vec<_>>(), &asks, &all)
}

/// The probes: what each trivial policy says to each row.
pub fn asks(rows: &[Example]) -> Vec<Ask> {
    let answers = rows.iter().flat_map(|row| {
        TrivialPolicy::ALL.map(|policy| Ask {
            example_json: row.to_json(),
            completion: policy.answer(&row.tools),
        })
    });
    answers.collect()
}

/// The verdict on what the replicas said of the probes.
fn compare(
    described: &[(&str, &DescribeResponse)],
    asks: &[Ask],
    all: &[(String, Vec<Outcome>)],
) -> Result<Probed, ClientError> {
    let Some((first_endpoint, first)) = described.first() else {
        let (endpoint, found) = (String::new(), "none".to_owned());
        return Err(ClientError::Description { endpoint, expected: "one replica", found });
    };
    if let Some((endpoint, other)) = described.iter().find(|(_, d)| d.digest != first.digest) {
        return Err(ClientError::Differ {
            first: (*first_endpoint).to_owned(),
            first_digest: first.digest.clone(),
            second: (*endpoint).to_owned(),
            second_digest: other.digest.clone(),
        });
    }
    let mut seen = RewardRange { min: f64::INFINITY, max: f64::NEG_INFINITY };
    for (at, ask) in asks.iter().enumerate() {
        let (row, answer) = (at / TrivialPolicy::ALL.len() + 1, ask.completion.clone());
        let mut given: Option<(f64, &str)> = None;
        for (endpoint, outcomes) in all {
            let reward = match outcomes.get(at) {
                Some(Ok(scored)) => scored.reward,
                Some(Err(found)) => {
                    let (endpoint, found) = (endpoint.clone(), found.clone());
                    return Err(ClientError::NoReward { endpoint, row, answer, found });
                }
                None => continue,
            };
            let (first, first_endpoint) = *given.get_or_insert((reward, endpoint));
            if first.to_bits() != reward.to_bits() {
                return Err(ClientError::Unsteady {
                    row,
                    answer,
                    first,
                    first_endpoint: first_endpoint.to_owned(),
                    second: reward,
                    second_endpoint: endpoint.clone(),
                });
            }
            seen = RewardRange { min: seen.min.min(reward), max: seen.max.max(reward) };
        }
    }
    let range = (first.min_reward < first.max_reward)
        .then_some(RewardRange { min: first.min_reward, max: first.max_reward });
    Ok(Probed {
        name: first.name.clone(),
        digest: first.digest.clone(),
        range,
        scored: asks.len(),
        seen,
    })
}

fn check_description(endpoint: &str, described: &DescribeResponse) -> Result<(), ClientError> {
    let endpoint = endpoint.to_owned();
    if described.contract_version != CONTRACT_VERSION {
        return Err(ClientError::Contract { endpoint, found: described.contract_version });
    }
    let DescribeResponse { digest, min_reward: min, max_reward: max, .. } = described;
    if digest.is_empty() {
        let (expected, found) = ("a digest", "an empty one".to_owned());
        return Err(ClientError::Description { endpoint, expected, found });
    }
    if !(min.is_finite() && max.is_finite() && min <= max) {
        let (expected, found) = ("a finite range", format!("{min} to {max}"));
        return Err(ClientError::Description { endpoint, expected, found });
    }
    Ok(())
}

/// A response as a reward that may be used, or what it is instead.
fn judge(outcome: Option<ScoreOutcome>, range: Option<RewardRange>) -> Outcome {
    match outcome {
        Some(ScoreOutcome::Scored(scored)) if !scored.reward.is_finite() => {
            Err(format!("not-finite: {}", scored.reward))
        }
        Some(ScoreOutcome::Scored(scored)) => match range {
            Some(range) if !range.contains(scored.reward) => Err(format!(
                "out-of-range: {} where {} to {} was promised",
                scored.reward, range.min, range.max
            )),
            _ => Ok(scored),
        },
        Some(ScoreOutcome::Failure(failure)) => {
            Err(format!("{}: {}", failure.kind, failure.message))
        }
        None => Err("no-outcome: neither a reward nor a failure".to_owned()),
    }
}

async fn within<T>(
    endpoint: &str,
    action: &'static str,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, ClientError> {
    match timeout(MEETING, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(status)) => Err(ClientError::Broken {
            endpoint: endpoint.to_owned(),
            action,
            status: Box::new(status),
        }),
        Err(_) => Err(ClientError::Late { endpoint: endpoint.to_owned(), action, within: MEETING }),
    }
}
