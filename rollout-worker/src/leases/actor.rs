//! The session's actor.
//!
//! Invariant: at most one registration, one question for groups and one heartbeat are under way.

use std::sync::Arc;

use octet_proto::coordinator::{
    HeartbeatRequest, HeartbeatResponse, LeaseRef, LeaseResponse, RegisterWorkerRequest,
    RegisterWorkerResponse, VersionSources,
};
use octet_proto::error::{describe, error_kind};
use octet_proto::{GroupIndex, LeaseEpoch, PolicyVersion};
use octet_runtime::CancellationToken;
use octet_runtime::backoff::{Attempts, Backoff, seed_of};
use octet_runtime::mailbox::{Address, Mailbox};
use octet_runtime::membership::Membership;
use octet_runtime::wait::{WaitGuard, Waits};
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep_until};
use tonic::{Code, Status};

use super::Note;
use super::calls::{Answer, CALL, Calls, is_forgotten};
use super::table::Table;
use crate::config::Config;
use crate::error::WorkerError;
use crate::groups::{Event, Granted, LeaseKey};
use crate::stats::Handle;
use crate::weights::{self, Shelf};

/// How long news may wait for room. The mailboxes hold all that can be under way.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long saying goodbye may take: leases of one that left without a word run out by themselves.
const GOODBYE: Duration = Duration::from_secs(2);
/// The shortest time between two heartbeats, whatever the coordinator says.
const QUICKEST: Duration = Duration::from_millis(10);

/// Whom the session tells what.
pub(crate) struct Told {
    pub groups: Address<Event>,
    pub librarian: Address<weights::Command>,
    pub learner: watch::Sender<String>,
    pub sources: watch::Sender<weights::Sources>,
}

/// The session's parts, before it runs.
pub(crate) struct Leases {
    pub calls: octet_proto::coordinator::CoordinatorClient,
    pub notes: Mailbox<Note>,
    pub told: Told,
    /// Its part in broadcasts, if it takes any.
    pub membership: Option<Membership>,
    pub shelf: Shelf,
    pub config: Arc<Config>,
    pub waits: Waits,
    pub handle: Handle,
    /// Cancelled here, so that the groups under way end.
    pub drain: CancellationToken,
}

/// What a registration gave.
#[derive(Clone, Copy, Debug)]
struct Session {
    worker_id: u64,
    heartbeat: Duration,
    /// Whether the leases that were held before were named: only then is it asked for more.
    settled: bool,
}

/// The session while it runs.
struct Running {
    parts: Leases,
    calls: Calls,
    table: Table,
    session: Option<Session>,
    /// The registration that is under way.
    registering: Option<WaitGuard>,
    /// The question for groups that is parked.
    asking: Option<WaitGuard>,
    beating: bool,
    beat_at: Instant,
    /// When to call again after a failure.
    retry_at: Instant,
    attempts: Attempts,
    /// Open while the coordinator is away.
    away: Option<WaitGuard>,
    newest: Option<PolicyVersion>,
    /// Why there was nothing to lease when it was last asked.
    waiting_for: String,
    /// Leases to give back.
    giving_back: Vec<LeaseRef>,
    complete: bool,
    drained: bool,
}

impl Leases {
    /// Works until the run is complete, or until `stop` and everything under way has ended.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), WorkerError> {
        let now = Instant::now();
        let seed = seed_of(&self.config.name);
        let mut session = Running {
            calls: Calls::new(self.calls.clone()),
            parts: self,
            table: Table::default(),
            session: None,
            registering: None,
            asking: None,
            beating: false,
            beat_at: now,
            retry_at: now,
            attempts: Backoff::quick(seed).attempts(),
            away: None,
            newest: None,
            waiting_for: String::new(),
            giving_back: Vec::new(),
            complete: false,
            drained: false,
        };
        let ended = session.work(&stop).await;
        // In any case the groups are told, and the coordinator, if it can be.
        session.parts.drain.cancel();
        session.leave().await;
        ended
    }
}

