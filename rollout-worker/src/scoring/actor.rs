//! Keeps the lines to all replicas and moves questions and answers between them and the groups.
//!
//! Invariant: a revision's lines live while it has open questions or is the newest; an answer of an
//! older line to the same replica is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use octet_proto::RevisionNumber;
use octet_proto::reward::ScoreRequest;
use octet_proto::transport::ClientOptions;
use octet_runtime::CancellationToken;
use octet_runtime::backoff::Backoff;
use octet_runtime::mailbox::{Address, Gauge, Mailbox};
use octet_runtime::net::Dialer;
use octet_runtime::queues::QueueGuard;
use octet_runtime::wait::{WaitGuard, Waits};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::book::{Answered, Book};
use super::health::Change;
use super::replica::{Line, News, What};
use super::{Question, Revision};
use crate::config::Limits;
use crate::error::WorkerError;
use crate::groups::{Event, JobId};
use crate::stats::Handle;

/// How long an outcome may wait for room. The mailbox holds all that can be under way.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much news of the lines may wait: answers beyond that wait on their streams.
const NEWS: usize = 256;
/// How long a revision without any replica is nothing to worry about.
const USUAL: Duration = Duration::from_secs(30);

/// What shall be scored.
#[derive(Debug)]
pub(crate) enum Command {
    /// Score a completion.
    Score(Arc<Revision>, Question),
    /// Forget a job's completions.
    Forget(JobId),
}

/// The actor's parts, before it runs.
pub(crate) struct Scoring {
    pub inbox: Mailbox<Command>,
    pub events: Address<Event>,
    pub dialer: Dialer,
    pub options: ClientOptions,
    pub limits: Limits,
    pub waits: Waits,
    pub handle: Handle,
    /// The most questions that can be open.
    pub room: usize,
    /// Keys the pauses of this node.
    pub seed: u64,
}

/// A revision's book and lines.
struct Desk {
    revision: Arc<Revision>,
    book: Book,
    lines: Vec<OpenLine>,
    /// Open while questions wait and no replica is there.
    wait: Option<WaitGuard>,
    /// Questions without an answer, for the status.
    open: Arc<AtomicUsize>,
    _queue: QueueGuard,
}

struct OpenLine {
    number: u64,
    questions: Option<mpsc::Sender<ScoreRequest>>,
    _task: AbortOnDropHandle<()>,
}

/// The actor while it runs.
struct Running {
    parts: Scoring,
    desks: BTreeMap<RevisionNumber, Desk>,
    news: mpsc::Sender<News>,
    lines_opened: u64,
}

impl Scoring {
    /// Scores until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), WorkerError> {
        let (news, mut happened) = mpsc::channel(NEWS);
        let mut running = Running { parts: self, desks: BTreeMap::new(), news, lines_opened: 0 };
        loop {
            let now = Instant::now();
            let wake = running.desks.values().filter_map(|desk| desk.book.wake(now)).min();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(news) = happened.recv() => running.on_news(news).await?,
                command = running.parts.inbox.receive() => match command {
                    Some(command) => running.on_command(command),
                    None => return Ok(()),
                },
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    running.on_time().await?;
                }
            }
            running.dispatch();
        }
    }
}

impl Running {
    fn on_command(&mut self, command: Command) {
        match command {
            Command::Score(revision, question) => {
                let number = revision.number;
                if !self.desks.contains_key(&number) {
                    let desk = self.open(revision);
                    self.desks.insert(number, desk);
                }
                if let Some(desk) = self.desks.get_mut(&number) {
                    desk.book.ask(question);
                }
            }
            Command::Forget(job) => {
                self.desks.values_mut().for_each(|desk| desk.book.forget(job));
            }
        }
        // Leases never go back to an older revision, but for groups that are sampled again.
        let newest = self.desks.keys().next_back().copied();
        self.desks.retain(|number, desk| Some(*number) == newest || desk.book.open() > 0);
    }

    async fn on_news(&mut self, news: News) -> Result<(), WorkerError> {
        let Some(desk) = self.desks.get_mut(&news.revision.number) else { return Ok(()) };
        let Some(line) = desk.lines.get_mut(news.replica) else { return Ok(()) };
        if line.number != news.line {
            return Ok(());
        }
        match news.what {
            What::Up { room, questions } => {
                line.questions = Some(questions);
                desk.book.up(news.replica, room);
            }
            What::Down => {
                line.questions = None;
                desk.book.down(news.replica);
            }
            What::Answer { id, outcome } => {
                if let Err(failure) = &outcome {
                    let (revision, replica) = (news.revision.number.get(), news.replica);
                    let (kind, message) = (&failure.kind, &failure.message);
                    tracing::warn!(
                        revision,
                        replica,
                        id,
                        kind,
                        message,
                        "no reward from a replica"
                    );
                }
                let answered = desk.book.answered(news.replica, id, outcome, Instant::now());
                if let Some(took) = desk.book.took() {
                    self.parts.handle.counters.reward_answered(took);
                }
                self.act_on(answered).await?;
            }
        }
        Ok(())
    }

