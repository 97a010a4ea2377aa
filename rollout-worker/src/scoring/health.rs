//! Which replicas of a revision are worth asking.
//!
//! A replica that fails several times in a row, hangs, or is far slower than the fastest of the others is
//! taken out. After a pause, which doubles each time, it gets one real question as a probe: a good answer
//! takes it back in. Scoring is pure, so a probe can do no harm, and rewards do not depend on who is asked.
//!
//! Invariants: pure, given the time; the last replica that is up is never taken out; one that is out and
//! rested is asked one question at a time.

use tokio::time::{Duration, Instant};

/// When a replica is taken out, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rules {
    /// Failures in a row that are the machine's and not the function's.
    pub failures: u32,
    /// How many times slower than the fastest of the others.
    pub factor: f64,
    /// What nobody calls slow.
    pub quick: Duration,
    /// Answers before the pace of a replica is known.
    pub answers: u32,
    /// How long the first pause lasts.
    pub pause: Duration,
    /// How long a pause lasts at the most.
    pub longest: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            failures: 3,
            factor: 5.0,
            quick: Duration::from_millis(500),
            answers: 8,
            pause: Duration::from_secs(2),
            longest: Duration::from_secs(60),
        }
    }
}

/// What became of a replica.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// It is asked no more until the pause is over.
    TakenOut { replica: usize, why: Why, pause: Duration },
    /// It is asked as the others are.
    TakenBack { replica: usize },
}

/// Why a replica was taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It fails.
    Failing,
    /// It did not answer in time.
    Hanging,
    /// It takes much longer than others.
    Slow,
}

/// How much weight the newest answer has in a replica's pace.
const NEWEST: f64 = 0.2;

#[derive(Clone, Debug, Default)]
struct Pulse {
    /// Seconds an answer takes, the newest weighing most.
    pace: f64,
    answers: u32,
    failures: u32,
    /// Until when it rests, if it is out.
    out_until: Option<Instant>,
    /// How often it was taken out without having been well in between.
    outs: u32,
}

/// The replicas of one revision.
#[derive(Debug)]
pub(super) struct Health {
    rules: Rules,
    pulses: Vec<Pulse>,
    changes: Vec<Change>,
}

impl Health {
    pub(super) fn new(replicas: usize, rules: Rules) -> Self {
        Self { rules, pulses: vec![Pulse::default(); replicas], changes: Vec::new() }
    }

    /// How many questions a replica may have that could take `room`: none while it rests, one as a probe.
    pub(super) fn room(&self, replica: usize, room: usize, now: Instant) -> usize {
        match self.pulses[replica].out_until {
            None => room,
            Some(until) if until <= now => room.min(1),
            Some(_) => 0,
        }
    }

    /// Whether a replica is asked as usual.
    pub(super) fn is_in(&self, replica: usize) -> bool {
        self.pulses[replica].out_until.is_none()
    }

