//! The thread that sends: one call after the other, at the server's pace.
//!
//! Invariants: nobody waits for it but [`Sender::drain`], and that no longer than it is told. Only one process
//! sends a journal at a time. What a server acknowledged is remembered on the disk before the next call.

use crate::error::TrackingError;
use crate::journal::{Bound, Journal, Target};
use crate::mlflow::{Binding, Failure, Server, Settings};
use crate::names::Names;
use crate::outbox::{Call, Limits, Outbox, SetAside};
use octet_runtime::backoff::{Attempts, Backoff, seed_of};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Held by the process that sends.
const LOCK_FILE: &str = "tracking.lock";
/// How long to pause after a call while the run goes on, so that steps share a batch and the server has peace.
const PACE: Duration = Duration::from_secs(1);
/// The longest pause between attempts while the run goes on.
const SLOWEST: Duration = Duration::from_secs(60);
/// The longest pause between attempts once somebody waits.
const HURRIED: Duration = Duration::from_secs(2);
/// Events that are read at once.
const PAGE: usize = 256;
/// How often a file is tried on a server that answers all else, before it is put aside: a store that cannot be
/// written must not hold up the metrics.
const FILE_ATTEMPTS: u32 = 5;

/// Sends a journal.
pub struct Sender {
    shared: Arc<Shared>,
    target: Target,
    journal: Journal,
}

/// What came of sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The server.
    pub url: String,
    /// Where people look at the run, once there is one.
    pub page: Option<String>,
    /// What the server would not take, and why.
    pub refused: Vec<(String, String)>,
    /// What it does not have yet.
    pub undelivered: Option<Undelivered>,
}

/// What a server does not have yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// Records of the journal that were not acknowledged.
    pub records: u64,
    /// How long that was waited for.
    pub waited: Duration,
    /// Why the last attempt failed; none where the server is at work on it.
    pub reason: Option<String>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Something was appended since the thread last looked.
    news: bool,
    /// Somebody waits for the end.
    closing: bool,
    /// The server has everything that the thread saw.
    drained: bool,
    /// The thread is gone.
    ended: bool,
    /// Why the last attempt failed.
    failure: Option<String>,
    page: Option<String>,
}

/// What a turn of the thread came to.
enum Turn {
    /// Go on at once.
    Again,
    /// A call was acknowledged.
    Sent,
    /// There is nothing to send.
    Idle,
    /// Later.
    Failed(String),
    /// Not any more.
    Lost(String),
}

impl Sender {
    /// Starts the thread for the journal in `directory`.
    ///
    /// # Errors
    /// The journal or the certificates cannot be read, or there can be no thread.
    pub fn start(
        settings: Settings,
        names: Names,
        directory: &Path,
        (run_id, name): (&str, &str),
    ) -> Result<Self, TrackingError> {
        let target = Target { url: settings.base.clone(), experiment: settings.experiment.clone() };
        let journal = Journal::open(directory, run_id)?;
        let seed = seed_of(&journal.key()?);
        let backoff = Backoff { first: Duration::from_millis(500), most: SLOWEST, seed };
        let shared = Arc::<Shared>::default();
        let mut working = Working {
            server: Server::new(settings)?,
            target: target.clone(),
            journal: Journal::open(directory, run_id)?,
            directory: directory.to_owned(),
            name: name.to_owned(),
            names,
            session: None,
            file_failures: 0,
        };
        let attempts = backoff.attempts();
        let seen = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("octet-track".into())
            .spawn(move || {
                working.run(&seen, attempts);
                seen.update(|state| state.ended = true);
            })
            .map_err(TrackingError::disk("start a thread for", directory))?;
        Ok(Self { shared, target, journal })
    }

    /// There is something new in the journal.
    pub fn nudge(&self) {
        self.shared.update(|state| (state.news, state.drained) = (true, false));
    }

