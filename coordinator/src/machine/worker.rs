//! What is known of one rollout worker, its measured speed among it.
//!
//! Invariants: speed is measured from what the learner confirmed, never from what a worker claims; a
//! worker is given few leases at first, and more only for groups that it delivered.

use std::time::Duration;

use octet_proto::PolicyVersion;

use super::status::{Queue, Wait};

/// How many leases a worker is given before it has delivered anything: one group being sampled, and one
/// being scored and delivered.
const FIRST: u64 = 2;
/// How many groups the measurement of a worker's speed looks back over.
const MEMORY: f64 = 64.0;
/// The weight of the newest lease in the usual time of a lease.
const NEWEST: f64 = 0.25;
/// A lease that takes so many mean deviations longer than usual is late.
const DEVIATIONS: f64 = 4.0;
/// How much longer than usual a lease takes that is late, at the least.
const LATE: f64 = 1.25;
/// What was measured counts half after so many times as long as it took, so that a worker which was slow
/// is tried again.
const HALF_LIFE: f64 = 4.0;
/// The shortest time, in seconds, after which it does.
const SHORTEST_HALF_LIFE_S: f64 = 30.0;

/// A registered worker.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub name: String,
    /// How many groups it says that it samples at once.
    pub capacity: u64,
    /// How many leases it is given; see [`Worker::allowance`].
    allowed: u64,
    pub weights_endpoint: String,
    pub seen: Duration,
    /// When it last asked for groups.
    pub asked: Option<Duration>,
    pub versions: Vec<PolicyVersion>,
    pub sampled_tokens: u64,
    /// Groups that the learner confirmed by a lease of this worker.
    pub delivered: u64,
    pub waits: Vec<Wait>,
    pub queues: Vec<Queue>,
    pub meter: Meter,
}

impl Worker {
    pub(crate) fn new(
        name: String,
        capacity: u64,
        weights_endpoint: String,
        now: Duration,
    ) -> Self {
        Self {
            name,
            capacity,
            allowed: FIRST,
            weights_endpoint,
            seen: now,
            asked: None,
            versions: Vec::new(),
            sampled_tokens: 0,
            delivered: 0,
            waits: Vec::new(),
            queues: Vec::new(),
            meter: Meter::default(),
        }
    }

    /// How many leases it may hold at all: as many as it samples at once, and as many again that are
    /// being scored and delivered.
    pub(crate) fn limit(&self) -> u64 {
        self.capacity.saturating_mul(2)
    }

    /// How many leases it is given while others could take them: doubles with every round that it
    /// delivers, never above the limit.
    pub(crate) fn allowance(&self) -> u64 {
        self.allowed.min(self.limit())
    }

    /// It delivered a group. How long that took is known where the lease's beginning is.
    pub(crate) fn delivered(&mut self, since: Option<Duration>, now: Duration) {
        self.delivered += 1;
        self.allowed = self.allowance() + 1;
        if let Some(since) = since {
            self.meter.finished(since, now);
        }
    }

    /// Somebody who began later was quicker with a group that it holds.
    pub(crate) fn overtaken(&mut self, since: Duration, now: Duration) {
        self.allowed = (self.allowance() / 2).max(1);
        self.meter.unfinished(since, now);
    }

    /// It let a lease run out.
    pub(crate) fn lapsed(&mut self) {
        self.allowed = self.allowance().min(FIRST);
    }

    /// It works on so many leases that it took up again: those it was trusted with before.
    pub(crate) fn works_on(&mut self, leases: u64) {
        self.allowed = self.allowance().max(leases);
    }
}

/// Measures how fast a worker finishes groups.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter {
    groups: f64,
    busy_s: f64,
    last_finish: Duration,
    usual: Option<Usual>,
}

/// How long a lease takes.
#[derive(Debug, Clone, Copy)]
struct Usual {
    mean_s: f64,
    /// The mean of what leases differ from the mean by.
    deviation_s: f64,
}

impl Meter {
    /// Counts a group that was leased at `since` and is confirmed now.
    pub(crate) fn finished(&mut self, since: Duration, now: Duration) {
        self.busy(since, now);
        self.groups += 1.0;
        if self.groups > MEMORY {
            self.groups /= 2.0;
            self.busy_s /= 2.0;
        }
        let took = now.saturating_sub(since).as_secs_f64();
        match &mut self.usual {
            Some(usual) => {
                let error = took - usual.mean_s;
                usual.mean_s += NEWEST * error;
                usual.deviation_s += NEWEST * (error.abs() - usual.deviation_s);
            }
            None => self.usual = Some(Usual { mean_s: took, deviation_s: took / 2.0 }),
        }
    }