impl Running {
    async fn work(&mut self, stop: &CancellationToken) -> Result<(), WorkerError> {
        let mut arrivals = self.parts.shelf.arrivals();
        while !self.complete && !self.drained {
            let draining = stop.is_cancelled();
            if draining {
                self.parts.drain.cancel();
            }
            let wake = self.call(draining);
            tokio::select! {
                biased;
                () = stop.cancelled(), if !draining => {}
                note = self.parts.notes.receive() => match note {
                    Some(note) => self.on_note(note),
                    // The hub has ended, so nothing is under way.
                    None => self.drained = true,
                },
                Some(answer) = self.calls.next() => {
                    let answer = answer.map_err(|lost| WorkerError::lost("a call", &lost))?;
                    self.on_answer(answer, draining).await?;
                }
                // Others want to know at once who holds a new version.
                Ok(()) = arrivals.changed() => self.beat_at = Instant::now(),
                // They wait for what it does in a broadcast.
                () = news(&mut self.parts.membership) => self.beat_at = Instant::now(),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
        Ok(())
    }

    /// Makes the calls that are due; says when the next one is.
    fn call(&mut self, draining: bool) -> Option<Instant> {
        let now = Instant::now();
        let Some(session) = self.session else {
            if self.registering.is_some() || draining && self.table.is_empty() {
                return None;
            }
            if now < self.retry_at {
                return Some(self.retry_at);
            }
            let detail = format!("with the coordinator at {}", self.parts.config.coordinator);
            self.registering = Some(self.parts.waits.enter("registration", detail, CALL));
            self.calls.register(self.registration());
            return None;
        };
        let id = session.worker_id;
        if !self.giving_back.is_empty() {
            self.calls.release(id, std::mem::take(&mut self.giving_back));
        }
        if !self.beating && now >= self.beat_at {
            self.beating = true;
            self.beat_at = now + session.heartbeat;
            // One that is late must not keep the next from being sent for long.
            let patience = (session.heartbeat * 4).max(Duration::from_secs(1));
            self.calls.heartbeat(self.heartbeat(id), patience);
        }
        let want =
            self.table.want(self.parts.config.capacity.get(), self.parts.config.completions());
        let may_ask = session.settled && !draining && want > 0 && self.asking.is_none();
        if may_ask && now >= self.retry_at {
            let poll = self.parts.config.limits.poll;
            let detail = match self.waiting_for.as_str() {
                "" => format!("{want} groups"),
                why => format!("{want} groups; the coordinator waits for {why}"),
            };
            self.asking = Some(self.parts.waits.enter("lease", detail, poll + PATIENCE));
            self.calls.lease(id, want, poll);
        }
        let ask_at = (may_ask && self.asking.is_none()).then_some(self.retry_at);
        let beat_at = (!self.beating).then_some(self.beat_at);
        ask_at.into_iter().chain(beat_at).min()
    }

    fn on_note(&mut self, note: Note) {
        match note {
            Note::Sampled(key, left) => self.table.sampled(key, left),
            Note::Finished(key) => {
                self.table.remove(key);
            }
            Note::Dropped(key) => {
                self.table.remove(key);
                let (group, epoch) = (key.group.get(), key.epoch.get());
                self.giving_back.push(LeaseRef { group, epoch });
            }
            Note::Drained => self.drained = true,
        }
    }

    async fn on_answer(&mut self, answer: Answer, draining: bool) -> Result<(), WorkerError> {
        let current = self.session.map(|session| session.worker_id);
        match answer {
            Answer::Registered(answer) => {
                self.registering = None;
                match answer {
                    Ok(registered) => self.on_registered(&registered),
                    Err(status) if is_final(&status) => return Err(self.unwelcome(&status)),
                    Err(status) => self.failed("register", &status)?,
                }
            }
            // Of a registration that counts no more; its question was forgotten with it.
            Answer::Leased(id, _) | Answer::Beaten(id, _) | Answer::Released(id, _)
                if current != Some(id) => {}
            Answer::Leased(_, answer) => {
                self.asking = None;
                match answer {
                    Ok(answer) => self.on_leased(answer, draining).await?,
                    Err(status) => self.failed("lease", &status)?,
                }
            }
            Answer::Beaten(_, answer) => {
                self.beating = false;
                match answer {
                    Ok(answer) => self.on_beaten(answer).await?,
                    Err(status) => self.failed("heartbeat", &status)?,
                }
            }
            // What could not be given back is not named any more, and runs out.
            Answer::Released(_, Err(status)) => self.failed("release", &status)?,
            Answer::Released(_, Ok(())) => {}
        }
        Ok(())
    }

    fn on_registered(&mut self, registered: &RegisterWorkerResponse) {
        let heartbeat = Duration::from_millis(registered.heartbeat_ms).max(QUICKEST);
        let settled = self.table.is_empty();
        let worker_id = registered.worker_id;
        self.session = Some(Session { worker_id, heartbeat, settled });
        self.beating = false;
        self.asking = None;
        self.beat_at = Instant::now();
        self.back();
        self.learner_at(&registered.learner_endpoint);
        tracing::info!(
            run = registered.run_id,
            worker = self.parts.config.name,
            id = worker_id,
            leases = self.table.refs().len(),
            "registered with the coordinator"
        );
    }

    async fn on_leased(
        &mut self,
        answer: LeaseResponse,
        draining: bool,
    ) -> Result<(), WorkerError> {
        self.back();
        if answer.run_complete {
            return self.on_complete().await;
        }
        self.waiting_for = answer.waiting_for;
        // A broadcast has begun, and the others wait for this one.
        if answer.sources.iter().any(|source| source.broadcast_within_ms > 0) {
            self.beat_at = Instant::now();
        }
        // Before the leases that need the versions.
        self.sources_at(answer.sources);
        for lease in answer.leases {
            let granted = Granted::try_from(lease)?;
            if draining {
                let (group, epoch) = (granted.key.group.get(), granted.key.epoch.get());
                self.giving_back.push(LeaseRef { group, epoch });
                continue;
            }
            self.table.grant(granted.key, self.parts.config.completions());
            let event = Event::Granted(Box::new(granted));
            self.parts.told.groups.send(event, PATIENCE).await?;
        }
        Ok(())
    }

    async fn on_beaten(&mut self, answer: HeartbeatResponse) -> Result<(), WorkerError> {
        self.back();
        if let Some(session) = &mut self.session {
            session.settled = true;
        }
        for lease in answer.revoked {
            let (group, epoch) = (GroupIndex(lease.group), LeaseEpoch(lease.epoch));
            let key = LeaseKey { group, epoch };
            if self.table.remove(key) {
                self.parts.told.groups.send(Event::Revoked(key), PATIENCE).await?;
            }
        }
        self.learner_at(&answer.learner_endpoint);
        self.sources_at(answer.sources);
        if let (Some(membership), Some(orders)) = (&self.parts.membership, &answer.broadcast) {
            membership.hear(orders);
        }
        let newest = Some(PolicyVersion(answer.newest_version));
        // Version 0 needs no fetching ahead: the first lease asks for it.
        if newest > self.newest && newest > Some(PolicyVersion(0)) {
            self.newest = newest;
            let news = weights::Command::Newest(PolicyVersion(answer.newest_version));
            self.parts.told.librarian.send(news, PATIENCE).await?;
        }
        if answer.run_complete {
            self.on_complete().await?;
        }
        Ok(())
    }

    async fn on_complete(&mut self) -> Result<(), WorkerError> {
        tracing::info!(worker = self.parts.config.name, "the run is complete");
        self.complete = true;
        Ok(self.parts.told.groups.send(Event::Complete, PATIENCE).await?)
    }

    /// The coordinator is there.
    fn back(&mut self) {
        self.attempts.reset();
        self.away = None;
    }

    fn failed(&mut self, call: &'static str, status: &Status) -> Result<(), WorkerError> {
        if is_forgotten(status) {
            tracing::info!(
                worker = self.parts.config.name,
                "the coordinator does not know this worker; registering again"
            );
            self.session = None;
            self.asking = None;
            self.beating = false;
            self.retry_at = Instant::now();
            return Ok(());
        }
        let delay = self.attempts.next_delay();
        self.retry_at = Instant::now() + delay;
        self.beat_at = self.beat_at.max(self.retry_at);
        let coordinator = &self.parts.config.coordinator;
        let error = &describe(status);
        let detail = format!("at {coordinator}: {call}: {error}");
        match &self.away {
            Some(wait) => {
                tracing::debug!(call, coordinator, error, ?delay, "the coordinator is still away");
                wait.detail(detail);
                wait.overdue().map_or(Ok(()), |in_vain| Err(WorkerError::Unreachable(in_vain)))
            }
            None => {
                tracing::warn!(
                    call,
                    coordinator,
                    error,
                    "the coordinator is away; going on without it"
                );
                let within = self.parts.config.limits.coordinator;
                self.away = Some(self.parts.waits.enter("coordinator", detail, within));
                Ok(())
            }
        }
    }

    fn unwelcome(&self, status: &Status) -> WorkerError {
        WorkerError::Unwelcome {
            worker: self.parts.config.name.clone(),
            kind: error_kind(status).unwrap_or("unnamed").to_owned(),
            message: status.message().to_owned(),
        }
    }

    fn learner_at(&self, endpoint: &str) {
        // None for now means that the coordinator restarted; the learner is where it was.
        if !endpoint.is_empty() {
            self.parts.told.learner.send_if_modified(|known| {
                let moved = known != endpoint;
                if moved {
                    endpoint.clone_into(known);
                }
                moved
            });
        }
    }

    fn sources_at(&self, told: Vec<VersionSources>) {
        if !told.is_empty() {
            self.parts
                .told
                .sources
                .send_modify(|sources| weights::learn(sources, told, Instant::now()));
        }
    }

    fn registration(&self) -> RegisterWorkerRequest {
        let config = &self.parts.config;
        RegisterWorkerRequest {
            name: config.name.clone(),
            config_digest: config.config_digest.as_str().to_owned(),
            capacity: config.capacity.get(),
            weights_endpoint: config.weights_endpoint.clone(),
        }
    }

    fn heartbeat(&self, worker_id: u64) -> HeartbeatRequest {
        let versions: Vec<u64> =
            self.parts.shelf.versions().into_iter().map(PolicyVersion::get).collect();
        let membership = self.parts.membership.as_ref();
        HeartbeatRequest {
            worker_id,
            broadcast: membership.and_then(|member| member.say(versions.last().copied(), 0)),
            versions,
            leases: self.table.refs(),
            waits: self.parts.waits.to_proto(),
            sampled_tokens: self.parts.handle.counters.sampled_tokens(),
            queues: self.parts.handle.queues.to_proto(),
        }
    }

    async fn leave(self) {
        let Some(session) = self.session else { return };
        let left = self.calls.leave(session.worker_id, GOODBYE).await;
        if let Err(status) = left {
            let error = status.message();
            tracing::warn!(error, "could not say goodbye to the coordinator; the leases run out");
        }
    }
}

/// Waits for news of a broadcast.
async fn news(membership: &mut Option<Membership>) {
    match membership {
        Some(membership) => membership.changed().await,
        None => std::future::pending().await,
    }
}

/// Whether registering again would be refused again.
fn is_final(status: &Status) -> bool {
    error_kind(status).is_some()
        && matches!(
            status.code(),
            Code::FailedPrecondition
                | Code::Unauthenticated
                | Code::PermissionDenied
                | Code::InvalidArgument
        )
}
