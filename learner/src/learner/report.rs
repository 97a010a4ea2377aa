//! The actor that tells the coordinator what is on the disk.
//!
//! Invariants: what is told is durable. A registration carries the whole truth, so after the
//! coordinator was gone, or forgot this learner, registering again mends everything; a report that was
//! lost is told again. It quits when the coordinator knows that the run is complete.

use super::Config;
use crate::board::{Board, Inventory};
use crate::error::LearnerError;
use octet_proto::GroupIndex;
use octet_proto::auth::{JoinToken, Line};
use octet_proto::broadcast::BroadcastState;
use octet_proto::coordinator::{
    CoordinatorClient, LeaseRef, RegisterLearnerRequest, ReportProgressRequest, coordinator_client,
};
use octet_proto::error::{error_kind, is_transport_failure};
use octet_proto::transport::ClientOptions;
use octet_runtime::CancellationToken;
use octet_runtime::backoff::{Backoff, seed_of};
use octet_runtime::membership::Membership;
use octet_runtime::net::Dialer;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::Status;

/// How long a call may take.
const CALL: Duration = Duration::from_secs(10);
/// How long the last report may take when the learner is told to stop.
const LAST_CALL: Duration = Duration::from_secs(2);
/// The coordinator wants to hear from the learner at least this often, whatever it says.
const SLOWEST_HEARTBEAT: Duration = Duration::from_secs(10);

/// What the actor works with.
pub(super) struct Reporter {
    client: CoordinatorClient,
    config: Config,
    endpoint: String,
    board: Arc<Board>,
    /// Its part in broadcasts, if it takes any.
    membership: Option<Membership>,
}

/// A registration that holds.
struct Session {
    learner_id: u64,
    heartbeat: Duration,
    /// Groups that the coordinator knows of.
    told: BTreeSet<GroupIndex>,
    /// Groups of which it knows the lease that they came by.
    credited: BTreeSet<GroupIndex>,
}

/// Why a call was not answered.
enum Unanswered {
    /// The coordinator does not know this learner any more.
    Forgotten,
    /// It may be there later.
    Later(String),
    /// It said no for good.
    Never(LearnerError),
}

impl Reporter {
    pub fn new(
        config: Config,
        endpoint: String,
        dialer: &Dialer,
        board: Arc<Board>,
        membership: Option<Membership>,
    ) -> Result<Self, LearnerError> {
        let channel = dialer.dial(&config.coordinator, &ClientOptions::default())?;
        let line = Line::new(channel, &JoinToken::new(&config.join_token));
        Ok(Self { client: coordinator_client(line), config, endpoint, board, membership })
    }

