//! What a service does, counted.
//!
//! Invariant: every request that was read is counted once when it is answered, and is open until then, also
//! when whoever asked is gone before its answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Upper ends of the classes that times are counted in, in seconds; what takes longer is in the last class.
pub const CLASSES: [f64; 12] =
    [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// Counts requests. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    open: AtomicU64,
    scored: AtomicU64,
    micros: AtomicU64,
    classes: [AtomicU64; CLASSES.len() + 1],
    failures: Mutex<BTreeMap<&'static str, u64>>,
}

/// What was counted so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Requests that were read and are not answered.
    pub open: u64,
    /// Requests that were given a reward.
    pub scored: u64,
    /// Requests that were given none, by the failure's kind.
    pub failures: BTreeMap<&'static str, u64>,
    /// From a request to its answer, all together.
    pub time: Duration,
    /// How many answers took at most so long, and longer than the class before: the last has no end.
    pub classes: Vec<(f64, u64)>,
}

/// A request that is open.
#[derive(Debug)]
pub(super) struct Open<'a> {
    meter: &'a Meter,
    since: Instant,
}

impl Meter {
    pub(super) fn open(&self) -> Open<'_> {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Open { meter: self, since: Instant::now() }
    }

    /// What was counted so far.
    pub fn load(&self) -> Load {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let ends = CLASSES.into_iter().chain([f64::INFINITY]);
        Load {
            open: read(&self.0.open),
            scored: read(&self.0.scored),
            failures: self.0.failures.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            time: Duration::from_micros(read(&self.0.micros)),
            classes: ends.zip(&self.0.classes).map(|(end, count)| (end, read(count))).collect(),
        }
    }
}

impl Open<'_> {
    /// The answer is there.
    pub fn answered(self, failure: Option<&'static str>) {
        let (counters, took) = (&self.meter.0, self.since.elapsed());
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        counters.micros.fetch_add(micros, Ordering::Relaxed);
        let class = CLASSES.partition_point(|end| *end < took.as_secs_f64());
        counters.classes[class].fetch_add(1, Ordering::Relaxed);
        match failure {
            None => {
                counters.scored.fetch_add(1, Ordering::Relaxed);
            }
            Some(kind) => {
                let mut failures = counters.failures.lock().unwrap_or_else(PoisonError::into_inner);
                *failures.entry(kind).or_default() += 1;
            }
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.meter.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_once_and_open_ones_while_they_are() {
        let meter = Meter::default();
        let (first, second, gone) = (meter.open(), meter.open(), meter.open());
        assert_eq!(meter.load().open, 3);
        first.answered(None);
        second.answered(Some("threw"));
        drop(gone);
        let load = meter.load();
        assert_eq!((load.open, load.scored, load.failures["threw"]), (0, 1, 1));
        assert_eq!(load.classes.iter().map(|(_, count)| count).sum::<u64>(), 2);
        assert_eq!(load.classes.len(), CLASSES.len() + 1);
    }
}