    async fn on_time(&mut self) -> Result<(), WorkerError> {
        let now = Instant::now();
        let mut all_failed = Vec::new();
        let numbers: Vec<RevisionNumber> = self.desks.keys().copied().collect();
        for number in numbers {
            let Some(desk) = self.desks.get_mut(&number) else { continue };
            let (hanging, failed) = desk.book.overdue(now);
            all_failed.extend(failed);
            let revision = Arc::clone(&desk.revision);
            for replica in hanging {
                let endpoint = &revision.endpoints[replica];
                tracing::warn!(
                    revision = number.get(),
                    replica = endpoint,
                    "reward replica hangs; dialling it anew"
                );
                let line = self.line(&revision, replica);
                if let Some(desk) = self.desks.get_mut(&number) {
                    desk.lines[replica] = line;
                }
            }
        }
        for failed in all_failed {
            self.act_on(failed).await?;
        }
        Ok(())
    }

    fn dispatch(&mut self) {
        let now = Instant::now();
        for desk in self.desks.values_mut() {
            for (replica, request) in desk.book.dispatch(now) {
                let questions = desk.lines[replica].questions.as_ref();
                // A line that takes nothing has broken; its end is on the way and brings all back.
                if questions.is_none_or(|questions| questions.try_send(request).is_err()) {
                    tracing::debug!(replica, "question for a line that is ending");
                }
            }
            for change in desk.book.changes() {
                desk.tell(&change);
                match change {
                    Change::TakenOut { .. } => self.parts.handle.counters.replica_taken_out(),
                    Change::TakenBack { .. } => self.parts.handle.counters.replica_taken_back(),
                }
            }
            desk.note_wait(&self.parts.waits);
        }
    }

    fn open(&mut self, revision: Arc<Revision>) -> Desk {
        let limits = self.parts.limits;
        let replicas = revision.endpoints.len();
        let backoff = Backoff::quick(self.parts.seed ^ revision.number.get());
        let book = Book::new(replicas, limits.score_attempts.get(), limits.score, backoff);
        let lines = (0..replicas).map(|replica| self.line(&revision, replica)).collect();
        let open = Arc::new(AtomicUsize::new(0));
        let (read, name) = (Arc::clone(&open), format!("rewards of revision {}", revision.number));
        let gauge = Gauge::new(name, self.parts.room, move || read.load(Ordering::Relaxed));
        let queue = self.parts.handle.queues.enter(gauge);
        Desk { revision, book, lines, wait: None, open, _queue: queue }
    }

    fn line(&mut self, revision: &Arc<Revision>, replica: usize) -> OpenLine {
        self.lines_opened += 1;
        let line = Line {
            revision: Arc::clone(revision),
            replica,
            line: self.lines_opened,
            dialer: Arc::clone(&self.parts.dialer),
            options: self.parts.options.clone(),
            seed: self.parts.seed,
            news: self.news.clone(),
        };
        let (number, task) = (line.line, tokio::spawn(line.run()));
        OpenLine { number, questions: None, _task: AbortOnDropHandle::new(task) }
    }

    async fn act_on(&self, answered: Answered) -> Result<(), WorkerError> {
        match answered {
            Answered::Settled(settled) => {
                Ok(self.parts.events.send(Event::Scored(settled), PATIENCE).await?)
            }
            Answered::Again => {
                self.parts.handle.counters.reward_retried();
                Ok(())
            }
            Answered::Unknown => Ok(()),
        }
    }
}

impl Desk {
    fn tell(&self, change: &Change) {
        let revision = self.revision.number.get();
        match *change {
            Change::TakenOut { replica, why, pause } => {
                let endpoint = &self.revision.endpoints[replica];
                tracing::warn!(
                    revision,
                    replica = endpoint,
                    ?why,
                    ?pause,
                    "reward replica taken out; it is probed after the pause"
                );
            }
            Change::TakenBack { replica } => {
                let endpoint = &self.revision.endpoints[replica];
                tracing::info!(revision, replica = endpoint, "reward replica taken back in");
            }
        }
    }

    fn note_wait(&mut self, waits: &Waits) {
        self.open.store(self.book.open(), Ordering::Relaxed);
        let waiting = self.book.open() > 0 && !self.book.has_replica();
        if !waiting {
            self.wait = None;
        } else if self.wait.is_none() {
            let (number, endpoints) = (self.revision.number, self.revision.endpoints.join(", "));
            let detail = format!("of revision {number} ({}): {endpoints}", self.revision.name);
            self.wait = Some(waits.enter("reward replica", detail, USUAL));
        }
    }
}
