//! The actor that owns the machine: it brings the time, makes records durable, and keeps parked
//! lease requests.
//!
//! Invariants: an answer leaves after the records of its event are durable, or never; at most one
//! lease request of a worker is parked, so there are never more than workers.

use std::time::Duration;

use octet_proto::{RevisionNumber, StepIndex, WorkerId};
use octet_runtime::CancellationToken;
use octet_runtime::mailbox::{Gauge, Mailbox, Reply};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::handle::Progress;
use crate::error::CoordinatorError;
use crate::journal::Journal;
use crate::machine::{
    Beat, Bound, LearnerId, LearnerJoin, LearnerReport, LeaseKey, MAX_WORKERS, Machine, Offer,
    Pulse, Queue, Record, Refusal, Reward, Said, Snapshot, Told, Wait, WorkerJoin,
};

/// The longest time between two looks at the clock.
const SLOWEST_TICK: Duration = Duration::from_millis(100);
/// How many commands are taken before parked requests are looked at again.
const BURST: usize = 64;

/// An answer of the machine.
pub(crate) type Answer<T> = Reply<Result<T, Refusal>>;

/// A question to the actor.
#[derive(Debug)]
pub(crate) enum Command {
    RegisterWorker {
        join: WorkerJoin,
        reply: Answer<(WorkerId, String)>,
    },
    Lease {
        worker: WorkerId,
        want: u64,
        wait: Duration,
        reply: Answer<Offer>,
    },
    Heartbeat {
        worker: WorkerId,
        beat: Beat,
        said: Option<Said>,
        reply: Answer<(Pulse, String, Option<Told>)>,
    },
    Release {
        worker: WorkerId,
        leases: Vec<LeaseKey>,
        leaving: bool,
        reply: Answer<()>,
    },
    RegisterLearner {
        join: LearnerJoin,
        reply: Answer<LearnerId>,
    },
    Report {
        learner: LearnerId,
        report: LearnerReport,
        said: Option<Said>,
        reply: Answer<(bool, Option<Told>)>,
    },
    Swap {
        reward: Reward,
        newest_known: Option<RevisionNumber>,
        reply: Answer<Bound>,
    },
    Rollback {
        to: Option<RevisionNumber>,
        newest_known: Option<RevisionNumber>,
        reply: Answer<Bound>,
    },
    Status {
        reply: Reply<Snapshot>,
    },
}

/// A lease request that waits for a group.
#[derive(Debug)]
struct Parked {
    worker: WorkerId,
    want: u64,
    since: Instant,
    until: Instant,
    why: Wait,
    reply: Answer<Offer>,
}

/// The owner of the machine.
pub(crate) struct Actor {
    machine: Machine,
    journal: Box<dyn Journal>,
    inbox: Mailbox<Command>,
    /// How full the inbox is.
    gauge: Gauge,
    progress: watch::Sender<Progress>,
    parked: Vec<Parked>,
    /// Whether something happened that a parked request may have waited for.
    news: bool,
    started: Instant,
    draining: bool,
    /// Whether it is written down that the run is complete.
    complete: bool,
}

impl Actor {
    pub(crate) fn new(
        machine: Machine,
        journal: Box<dyn Journal>,
        (inbox, gauge): (Mailbox<Command>, Gauge),
        progress: watch::Sender<Progress>,
    ) -> Self {
        let (parked, started) = (Vec::new(), Instant::now());
        let (news, draining, complete) = (false, false, machine.is_complete());
        Self { machine, journal, inbox, gauge, progress, parked, news, started, draining, complete }
    }

    /// Binds the swaps that the configuration schedules, before anything is leased.
    pub(crate) fn schedule(
        &mut self,
        schedule: &[(StepIndex, Reward)],
    ) -> Result<(), CoordinatorError> {
        Ok(self.decide(|m, _, records| m.schedule_rewards(schedule, records))??)
    }

