//! The register of what a node waits for.
//!
//! Invariant: a wait is in the register exactly while its guard lives, with a name, a detail, a
//! start and a deadline, so that `status` can say what every node is waiting for and since when.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use octet_proto::coordinator as proto;
use tokio::time::{Instant, timeout_at};

#[cfg(test)]
mod tests;

/// The register. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Waits {
    register: Arc<Mutex<Register>>,
}

#[derive(Debug, Default)]
struct Register {
    next: u64,
    open: BTreeMap<u64, Arc<Mutex<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    name: &'static str,
    detail: String,
    since: Instant,
    deadline: Instant,
}

/// One wait; dropping it ends the wait.
#[must_use = "the wait ends when its guard is dropped"]
pub struct WaitGuard {
    waits: Waits,
    key: u64,
    entry: Arc<Mutex<Entry>>,
}

/// What a wait looks like from outside, now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitView {
    /// What is waited for, e.g. `weights`.
    pub name: &'static str,
    /// More about it, e.g. `version 7 from http://learner:5000`.
    pub detail: String,
    /// How long ago the wait began.
    pub waiting: Duration,
    /// How long until the deadline; zero when it has passed.
    pub left: Duration,
}

/// A wait that reached its deadline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("waited {waited:.1?} for {name} ({detail}) in vain")]
pub struct WaitedInVain {
    /// What was waited for.
    pub name: &'static str,
    /// More about it.
    pub detail: String,
    /// How long.
    pub waited: Duration,
}

impl Waits {
    /// An empty register.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a wait for at most `within`.
    pub fn enter(
        &self,
        name: &'static str,
        detail: impl Into<String>,
        within: Duration,
    ) -> WaitGuard {
        let since = Instant::now();
        let entry = Entry { name, detail: detail.into(), since, deadline: after(since, within) };
        let entry = Arc::new(Mutex::new(entry));
        let mut register = lock(&self.register);
        let key = register.next;
        register.next += 1;
        register.open.insert(key, Arc::clone(&entry));
        WaitGuard { waits: self.clone(), key, entry }
    }

    /// All that is waited for now, the oldest first.
    pub fn snapshot(&self) -> Vec<WaitView> {
        let now = Instant::now();
        lock(&self.register).open.values().map(|entry| lock(entry).view(now)).collect()
    }

    /// All that is waited for now, as it goes on the wire.
    pub fn to_proto(&self) -> Vec<proto::Wait> {
        self.snapshot().into_iter().map(proto::Wait::from).collect()
    }
}

impl WaitGuard {
    /// Says more about the wait while it lasts, e.g. which attempt this is.
    pub fn detail(&self, detail: impl Into<String>) {
        lock(&self.entry).detail = detail.into();
    }

    /// Moves the deadline to `within` from now, for a wait that sees progress.
    pub fn extend(&self, within: Duration) {
        lock(&self.entry).deadline = after(Instant::now(), within);
    }

    /// The wait as an error once its deadline has passed.
    pub fn overdue(&self) -> Option<WaitedInVain> {
        let entry = lock(&self.entry);
        (entry.deadline <= Instant::now()).then(|| entry.in_vain())
    }

    /// Waits for `future`, until the deadline; one moved by [`WaitGuard::extend`] holds.
    ///
    /// # Errors
    /// The deadline passed.
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output, WaitedInVain> {
        let mut future = std::pin::pin!(future);
        loop {
            let deadline = lock(&self.entry).deadline;
            if let Ok(output) = timeout_at(deadline, &mut future).await {
                return Ok(output);
            }
            if let Some(in_vain) = self.overdue() {
                return Err(in_vain);
            }
        }
    }
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        lock(&self.waits.register).open.remove(&self.key);
    }
}

impl fmt::Debug for WaitGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitGuard").field("name", &lock(&self.entry).name).finish_non_exhaustive()
    }
}

impl Entry {
    fn in_vain(&self) -> WaitedInVain {
        let (detail, waited) = (self.detail.clone(), self.since.elapsed());
        WaitedInVain { name: self.name, detail, waited }
    }

    fn view(&self, now: Instant) -> WaitView {
        WaitView {
            name: self.name,
            detail: self.detail.clone(),
            waiting: now.saturating_duration_since(self.since),
            left: self.deadline.saturating_duration_since(now),
        }
    }
}

/// `within` from `start`; a span beyond the clock's range counts as a century.
pub(crate) fn after(start: Instant, within: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    start + within.min(CENTURY)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these; a poisoned one is as good as any.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<WaitView> for proto::Wait {
    fn from(view: WaitView) -> Self {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self {
            name: view.name.to_owned(),
            detail: view.detail,
            since_ms_ago: millis(view.waiting),
            deadline_in_ms: millis(view.left),
        }
    }
}