    /// Waits until the server has everything, at most so long.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn drain(&self, within: Duration) -> Result<Delivery, TrackingError> {
        let begun = Instant::now();
        self.shared.update(|state| state.closing = true);
        let mut state = self.shared.lock();
        while !state.drained && !state.ended {
            let left = within.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let (drained, page, reason) = (state.drained, state.page.clone(), state.failure.clone());
        drop(state);
        let (_, done) = self.journal.server(&self.target)?;
        let records = self.journal.count(done.event)?;
        let undelivered =
            (!drained).then(|| Undelivered { records, waited: begun.elapsed(), reason });
        let refused = self.journal.refused(&self.target)?;
        Ok(Delivery { url: self.target.url.clone(), page, refused, undelivered })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nobody panics while holding it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Pauses; less where somebody waits for the end.
    fn pause(&self, calm: Duration, hurried: Duration) {
        let begun = Instant::now();
        let mut state = self.lock();
        let was_closing = state.closing;
        loop {
            let whole = if state.closing { hurried } else { calm };
            let left = whole.saturating_sub(begun.elapsed());
            // Whoever begins to wait is worth an attempt at once.
            if left.is_zero() || state.closing != was_closing {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Everything was sent: waits for more. False when there will be none.
    fn wait_for_news(&self) -> bool {
        let mut state = self.lock();
        loop {
            if std::mem::take(&mut state.news) {
                return true;
            }
            state.drained = true;
            self.changed.notify_all();
            if state.closing {
                return false;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Says so once, until it is over.
    fn failed(&self, url: &str, reason: String) {
        let mut first = false;
        self.update(|state| first = state.failure.replace(reason.clone()).is_none());
        if first {
            tracing::warn!(
                "the tracking server {url} {reason}; the run goes on, and what is tracked is kept in its \
                 directory until it can be sent"
            );
        } else {
            tracing::debug!("the tracking server {url} {reason}");
        }
    }
}

/// What the thread works with.
struct Working {
    server: Server,
    target: Target,
    journal: Journal,
    directory: PathBuf,
    name: String,
    names: Names,
    session: Option<Session>,
    file_failures: u32,
}

/// The server knows the run.
struct Session {
    bound: Bound,
    key: String,
    outbox: Outbox,
    /// No other process sends while this is open.
    _lock: File,
}

impl Working {
    fn run(&mut self, shared: &Shared, mut attempts: Attempts) {
        loop {
            match self.turn(shared) {
                Ok(Turn::Again) => {}
                Ok(Turn::Sent) => {
                    attempts.reset();
                    let mut recovered = false;
                    shared.update(|state| recovered = state.failure.take().is_some());
                    if recovered {
                        tracing::info!("the tracking server {} answers again", self.target.url);
                    }
                    shared.pause(PACE, Duration::ZERO);
                }
                Ok(Turn::Idle) => {
                    if !shared.wait_for_news() {
                        return;
                    }
                }
                Ok(Turn::Lost(reason)) => {
                    shared.failed(&self.target.url, reason);
                    return;
                }
                Ok(Turn::Failed(reason)) => {
                    shared.failed(&self.target.url, reason);
                    let pause = attempts.next_delay();
                    shared.pause(pause, pause.min(HURRIED));
                }
                Err(error) => {
                    shared.failed(&self.target.url, format!("is not sent to: {error}"));
                    let pause = attempts.next_delay();
                    shared.pause(pause, pause.min(HURRIED));
                }
            }
        }
    }

    fn turn(&mut self, shared: &Shared) -> Result<Turn, TrackingError> {
        if self.session.is_none() {
            match self.begin()? {
                Ok(session) => {
                    let page = self.server.page(&session.bound);
                    shared.update(|state| state.page = Some(page));
                    self.session = Some(session);
                }
                Err(turn) => return Ok(turn),
            }
        }
        let Some(session) = &mut self.session else { return Ok(Turn::Again) };
        let entries = self.journal.entries(session.outbox.done().event, PAGE)?;
        let Some(planned) = session.outbox.next(&entries) else { return Ok(Turn::Idle) };
        let sent = self.server.send(&session.bound, &session.key, &self.directory, &planned.call);
        let is_file = matches!(planned.call, Call::Upload { .. });
        let failure = match sent {
            Ok(()) => {
                self.file_failures = 0;
                session.outbox.acknowledged(&planned);
                self.journal.advance(&self.target, session.outbox.done(), None)?;
                return Ok(Turn::Sent);
            }
            Err(failure) => failure,
        };
        if matches!(failure, Failure::Overdue(_)) {
            session.outbox.overdue(&planned);
        }
        let is_refused = matches!(failure, Failure::Refused { .. });
        let refused = match &failure {
            Failure::Unreachable(_) => false,
            _ if is_refused || is_file => {
                match self.server.has(&session.bound) {
                    Ok(true) => {}
                    Ok(false) => return Ok(Turn::Lost(gone(&session.bound))),
                    Err(failure) => return Ok(Turn::Failed(failure.to_string())),
                }
                self.file_failures += u32::from(is_file);
                is_refused || self.file_failures >= FILE_ATTEMPTS
            }
            _ => false,
        };
        if !refused {
            return Ok(Turn::Failed(failure.to_string()));
        }
        self.file_failures = 0;
        if let Some(aside) = session.outbox.refused(&planned, &failure.to_string()) {
            let SetAside { what, reason, .. } = &aside;
            tracing::warn!(
                "the tracking server {} does not have {what}: it {reason}",
                self.target.url
            );
            self.journal.advance(&self.target, session.outbox.done(), Some(&aside))?;
        }
        Ok(Turn::Again)
    }

    /// Takes the lock and finds the run on the server, or creates it.
    fn begin(&mut self) -> Result<Result<Session, Turn>, TrackingError> {
        let path = self.directory.join(LOCK_FILE);
        let lock = File::options().create(true).append(true).open(&path);
        let lock = lock.map_err(TrackingError::disk("open", &path))?;
        if lock.try_lock().is_err() {
            let reason = "is being sent to by another process; this one waits for that to end";
            return Ok(Err(Turn::Failed(reason.into())));
        }
        let Some(first) = self.journal.entries(0, 1)?.pop() else { return Ok(Err(Turn::Idle)) };
        let (bound, done) = self.journal.server(&self.target)?;
        let key = self.journal.key()?;
        let bound = match bound {
            // The store of files takes what belongs to no run, so this is asked.
            Some(bound) => match self.server.has(&bound) {
                Ok(true) => bound,
                Ok(false) => return Ok(Err(Turn::Lost(gone(&bound)))),
                Err(failure) => return Ok(Err(Turn::Failed(failure.to_string()))),
            },
            None => {
                let binding = Binding {
                    key: key.clone(),
                    name: self.name.clone(),
                    begun_ms: first.at_ms,
                    user: std::env::var("USER").ok().filter(|user| !user.is_empty()),
                };
                match self.server.bind(&binding) {
                    Ok(bound) => {
                        self.journal.bind(&self.target, &bound)?;
                        bound
                    }
                    Err(failure) => return Ok(Err(Turn::Failed(failure.to_string()))),
                }
            }
        };
        let outbox = Outbox::new(done, Limits::MLFLOW, self.names);
        Ok(Ok(Session { bound, key, outbox, _lock: lock }))
    }
}

fn gone(bound: &Bound) -> String {
    format!(
        "has no run {} any more: restore it there, or send everything into a new one with \
         `octet track send RUN --anew`",
        bound.run_id
    )
}