    /// Counts the time of a lease that somebody else's delivery ended. It would have taken longer, and
    /// as long again is the best guess.
    pub(crate) fn unfinished(&mut self, since: Duration, now: Duration) {
        self.busy(since, now);
        let mean_s = 2.0 * now.saturating_sub(since).as_secs_f64();
        match &mut self.usual {
            Some(usual) => usual.mean_s = usual.mean_s.max(mean_s),
            None => self.usual = Some(Usual { mean_s, deviation_s: mean_s / 2.0 }),
        }
    }

    fn busy(&mut self, since: Duration, now: Duration) {
        // Leases overlap; a group has cost the time since it or its predecessor, whichever is later.
        self.busy_s += now.saturating_sub(since.max(self.last_finish)).as_secs_f64();
        self.last_finish = now;
    }

    /// Groups per second while it has work; unknown before the first lease ended. Who has delivered
    /// nothing yet delivers at most one group in the time that it had.
    pub(crate) fn speed(&self) -> Option<f64> {
        (self.busy_s > 0.0).then(|| self.groups.max(1.0) / self.busy_s)
    }

    /// Groups per second that were delivered.
    pub(crate) fn delivery_rate(&self) -> Option<f64> {
        self.speed().filter(|_| self.groups > 0.0)
    }

    /// How long a lease of this worker usually takes; a guess, if it has delivered nothing.
    pub(crate) fn usual(&self) -> Option<Duration> {
        self.usual.map(|usual| Duration::from_secs_f64(usual.mean_s))
    }

    /// The age from which on a lease of this worker is late; unknown until it has delivered something.
    pub(crate) fn late(&self) -> Option<Duration> {
        self.usual.filter(|_| self.groups > 0.0).map(|Usual { mean_s, deviation_s }| {
            let late = (mean_s + DEVIATIONS * deviation_s).max(LATE * mean_s);
            Duration::from_secs_f64(late)
        })
    }

    /// How long a lease is expected to take, in seconds, what was measured long ago counting less.
    pub(crate) fn expected_s(&self, now: Duration) -> Option<f64> {
        let age = now.saturating_sub(self.last_finish).as_secs_f64();
        self.usual.map(|Usual { mean_s, .. }| {
            mean_s * 0.5f64.powf(age / (HALF_LIFE * mean_s).max(SHORTEST_HALF_LIFE_S))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_batch_that_ends_together_counts_its_time_once() {
        let mut meter = Meter::default();
        assert_eq!(meter.speed(), None);
        for _ in 0..8 {
            meter.finished(s(1), s(5));
        }
        assert_eq!(meter.speed(), Some(2.0), "8 groups in 4 s");
        assert_eq!(meter.usual(), Some(s(4)));
        // Idle until 10 s: the pause is not the worker's slowness.
        meter.finished(s(10), s(11));
        assert_eq!(meter.speed(), Some(9.0 / 5.0));
    }

    #[test]
    fn what_is_late_depends_on_how_much_leases_differ() {
        let mut steady = Meter::default();
        steady.finished(s(0), s(4));
        assert_eq!(steady.late(), Some(s(12)), "after one lease nothing is known of the others");
        for round in 1..40 {
            steady.finished(s(4 * round), s(4 * round + 4));
        }
        assert_eq!(steady.late(), Some(s(5)));
        let mut fickle = steady.clone();
        for round in 40..80 {
            fickle.finished(s(4 * round), s(4 * round + 2 + 4 * (round % 2)));
        }
        assert!(fickle.late() > Some(s(11)), "{:?}", fickle.late());
    }

    #[test]
    fn who_was_overtaken_is_slower_than_it_seemed_until_that_is_long_ago() {
        let mut meter = Meter::default();
        meter.unfinished(s(0), s(20));
        assert_eq!((meter.speed(), meter.delivery_rate()), (Some(0.05), None));
        assert_eq!((meter.usual(), meter.late()), (Some(s(40)), None));
        assert_eq!(meter.expected_s(s(20)), Some(40.0));
        assert_eq!(meter.expected_s(s(20 + 320)), Some(10.0));
        meter.finished(s(400), s(401));
        assert_eq!(meter.speed(), Some(1.0 / 21.0));
    }

    #[test]
    fn a_worker_is_trusted_with_what_it_delivers_and_never_with_more_than_it_can() {
        let mut worker = Worker::new("w".into(), 8, String::new(), s(0));
        assert_eq!((worker.allowance(), worker.limit()), (2, 16));
        for round in [4, 8, 16, 16] {
            for _ in 0..worker.allowance() {
                worker.delivered(None, s(1));
            }
            assert_eq!(worker.allowance(), round);
        }
        worker.overtaken(s(1), s(9));
        assert_eq!(worker.allowance(), 8);
        worker.lapsed();
        assert_eq!(worker.allowance(), 2);
        worker.works_on(5);
        assert_eq!(worker.allowance(), 5);
        let narrow = Worker::new("n".into(), 1, String::new(), s(0));
        assert_eq!(narrow.allowance(), 2);
    }
}