    /// Registers and reports until the run is complete, or `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LearnerError> {
        let mut changes = self.board.inventory.subscribe();
        let mut session = None;
        let mut attempts = Backoff::quick(seed_of(&self.endpoint)).attempts();
        let mut absent = None;
        loop {
            let stopping = stop.is_cancelled();
            let inventory = changes.borrow_and_update().clone();
            let within = if stopping { LAST_CALL } else { CALL };
            let told = match session.as_mut() {
                None if stopping => return Ok(()),
                None => self.register(&inventory, within).await.map(|new| {
                    session = Some(new);
                    // A registration does not tell whether the run is complete: ask at once.
                    None
                }),
                Some(session) => self.report(session, &inventory, within).await.map(Some),
            };
            match told {
                Ok(told) => {
                    (absent, _) = (None, attempts.reset());
                    match told {
                        Some(true) if self.board.is_complete() => return Ok(()),
                        Some(_) if stopping => return Ok(()),
                        None => continue,
                        Some(_) => {}
                    }
                    let pause = session.as_ref().map_or(CALL, |session| session.heartbeat);
                    next(&mut changes, &mut self.membership, pause, &stop).await;
                }
                Err(Unanswered::Never(error)) => return Err(error),
                Err(_) if stopping => return Ok(()),
                Err(Unanswered::Forgotten) => session = None,
                Err(Unanswered::Later(last)) => {
                    let wait = absent.get_or_insert_with(|| {
                        let (name, within) = ("coordinator", self.config.patience.coordinator);
                        self.board.waits.enter(name, self.config.coordinator.clone(), within)
                    });
                    tracing::debug!(failed = attempts.failed(), "the coordinator is away: {last}");
                    wait.detail(format!("{}: {last}", self.config.coordinator));
                    let pause = tokio::time::sleep(attempts.next_delay());
                    tokio::select! {
                        () = stop.cancelled() => {}
                        paused = wait.run(pause) => {
                            paused.map_err(|wait| LearnerError::Unreachable { wait, last })?;
                        }
                    }
                }
            }
        }
    }

    async fn register(
        &mut self,
        inventory: &Inventory,
        within: Duration,
    ) -> Result<Session, Unanswered> {
        let request = RegisterLearnerRequest {
            config_digest: self.config.config_digest.as_str().to_owned(),
            endpoint: self.endpoint.clone(),
            committed_steps: inventory.committed(),
            spooled_groups: inventory.spooled().iter().map(|group| group.get()).collect(),
            published: self.board.publication.to_proto(),
        };
        let answer = answer(within, self.client.register_learner(request)).await?;
        tracing::info!(run = answer.run_id, learner = answer.learner_id, "registered");
        let heartbeat = Duration::from_millis(answer.heartbeat_ms.max(1)).min(SLOWEST_HEARTBEAT);
        let told = inventory.spooled().clone();
        // The coordinator measures nothing by what was spooled before it knew this learner.
        let credited = inventory.leases().keys().copied().collect();
        Ok(Session { learner_id: answer.learner_id, heartbeat, told, credited })
    }

    /// Tells what is new; whether the run is complete.
    async fn report(
        &mut self,
        session: &mut Session,
        inventory: &Inventory,
        within: Duration,
    ) -> Result<bool, Unanswered> {
        let news = inventory.spooled().difference(&session.told);
        let leases = inventory.leases().iter();
        let leases = leases.filter(|(group, _)| !session.credited.contains(group));
        let request = ReportProgressRequest {
            learner_id: session.learner_id,
            spooled_groups: news.map(|group| group.get()).collect(),
            committed_steps: inventory.committed(),
            waits: self.board.waits.to_proto(),
            learned_tokens: self.board.totals.borrow().learned_tokens,
            published: self.board.publication.to_proto(),
            queues: self.board.queues.to_proto(),
            delivered: leases
                .map(|(group, lease)| LeaseRef { group: group.get(), epoch: lease.get() })
                .collect(),
            broadcast: self.broadcast(),
        };
        let answer = answer(within, self.client.report_progress(request)).await?;
        if let (Some(membership), Some(orders)) = (&self.membership, &answer.broadcast) {
            membership.hear(orders);
        }
        session.told.clone_from(inventory.spooled());
        session.credited = inventory.leases().keys().copied().collect();
        Ok(answer.run_complete)
    }
}

impl Reporter {
    /// What it says of broadcasts: it can send what is published, whatever its thread is doing.
    fn broadcast(&self) -> Option<BroadcastState> {
        let newest = self.board.publication.newest_parcel();
        let (version, bytes) = newest.unzip();
        self.membership.as_ref()?.say(version, bytes.unwrap_or_default())
    }
}

/// Until there is news, the heartbeat is due, or the learner shall stop.
async fn next(
    changes: &mut watch::Receiver<Inventory>,
    membership: &mut Option<Membership>,
    heartbeat: Duration,
    stop: &CancellationToken,
) {
    let broadcast = async {
        match membership {
            Some(membership) => membership.changed().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = broadcast => {}
        _ = tokio::time::timeout(heartbeat, changes.changed()) => {}
    }
}

async fn answer<T>(
    within: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Unanswered> {
    let status = match tokio::time::timeout(within, call).await {
        Ok(Ok(answer)) => return Ok(answer.into_inner()),
        Ok(Err(status)) => status,
        Err(_late) => return Err(Unanswered::Later(format!("no answer within {within:?}"))),
    };
    match error_kind(&status) {
        Some("unknown-learner") => Err(Unanswered::Forgotten),
        Some(kind) => Err(Unanswered::Never(LearnerError::Refused {
            kind: kind.to_owned(),
            message: status.message().to_owned(),
        })),
        None if is_transport_failure(&status) => {
            Err(Unanswered::Later(octet_proto::error::describe(&status)))
        }
        None => Err(Unanswered::Later(format!("{}: {}", status.code(), status.message()))),
    }
}
