//! The processes that run one function: as many as there are workers, started when they are needed.
//!
//! Invariants: a process serves one call at a time; one that failed is gone, and its place is not taken
//! again before a back-off that grows with each failure in a row; all run the same files.

use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

use octet_runtime::backoff::Backoff;
use serde_json::Value;

use super::PythonSettings;
use super::process::{Process, Trouble};

/// A place for a process.
enum Place {
    /// A process that waits for work.
    Idle(Process),
    /// No process, and none before the time, if there is one.
    Empty { failed: u32, not_before: Option<Instant> },
}

pub(super) struct Pool {
    settings: PythonSettings,
    begin: Value,
    /// What the first process said of the files; every other one has to say the same.
    loaded: OnceLock<Value>,
    /// Places that nobody uses now.
    places: Mutex<Vec<Place>>,
    freed: Condvar,
    backoff: Backoff,
}

impl Pool {
    /// Starts the first process: what it says of the file comes back.
    pub(super) fn open(settings: PythonSettings, begin: Value) -> Result<(Self, Value), Trouble> {
        let (first, told) = Process::start(&settings, &begin)?;
        let empty = || Place::Empty { failed: 0, not_before: None };
        let mut places: Vec<Place> = (1..settings.workers.get()).map(|_| empty()).collect();
        // A file that was refused has no process to keep.
        places.push(if told.get("refused").is_some() { empty() } else { Place::Idle(first) });
        let pool = Self {
            settings,
            begin,
            loaded: OnceLock::new(),
            places: Mutex::new(places),
            freed: Condvar::new(),
            backoff: Backoff::quick(0),
        };
        pool.print(&told);
        Ok((pool, told))
    }

    /// Every process from now on has to say this of the files.
    pub(super) fn expect(&self, told: Value) {
        // It is said once, before the first call.
        drop(self.loaded.set(same(told)));
    }

    pub(super) fn memory_mib(&self) -> u64 {
        self.settings.memory_mib.map_or(0, std::num::NonZero::get)
    }

    /// Asks any process, the limit of a call being that of the settings.
    pub(super) fn ask(&self, request: &Value) -> Result<Value, Trouble> {
        let (mut process, failed) = match self.take()? {
            Place::Idle(process) => (process, 0),
            Place::Empty { failed, not_before } => (self.start(failed, not_before)?, failed),
        };
        match process.ask(request, self.settings.call_limit) {
            Ok(told) => {
                // Its heap is full of what did not fit.
                let spent = told.get("failure").and_then(Value::as_str) == Some("out-of-memory");
                if spent {
                    drop(process);
                    self.give(Place::Empty { failed: 0, not_before: None });
                } else {
                    self.give(Place::Idle(process));
                }
                self.print(&told);
                Ok(told)
            }
            Err(trouble) => {
                drop(process);
                self.failed(failed);
                Err(trouble)
            }
        }
    }

    fn take(&self) -> Result<Place, Trouble> {
        let limit = self.settings.call_limit + self.settings.start_limit;
        let waiting = self.places();
        let (mut places, waited) = self
            .freed
            .wait_timeout_while(waiting, limit, |places| places.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(Trouble::Late(limit));
        }
        // A process that is up, else the place that may have one soonest.
        let rank = |place: &Place| match place {
            Place::Idle(_) => (0, None),
            Place::Empty { not_before, .. } => (1, *not_before),
        };
        let best = places.iter().enumerate().min_by_key(|(_, place)| rank(place));
        let best = best.map_or(0, |(at, _)| at);
        Ok(places.swap_remove(best))
    }

    fn start(&self, failed: u32, not_before: Option<Instant>) -> Result<Process, Trouble> {
        if let Some(not_before) = not_before {
            thread::sleep(not_before.saturating_duration_since(Instant::now()));
        }
        let started = Process::start(&self.settings, &self.begin).and_then(|(process, told)| {
            self.print(&told);
            let loaded = self.loaded.get();
            if loaded.is_some_and(|loaded| *loaded != same(told)) {
                return Err(Trouble::Changed);
            }
            Ok(process)
        });
        if started.is_err() {
            self.failed(failed);
        }
        started
    }

    fn failed(&self, before: u32) {
        let not_before = Some(Instant::now() + self.backoff.delay(before));
        self.give(Place::Empty { failed: before.saturating_add(1), not_before });
    }

    fn give(&self, place: Place) {
        self.places().push(place);
        self.freed.notify_one();
    }

    fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn print(&self, told: &Value) {
        let printed = told.get("printed").and_then(Value::as_str).unwrap_or_default();
        printed.lines().for_each(|line| (self.settings.show)(line));
    }
}

/// What two processes of the same files say alike.
fn same(mut told: Value) -> Value {
    if let Some(told) = told.as_object_mut() {
        told.remove("printed");
    }
    told
}