    /// Changes the clocks of broadcasts, before anybody is heard of.
    pub(crate) fn change_broadcast_timing(
        &mut self,
        change: impl FnOnce(octet_broadcast::Timing) -> octet_broadcast::Timing,
    ) {
        self.machine.change_broadcast_timing(change);
    }

    /// Answers until `stop`. From `drain` on nothing is parked any more.
    pub(crate) async fn run(
        mut self,
        drain: CancellationToken,
        stop: CancellationToken,
    ) -> Result<(), CoordinatorError> {
        let mut ticks = interval((self.machine.timing().heartbeat / 4).min(SLOWEST_TICK));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = drain.cancelled(), if !self.draining => {
                    self.draining = true;
                    self.news = true;
                }
                _ = ticks.tick() => {
                    // Leases may have run out, and idle workers may have become patient enough.
                    self.machine.tick(self.started.elapsed());
                    self.machine.check()?;
                    self.news = true;
                }
                command = self.inbox.receive() => {
                    let Some(command) = command else { return Ok(()) };
                    self.on_command(command)?;
                    for _ in 1..BURST {
                        let Some(command) = self.inbox.try_receive() else { break };
                        self.on_command(command)?;
                    }
                }
            }
            if std::mem::take(&mut self.news) {
                self.serve_parked()?;
            }
        }
    }

    /// Asks the machine, and makes durable what the answer depends on.
    fn decide<T>(
        &mut self,
        event: impl FnOnce(&mut Machine, Duration, &mut Vec<Record>) -> T,
    ) -> Result<T, CoordinatorError> {
        let mut records = Vec::new();
        let answer = event(&mut self.machine, self.started.elapsed(), &mut records);
        if !self.complete && self.machine.is_complete() {
            // Before the learner is told, which goes home then.
            self.complete = true;
            records.push(Record::RunCompleted);
        }
        // Written here and not on another thread: a few times a step, and the answer has to wait.
        self.journal.append(&records)?;
        Ok(answer)
    }

    fn on_command(&mut self, command: Command) -> Result<(), CoordinatorError> {
        match command {
            Command::RegisterWorker { join, reply } => {
                let name = join.name.clone();
                let id = self.decide(|m, now, records| m.register_worker(now, join, records))?;
                if let Ok(id) = &id {
                    tracing::info!(worker = %name, id = id.get(), "worker joined");
                }
                let learner = self.machine.learner_endpoint().to_owned();
                reply.send(id.map(|id| (id, learner)));
            }
            Command::Lease { worker, want, wait, reply } => {
                self.on_lease(worker, want, wait, reply)?;
            }
            Command::Heartbeat { worker, beat, said, reply } => {
                let (told, pulse) = self.decide(|m, now, _| {
                    // First, so that the sources of versions follow what it says of broadcasts.
                    let told = said.and_then(|said| m.broadcast_of_worker(now, worker, &said));
                    (told, m.heartbeat(now, worker, beat))
                })?;
                let learner = self.machine.learner_endpoint().to_owned();
                reply.send(pulse.map(|pulse| (pulse, learner, told)));
            }
            Command::Release { worker, leases, leaving, reply } => {
                if leaving {
                    tracing::info!(id = worker.get(), "worker left");
                }
                reply.send(self.decide(|m, now, _| m.release(now, worker, &leases, leaving))?);
                self.news = true;
            }
            Command::RegisterLearner { join, reply } => {
                let (committed, endpoint) = (join.committed, join.endpoint.clone());
                let id = self.decide(|m, now, records| m.register_learner(now, join, records))?;
                if id.is_ok() {
                    tracing::info!(committed, endpoint, "learner joined");
                }
                self.publish();
                reply.send(id);
            }
            Command::Report { learner, report, said, reply } => {
                let (complete, told) = self.decide(|m, now, _| {
                    // First, so that a broadcast is only of what is published.
                    let complete = m.report(now, learner, report);
                    (complete, said.and_then(|said| m.broadcast_of_learner(now, learner, &said)))
                })?;
                self.publish();
                reply.send(complete.map(|complete| (complete, told)));
            }
            Command::Swap { reward, newest_known, reply } => {
                let bound = self
                    .decide(|m, now, records| m.swap_reward(now, reward, newest_known, records))?;
                tell(&bound);
                reply.send(bound);
            }
            Command::Rollback { to, newest_known, reply } => {
                let bound = self
                    .decide(|m, now, records| m.rollback_reward(now, to, newest_known, records))?;
                tell(&bound);
                reply.send(bound);
            }
            Command::Status { reply } => {
                let snapshot = self.decide(|m, now, _| m.snapshot(now))?;
                reply.send(self.with_parked(snapshot));
            }
        }
        Ok(())
    }

    fn on_lease(
        &mut self,
        worker: WorkerId,
        want: u64,
        wait: Duration,
        reply: Answer<Offer>,
    ) -> Result<(), CoordinatorError> {
        // A worker asks one question at a time: an older one is of a call that it gave up.
        if let Some(older) = self.parked.iter().position(|parked| parked.worker == worker) {
            let older = self.parked.swap_remove(older);
            older.reply.send(Ok(Offer::Nothing(older.why)));
        }
        match self.decide(|m, now, records| m.lease(now, worker, want, records))? {
            Ok(Offer::Nothing(why)) if !wait.is_zero() && !self.draining => {
                let since = Instant::now();
                self.parked.push(Parked { worker, want, since, until: since + wait, why, reply });
            }
            answer => reply.send(answer),
        }
        Ok(())
    }

    /// Answers the parked requests that can be answered, or that have waited long enough.
    fn serve_parked(&mut self) -> Result<(), CoordinatorError> {
        for mut parked in std::mem::take(&mut self.parked) {
            if parked.reply.is_abandoned() {
                continue;
            }
            let (worker, want) = (parked.worker, parked.want);
            match self.decide(|m, now, records| m.offer(now, worker, want, records))? {
                Ok(Offer::Nothing(why)) if !self.draining && Instant::now() < parked.until => {
                    parked.why = why;
                    self.parked.push(parked);
                }
                answer => parked.reply.send(answer),
            }
        }
        Ok(())
    }

    /// Parked requests are waits too, each of its worker.
    fn with_parked(&self, mut snapshot: Snapshot) -> Snapshot {
        let now = Instant::now();
        let queue = |name: &str, depth: usize, room: usize| Queue {
            name: name.to_owned(),
            depth: depth as u64,
            room: room as u64,
        };
        snapshot.queues = vec![
            queue("coordinator", self.gauge.depth(), self.gauge.capacity()),
            queue("parked lease requests", self.parked.len(), MAX_WORKERS),
        ];
        for parked in &self.parked {
            let worker = snapshot.workers.iter_mut().find(|worker| worker.id == parked.worker);
            let Some(worker) = worker else { continue };
            worker.waits.push(Wait {
                name: "lease".into(),
                detail: parked.why.to_string(),
                since_ago: now.saturating_duration_since(parked.since),
                deadline_in: parked.until.saturating_duration_since(now),
            });
        }
        snapshot
    }

    /// The learner has spoken: that opens steps, makes room with workers, or ends the run.
    fn publish(&mut self) {
        self.news = true;
        let progress = Progress {
            committed_steps: self.machine.committed().unwrap_or(0),
            total_steps: self.machine.plan().steps.get(),
            complete: self.machine.is_complete(),
        };
        self.progress.send_if_modified(|known| {
            let changed = *known != progress;
            if progress.complete && !known.complete {
                tracing::info!(steps = progress.total_steps, "run complete");
            }
            *known = progress;
            changed
        });
    }
}

fn tell(bound: &Result<Bound, Refusal>) {
    if let Ok(Bound { number, from_step, superseded }) = bound {
        let (number, step) = (number.get(), from_step.get());
        let superseded: Vec<u64> = superseded.iter().map(|number| number.get()).collect();
        tracing::info!(revision = number, step, ?superseded, "reward revision bound to a step");
    }
}
