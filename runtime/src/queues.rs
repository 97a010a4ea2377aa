//! The register of a node's queues: how full each is, for `status` and for metrics.
//!
//! Invariant: reading disturbs nobody and keeps nothing alive; a queue is in the register while the guard
//! lives that entered it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use octet_proto::coordinator as proto;

use crate::mailbox::Gauge;

/// The register. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Queues {
    register: Arc<Mutex<Register>>,
}

#[derive(Debug, Default)]
struct Register {
    next: u64,
    open: BTreeMap<u64, Gauge>,
}

/// One queue; dropping it takes the queue out of the register.
#[derive(Debug)]
#[must_use = "the queue leaves the register when its guard is dropped"]
pub struct QueueGuard {
    queues: Queues,
    key: u64,
}

/// How full a queue is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueView {
    /// What it is called.
    pub name: Arc<str>,
    /// How many wait in it.
    pub depth: usize,
    /// How many it holds at most.
    pub room: usize,
}

impl Queues {
    /// An empty register.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters a queue for as long as the guard lives.
    pub fn enter(&self, gauge: Gauge) -> QueueGuard {
        let mut register = self.lock();
        let key = register.next;
        register.next += 1;
        register.open.insert(key, gauge);
        QueueGuard { queues: self.clone(), key }
    }

    /// Enters a queue for as long as the register lives.
    pub fn add(&self, gauge: Gauge) {
        std::mem::forget(self.enter(gauge));
    }

    /// All queues in the order in which they were entered.
    pub fn snapshot(&self) -> Vec<QueueView> {
        // Read outside of the lock: a gauge may be anybody's code.
        let gauges: Vec<Gauge> = self.lock().open.values().cloned().collect();
        let view = |gauge: Gauge| QueueView {
            name: gauge.name().into(),
            depth: gauge.depth(),
            room: gauge.capacity(),
        };
        gauges.into_iter().map(view).collect()
    }

    /// The queues, as they go on the wire.
    pub fn to_proto(&self) -> Vec<proto::Queue> {
        let message = |view: QueueView| proto::Queue {
            name: view.name.to_string(),
            depth: view.depth as u64,
            room: view.room as u64,
        };
        self.snapshot().into_iter().map(message).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Register> {
        // No code panics while it holds the lock.
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for QueueGuard {
    fn drop(&mut self) {
        self.queues.lock().open.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::mailbox;

    #[test]
    fn a_queue_is_told_of_while_it_is_entered() {
        let queues = Queues::new();
        let (address, _inbox) = mailbox("engine", 4);
        let entered = queues.enter(address.gauge());
        let counted = queues.enter(Gauge::new("rewards", 9, || 2));
        assert!(address.try_send(1).is_ok());
        let told: Vec<_> =
            queues.snapshot().into_iter().map(|q| (q.name.to_string(), q.depth, q.room)).collect();
        assert_eq!(told, [("engine".to_owned(), 1, 4), ("rewards".to_owned(), 2, 9)]);
        drop(counted);
        assert_eq!(queues.to_proto().len(), 1);
        drop(entered);
        assert!(queues.snapshot().is_empty());
    }
}
