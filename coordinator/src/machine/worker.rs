//! What is known of one rollout worker, its measured speed among it.
//!
//! Invariant: speed is measured from what the learner confirmed, never from what a worker claims.

use std::time::Duration;

use octet_proto::PolicyVersion;

use super::status::{Queue, Wait};

/// How many groups the measurement of a worker's speed looks back over.
const MEMORY: f64 = 64.0;
/// The weight of the newest lease in the usual time of a lease.
const NEWEST: f64 = 0.25;

/// A registered worker.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub name: String,
    /// How many groups it samples at once.
    pub capacity: u64,
    pub weights_endpoint: String,
    pub seen: Duration,
    /// When it last asked for groups.
    pub asked: Option<Duration>,
    pub versions: Vec<PolicyVersion>,
    pub sampled_tokens: u64,
    /// Groups that the learner confirmed while this worker alone held them.
    pub delivered: u64,
    pub waits: Vec<Wait>,
    pub queues: Vec<Queue>,
    pub meter: Meter,
}

impl Worker {
    /// How many leases it may hold: one round being sampled, one being scored and delivered.
    pub(crate) fn limit(&self) -> u64 {
        self.capacity.saturating_mul(2)
    }
}

/// Measures how fast a worker finishes groups.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter {
    groups: f64,
    busy_s: f64,
    last_finish: Duration,
    usual_s: Option<f64>,
}

impl Meter {
    /// Counts a group that was leased at `since` and is confirmed now.
    pub(crate) fn finished(&mut self, since: Duration, now: Duration) {
        // Leases overlap; a group has cost the time since it or its predecessor, whichever is later.
        self.busy_s += now.saturating_sub(since.max(self.last_finish)).as_secs_f64();
        self.last_finish = now;
        self.groups += 1.0;
        if self.groups > MEMORY {
            self.groups /= 2.0;
            self.busy_s /= 2.0;
        }
        let took = now.saturating_sub(since).as_secs_f64();
        self.usual_s = Some(self.usual_s.map_or(took, |usual| usual + NEWEST * (took - usual)));
    }

    /// Groups per second while it has work; unknown before the first.
    pub(crate) fn speed(&self) -> Option<f64> {
        (self.groups > 0.0 && self.busy_s > 0.0).then(|| self.groups / self.busy_s)
    }

    /// How long a lease of this worker usually takes.
    pub(crate) fn usual(&self) -> Option<Duration> {
        self.usual_s.map(Duration::from_secs_f64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_batch_that_ends_together_counts_its_time_once() {
        let mut meter = Meter::default();
        assert_eq!(meter.speed(), None);
        for _ in 0..8 {
            meter.finished(Duration::from_secs(1), Duration::from_secs(5));
        }
        assert_eq!(meter.speed(), Some(2.0), "8 groups in 4 s");
        assert_eq!(meter.usual(), Some(Duration::from_secs(4)));
        // Idle until 10 s: the pause is not the worker's slowness.
        meter.finished(Duration::from_secs(10), Duration::from_secs(11));
        assert_eq!(meter.speed(), Some(9.0 / 5.0));
    }
}
