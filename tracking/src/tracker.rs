//! A run being tracked: a thread that looks into its directory, and the sender beside it.
//!
//! Invariants: the run is not waited for by it and does not wait for it; the two meet in the run directory alone.
//! A fault here is told in the log and ends nothing.

use crate::error::TrackingError;
use crate::event::Status;
use crate::journal::Journal;
use crate::mlflow::Settings;
use crate::names::Names;
use crate::sender::{Delivery, Sender};
use crate::source::{Facts, Source};
use crate::tensorboard::EventFile;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// How often the run directory is looked into.
const EVERY: Duration = Duration::from_secs(1);
/// A wait that is longer is announced.
const NOTICED: Duration = Duration::from_secs(2);

/// Where a run is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Targets {
    /// The MLflow server.
    pub mlflow: Option<Settings>,
    /// The folder of the event file.
    pub tensorboard: Option<PathBuf>,
    /// Whose names the metrics have.
    pub names: Names,
}

/// A run being tracked. Dropped without [`Tracker::finish`], it leaves the rest to the next that opens the journal.
#[derive(Debug)]
pub struct Tracker {
    orders: SyncSender<Order>,
}

/// The end of the run, and who wants to know what came of it.
struct Order {
    status: Status,
    within: Duration,
    done: SyncSender<Option<Delivery>>,
}

/// What the thread works with.
struct Watching {
    source: Source,
    journal: Journal,
    sender: Option<Sender>,
    targets: Targets,
    run_id: String,
    events: Option<EventFile>,
    /// The last fault, so that it is told once.
    fault: Option<String>,
}

impl Tracker {
    /// Begins, or goes on with what was tracked before.
    ///
    /// # Errors
    /// The journal or an event file cannot be written.
    pub fn begin(directory: &Path, facts: Facts, targets: Targets) -> Result<Self, TrackingError> {
        let run_id = facts.run_id.clone();
        let mut journal = Journal::open(directory, &run_id)?;
        let mut source = Source::new(directory, facts.clone());
        source.begin(&mut journal)?;
        source.status(&mut journal, Status::Running)?;
        let sender = match &targets.mlflow {
            Some(settings) => {
                let who = (run_id.as_str(), facts.name.as_str());
                Some(Sender::start(settings.clone(), targets.names, directory, who)?)
            }
            None => None,
        };
        let mut watching =
            Watching { source, journal, sender, targets, run_id, events: None, fault: None };
        watching.events()?;
        let (orders, inbox) = sync_channel(1);
        std::thread::Builder::new()
            .name("octet-watch".into())
            .spawn(move || watching.run(&inbox))
            .map_err(TrackingError::disk("start a thread for", directory))?;
        Ok(Self { orders })
    }

    /// The run has ended so: tracks the rest, and waits at most `within` for the server to have everything. What
    /// came of it, where there is a server.
    ///
    /// # Errors
    /// The run directory was not read in time.
    pub fn finish(self, status: Status, within: Duration) -> Result<Option<Delivery>, Duration> {
        /// The disk may be slow as well.
        const DISK: Duration = Duration::from_secs(10);
        let begun = Instant::now();
        let (done, answer) = sync_channel(1);
        // The thread is there, or its channel would be closed and the answer missing.
        drop(self.orders.send(Order { status, within, done }));
        answer.recv_timeout(within + DISK).map_err(|_| begun.elapsed())
    }
}

/// Waits for the server, and says so where that takes long enough to be noticed.
fn drain(sender: &Sender, within: Duration) -> Result<Delivery, TrackingError> {
    let first = sender.drain(within.min(NOTICED))?;
    if first.undelivered.is_none() || within <= NOTICED {
        return Ok(first);
    }
    tracing::warn!(
        "the run has ended; waiting up to {within:?} (tracking.patience) for {} to have all of it",
        first.url
    );
    let mut rest = sender.drain(within.saturating_sub(NOTICED))?;
    if let Some(left) = &mut rest.undelivered {
        left.waited += NOTICED;
    }
    Ok(rest)
}

impl Watching {
    fn run(mut self, inbox: &Receiver<Order>) {
        loop {
            match inbox.recv_timeout(EVERY) {
                Ok(Order { status, within, done }) => {
                    let ended = self.end(status);
                    self.tell(ended);
                    let delivery = self.sender.as_ref().map(|sender| drain(sender, within));
                    let delivery = delivery.transpose().unwrap_or_else(|error| {
                        tracing::warn!("not all of the run is tracked: {error}");
                        None
                    });
                    drop(done.send(delivery));
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {
                    let looked = self.look();
                    self.tell(looked);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&mut self) -> Result<(), TrackingError> {
        while self.source.follow(&mut self.journal)? > 0 {
            self.events()?;
            if let Some(sender) = &self.sender {
                sender.nudge();
            }
        }
        Ok(())
    }

    fn end(&mut self, status: Status) -> Result<(), TrackingError> {
        self.look()?;
        if status == Status::Finished {
            self.source.results(&mut self.journal)?;
        }
        self.source.status(&mut self.journal, status)?;
        let written = self.events();
        if let Some(sender) = &self.sender {
            sender.nudge();
        }
        written
    }

    fn events(&mut self) -> Result<(), TrackingError> {
        let Some(folder) = &self.targets.tensorboard else { return Ok(()) };
        match &mut self.events {
            Some(events) => events.follow(&self.journal),
            None => {
                let names = self.targets.names;
                self.events = EventFile::open(folder, &self.run_id, names, &self.journal)?;
                Ok(())
            }
        }
    }

    fn tell(&mut self, outcome: Result<(), TrackingError>) {
        let fault = outcome.err().map(|error| error.to_string());
        if let Some(fault) = fault.as_ref().filter(|fault| self.fault.as_ref() != Some(fault)) {
            tracing::warn!("the run is not tracked for now: {fault}");
        }
        self.fault = fault;
    }
}
