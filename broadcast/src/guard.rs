//! Watches the calls that a thread makes into a library, and aborts one that does not return.
//!
//! A library may hold a call up although it promised not to: NCCL's may when another member does not take
//! part. The thread that is inside cannot look at its own deadline then, so another one does, as PyTorch's
//! watchdog of process groups.
//!
//! Invariants: a call that is not back by its deadline and a grace is aborted from outside, once, and counts
//! as failed, whatever it returns; one that does not return even then is said to be lost, and nobody waits
//! for it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::transport::{Abort, Fault};

/// How often the guard looks.
const LOOK: Duration = Duration::from_millis(50);

/// How long a call into the library is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the deadline of what is being done to the abort from outside. The thread itself aborts at the
    /// deadline, if it can.
    pub grace: Duration,
    /// The deadline of a call that is part of nothing: asking whether an idle communicator is whole.
    pub idle: Duration,
    /// From the abort to giving up the thread.
    pub lost: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let (grace, idle) = (Duration::from_millis(500), Duration::from_secs(10));
        Self { grace, idle, lost: Duration::from_secs(10) }
    }
}

/// What time it is; the guard and what it watches have the same.
pub(crate) type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The watched thread's side.
pub(crate) struct Guard {
    post: Arc<Post>,
}

struct Post {
    clock: Clock,
    patience: Patience,
    watch: Mutex<Watch>,
    /// The thread is over.
    news: Condvar,
}

#[derive(Debug, Default)]
struct Watch {
    inside: Option<Inside>,
    /// Of all calls so far.
    calls: u64,
    lost: bool,
    over: bool,
}

#[derive(Clone, Copy, Debug)]
struct Inside {
    doing: &'static str,
    until: Duration,
    /// Since when.
    aborted: Option<Duration>,
}

impl Guard {
    /// Starts the guard. `lost` is told, on it, that a call did not return although it was aborted.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(
        clock: Clock,
        patience: Patience,
        handle: Arc<dyn Abort>,
        lost: impl FnOnce(Fault) + Send + 'static,
    ) -> io::Result<Self> {
        let post = Post { clock, patience, watch: Mutex::default(), news: Condvar::new() };
        let post = Arc::new(post);
        let own = Arc::clone(&post);
        let thread = std::thread::Builder::new().name("octet-broadcast-guard".to_owned());
        thread.spawn(move || {
            if let Some(fault) = own.watch(&handle) {
                lost(fault);
            }
        })?;
        Ok(Self { post })
    }

    /// Whether the thread was given up, which is to end then.
    pub(crate) fn has_given_up(&self) -> bool {
        self.post.lock().lost
    }

    /// A call begins, which is part of something that is given up at that time.
    pub(crate) fn enter(&self, doing: &'static str, until: Option<Duration>) {
        let until = until.unwrap_or_else(|| (self.post.clock)() + self.post.patience.idle);
        let mut watch = self.post.lock();
        watch.calls += 1;
        watch.inside = Some(Inside { doing, until, aborted: None });
    }

    /// It is over: what to say of it if it was aborted.
    pub(crate) fn leave(&self) -> Option<Fault> {
        let inside = self.post.lock().inside.take().filter(|inside| inside.aborted.is_some())?;
        let problem =
            "the library did not return by the deadline, and was aborted from another thread";
        Some(Fault { doing: inside.doing, problem: problem.to_owned() })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.post.lock().over = true;
        self.post.news.notify_all();
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("watch", &*self.post.lock()).finish_non_exhaustive()
    }
}

impl Post {
    fn lock(&self) -> MutexGuard<'_, Watch> {
        // Nothing panics while it holds the lock.
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the watched thread has ended, or with what it was lost in.
    fn watch(&self, handle: &Arc<dyn Abort>) -> Option<Fault> {
        loop {
            let watch = self.pause();
            if watch.over {
                return None;
            }
            let Some(inside) = watch.inside else { continue };
            let (now, call) = ((self.clock)(), watch.calls);
            drop(watch);
            match inside.aborted {
                Some(since) if now >= since + self.patience.lost => {
                    if let Some(fault) = self.give_up(call) {
                        return Some(fault);
                    }
                }
                None if now >= inside.until + self.patience.grace && self.mark(call, now) => {
                    // The abort may itself not return.
                    let own = Arc::clone(handle);
                    let thread =
                        std::thread::Builder::new().name("octet-broadcast-abort".to_owned());
                    if thread.spawn(move || own.abort()).is_err() {
                        handle.abort();
                    }
                }
                _ => {}
            }
        }
    }

    fn pause(&self) -> MutexGuard<'_, Watch> {
        let waited = self.news.wait_timeout_while(self.lock(), LOOK, |watch| !watch.over);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Whether that call is still inside; from now on it counts as aborted.
    fn mark(&self, call: u64, now: Duration) -> bool {
        let mut watch = self.lock();
        let same = watch.calls == call;
        let inside = watch.inside.as_mut().filter(|_| same);
        inside.map(|inside| inside.aborted = Some(now)).is_some()
    }

    /// What to say of that call if it is still inside.
    fn give_up(&self, call: u64) -> Option<Fault> {
        let mut watch = self.lock();
        let inside = watch.inside.filter(|_| watch.calls == call)?;
        watch.lost = true;
        let within = self.patience.lost;
        let problem = format!(
            "the library did not return within {within:?} of being aborted: this node takes part in no broadcast until it is started again"
        );
        Some(Fault { doing: inside.doing, problem })
    }
}
