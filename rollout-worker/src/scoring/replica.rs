//! One reward replica: finds out who it is, keeps one stream open, comes back when it breaks.
//!
//! Invariants: nothing is asked of a replica that is not of the revision; the stream is opened with
//! its first question, because a server may not answer before it is asked; every end is told.

use std::sync::Arc;

use futures::StreamExt;
use octet_proto::CONTRACT_VERSION;
use octet_proto::reward::{
    DescribeRequest, ScoreOutcome, ScoreRequest, ScoreResponse, reward_client,
};
use octet_proto::transport::{AddressError, ClientOptions};
use octet_runtime::backoff::Backoff;
use octet_runtime::net::Dialer;
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Failure, Revision};
use crate::assembly::Reward;

/// How long a replica may take to say who it is.
const DESCRIBE: Duration = Duration::from_secs(10);
/// How long connecting may take, at the most. With the longest pause between attempts it is below three
/// seconds, within which a replica that is back is used again.
const CONNECT: Duration = Duration::from_secs(2);
/// How many questions a replica gets at once that does not say.
const USUAL_ROOM: usize = 64;
/// The most questions that any replica gets at once.
const MOST_ROOM: usize = 1024;

/// A replica's line.
pub(super) struct Line {
    pub revision: Arc<Revision>,
    pub replica: usize,
    /// Counts the lines to this replica, so that news of an older one are known as such.
    pub line: u64,
    pub dialer: Dialer,
    pub options: ClientOptions,
    /// Keys the pauses of this node.
    pub seed: u64,
    pub news: mpsc::Sender<News>,
}

/// What happened on a line.
pub(super) struct News {
    pub revision: Arc<Revision>,
    pub replica: usize,
    pub line: u64,
    pub what: What,
}

pub(super) enum What {
    Up { room: usize, questions: mpsc::Sender<ScoreRequest> },
    Answer { id: u64, outcome: Result<Reward, Failure> },
    Down,
}

/// The range that a replica promises its rewards to lie in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub min: f64,
    pub max: f64,
}

/// Why a line is down.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("dial it")]
    Address(#[from] AddressError),
    #[error("{}", octet_proto::error::describe(.0))]
    Status(Box<Status>),
    #[error("no answer to Describe within {DESCRIBE:?}")]
    Silent,
    #[error(
        "expected contract version {CONTRACT_VERSION}, found {0}: run a reward service of this version"
    )]
    Contract(u32),
    #[error(
        "expected the reward with digest {expected}, found {name} with {found}: start the replica with the revision's reward, or swap to the new one"
    )]
    OtherReward { expected: String, name: String, found: String },
    #[error("the replica ended the stream")]
    Ended,
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// The other side has gone away: there is nothing to do any more.
struct Done;

impl Line {
    /// Keeps the line up until nobody listens any more.
    pub(super) async fn run(self) {
        let seed = self.seed ^ self.revision.number.get() ^ ((self.replica as u64) << 32);
        let mut attempts = Backoff::brisk(seed).attempts();
        loop {
            let mut answered = false;
            let Err(broken) = self.stay_up(&mut answered).await else { return };
            if answered {
                attempts.reset();
            }
            let delay = attempts.next_delay();
            tracing::warn!(
                revision = self.revision.number.get(),
                replica = self.endpoint(),
                error = %octet_proto::error::with_causes(&broken),
                ?delay,
                "reward replica is away; its questions go to others"
            );
            if self.tell(What::Down).await.is_err() {
                return;
            }
            sleep(delay).await;
        }
    }

    async fn stay_up(&self, answered: &mut bool) -> Result<Done, Broken> {
        let connect_timeout = self.options.connect_timeout.min(CONNECT);
        let options = ClientOptions { connect_timeout, ..self.options.clone() };
        let channel = self.dialer.dial(self.endpoint(), &options)?;
        let mut client = reward_client(channel);
        let described = timeout(DESCRIBE, client.describe(DescribeRequest {})).await;
        let described = described.map_err(|_late| Broken::Silent)??.into_inner();
        if described.contract_version != CONTRACT_VERSION {
            return Err(Broken::Contract(described.contract_version));
        }
        if described.digest != self.revision.digest {
            let (expected, name) = (self.revision.digest.clone(), described.name);
            return Err(Broken::OtherReward { expected, name, found: described.digest });
        }
        let range = Range { min: described.min_reward, max: described.max_reward };
        let room = match described.max_in_flight as usize {
            0 => USUAL_ROOM,
            room => room.min(MOST_ROOM),
        };
        let (questions, mut asked) = mpsc::channel(room);
        if self.tell(What::Up { room, questions }).await.is_err() {
            return Ok(Done);
        }
        let Some(first) = asked.recv().await else { return Ok(Done) };
        let questions = futures::stream::iter([first]).chain(ReceiverStream::new(asked));
        let mut answers = client.score(questions).await?.into_inner();
        while let Some(response) = answers.message().await? {
            *answered = true;
            let (id, outcome) = (response.id, judge(response, range));
            if self.tell(What::Answer { id, outcome }).await.is_err() {
                return Ok(Done);
            }
        }
        Err(Broken::Ended)
    }

    fn endpoint(&self) -> &str {
        &self.revision.endpoints[self.replica]
    }

    async fn tell(&self, what: What) -> Result<(), Done> {
        let (revision, replica, line) = (Arc::clone(&self.revision), self.replica, self.line);
        self.news.send(News { revision, replica, line, what }).await.map_err(|_closed| Done)
    }
}

/// A response as a reward or a failure: a server of another language may say anything.
pub(super) fn judge(response: ScoreResponse, range: Range) -> Result<Reward, Failure> {
    let refused = |kind: &str, message: String| {
        Err(Failure { kind: kind.to_owned(), message, retryable: false })
    };
    match response.outcome {
        Some(ScoreOutcome::Failure(failure)) => Err(Failure {
            kind: failure.kind,
            message: failure.message,
            retryable: failure.retryable,
        }),
        Some(ScoreOutcome::Scored(scored)) => {
            let reward = scored.reward;
            let Range { min, max } = range;
            if !reward.is_finite() {
                return refused("not-finite", format!("expected a finite reward, found {reward}"));
            }
            // A server that names no range sends zeros.
            if min < max && !(min..=max).contains(&reward) {
                let message = format!("expected a reward from {min} to {max}, found {reward}");
                return refused("out-of-range", message);
            }
            Ok(Reward { reward, verdict: scored.verdict, detail: scored.detail })
        }
        None => refused("no-outcome", "expected a reward or a failure, found neither".to_owned()),
    }
}