    /// When the first one that rests may be asked again.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        self.pulses.iter().filter_map(|pulse| pulse.out_until).filter(|until| *until > now).min()
    }

    /// It answered, with a reward or with a failure that is the function's own. `up` says who is there.
    pub(super) fn answered(
        &mut self,
        replica: usize,
        took: Duration,
        up: impl Fn(usize) -> bool,
        now: Instant,
    ) {
        if self.rests(replica, now) {
            return;
        }
        let took = took.as_secs_f64();
        let limit = self.limit(replica, &up);
        let pulse = &mut self.pulses[replica];
        pulse.failures = 0;
        if pulse.out_until.is_some() {
            if limit.is_some_and(|limit| took > limit) {
                self.rest(replica, Why::Slow, now);
            } else {
                // Its pace is found out anew; a relapse rests longer until it was well for a while.
                *pulse = Pulse { pace: took, answers: 1, outs: pulse.outs, ..Pulse::default() };
                self.changes.push(Change::TakenBack { replica });
            }
            return;
        }
        let weight = if pulse.answers == 0 { 1.0 } else { NEWEST };
        pulse.pace += weight * (took - pulse.pace);
        pulse.answers = pulse.answers.saturating_add(1);
        if pulse.answers < self.rules.answers {
            return;
        }
        if limit.is_some_and(|limit| pulse.pace > limit) {
            self.rest(replica, Why::Slow, now);
        } else if pulse.answers >= 8 * self.rules.answers {
            pulse.outs = 0;
        }
    }

    /// It failed in a way that is the machine's.
    pub(super) fn failed(&mut self, replica: usize, up: impl Fn(usize) -> bool, now: Instant) {
        if self.rests(replica, now) {
            return;
        }
        let others = self.others_in(replica, &up);
        let pulse = &mut self.pulses[replica];
        pulse.failures = pulse.failures.saturating_add(1);
        let probed = pulse.out_until.is_some();
        if probed || (pulse.failures >= self.rules.failures && others) {
            self.rest(replica, Why::Failing, now);
        }
    }

    /// It did not answer in time.
    pub(super) fn hung(&mut self, replica: usize, up: impl Fn(usize) -> bool, now: Instant) {
        let probed = self.pulses[replica].out_until.is_some();
        if !self.rests(replica, now) && (probed || self.others_in(replica, &up)) {
            self.rest(replica, Why::Hanging, now);
        }
    }

    /// What happened since the last time that this was asked.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// What comes from one that rests was asked before, and says nothing new.
    fn rests(&self, replica: usize, now: Instant) -> bool {
        self.pulses[replica].out_until.is_some_and(|until| until > now)
    }

    fn others_in(&self, replica: usize, up: &impl Fn(usize) -> bool) -> bool {
        (0..self.pulses.len()).any(|other| other != replica && up(other) && self.is_in(other))
    }

    /// Seconds above which an answer of `replica` is slow; unknown while no other's pace is.
    fn limit(&self, replica: usize, up: &impl Fn(usize) -> bool) -> Option<f64> {
        let others = self.pulses.iter().enumerate().filter(|(other, pulse)| {
            *other != replica
                && up(*other)
                && pulse.out_until.is_none()
                && pulse.answers >= self.rules.answers
        });
        let fastest = others.map(|(_, pulse)| pulse.pace).reduce(f64::min)?;
        Some((fastest * self.rules.factor).max(self.rules.quick.as_secs_f64()))
    }

    fn rest(&mut self, replica: usize, why: Why, now: Instant) {
        let Rules { pause, longest, .. } = self.rules;
        let pulse = &mut self.pulses[replica];
        let doubled = 2u32.checked_pow(pulse.outs).and_then(|factor| pause.checked_mul(factor));
        let pause = doubled.map_or(longest, |pause| pause.min(longest));
        let outs = pulse.outs.saturating_add(1);
        *pulse = Pulse { out_until: Some(now + pause), outs, ..Pulse::default() };
        self.changes.push(Change::TakenOut { replica, why, pause });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn all(_: usize) -> bool {
        true
    }

    /// Two replicas of a known pace.
    fn paced(first: u64, second: u64, now: Instant) -> Health {
        let mut health = Health::new(2, Rules::default());
        for _ in 0..20 {
            health.answered(0, ms(first), all, now);
            health.answered(1, ms(second), all, now);
        }
        health
    }

    #[test]
    fn a_slow_replica_is_taken_out_and_a_quick_probe_takes_it_back() {
        let now = Instant::now();
        let mut health = paced(100, 900, now);
        let pause = ms(2000);
        let out = Change::TakenOut { replica: 1, why: Why::Slow, pause };
        assert_eq!(health.changes().first(), Some(&out));
        assert_eq!(health.room(1, 64, now), 0);
        assert_eq!(health.wake(now), Some(now + pause));
        let rested = now + pause;
        assert_eq!((health.room(1, 64, rested), health.room(0, 64, rested)), (1, 64), "one probe");
        // Slow again: it rests twice as long.
        health.answered(1, ms(900), all, rested);
        assert_eq!(health.room(1, 64, rested + ms(3999)), 0);
        let rested = rested + ms(4000);
        assert_eq!(health.room(1, 64, rested), 1);
        drop(health.changes());
        health.answered(1, ms(100), all, rested);
        assert_eq!(health.changes(), [Change::TakenBack { replica: 1 }]);
        assert_eq!(health.room(1, 64, rested), 64);
    }

    #[test]
    fn what_is_quick_enough_is_not_slow_however_quick_another_is() {
        let now = Instant::now();
        assert!(paced(1, 450, now).changes().is_empty());
        assert!(paced(200, 900, now).changes().is_empty());
    }

    #[test]
    fn failures_in_a_row_take_a_replica_out_but_never_the_last_one() {
        let now = Instant::now();
        let mut health = paced(10, 10, now);
        for _ in 0..2 {
            health.failed(0, all, now);
        }
        health.answered(0, ms(10), all, now);
        for _ in 0..2 {
            health.failed(0, all, now);
        }
        assert!(health.changes().is_empty(), "an answer in between counts them anew");
        health.failed(0, |replica| replica == 0, now);
        assert!(health.is_in(0), "the other one is away");
        health.failed(0, all, now);
        assert!(!health.is_in(0));
        for _ in 0..10 {
            health.failed(1, all, now);
            health.hung(1, all, now);
        }
        assert!(health.is_in(1), "the last one");
    }

    proptest! {
        #[test]
        fn one_that_is_up_is_always_asked_and_pauses_end(
            events in prop::collection::vec((0usize..3, 0u8..4, 0u64..4000, any::<bool>()), 0..200),
        ) {
            let (mut health, mut now, mut up) = (Health::new(3, Rules::default()), Instant::now(), [true; 3]);
            for (replica, event, millis, there) in events {
                now += ms(millis / 4);
                // Who goes away took no others with it: somebody who is in stays up.
                let others = (0..3).any(|other| other != replica && up[other] && health.is_in(other));
                up[replica] = there || !others;
                let is_up = |replica: usize| up[replica];
                match event {
                    _ if health.room(replica, 8, now) == 0 || !up[replica] => {}
                    0 | 1 => health.answered(replica, ms(millis), is_up, now),
                    2 => health.failed(replica, is_up, now),
                    _ => health.hung(replica, is_up, now),
                }
                let asked = (0..3).filter(|r| up[*r] && health.is_in(*r)).count();
                let any_in = (0..3).filter(|r| health.is_in(*r)).count();
                prop_assert!(asked > 0 || any_in > 0, "somebody is always in");
                for replica in 0..3 {
                    prop_assert!(health.room(replica, 8, now + Rules::default().longest) > 0);
                }
            }
        }
    }
}
