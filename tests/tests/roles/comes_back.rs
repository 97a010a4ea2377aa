//! How long it takes until a run moves again: after a worker was killed, and after the learner, the
//! coordinator or the reward is back. In simulated time, with the clocks that are the defaults.

use std::time::Duration;

use crate::simulated::faults::Fault;
use crate::simulated::observer::Seen;
use crate::simulated::roles::{COORDINATOR, LEARNER, REWARDS, hosts, stage, worker_name};
use crate::simulated::{Cast, Disk, Shape, network, on_one_thread};
use octet_proto::coordinator::GetStatusResponse;
use turmoil::Sim;

const SHAPE: Shape = Shape { steps: 60, batch: 4, lag: 0, swap_at: None };
const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
/// How long somebody is away: shorter and longer than every deadline on a connection.
const AWAY: [Duration; 4] =
    [SECOND, Duration::from_secs(3), Duration::from_secs(7), Duration::from_secs(25)];

/// A run that goes on for as long as it is looked at.
struct Going {
    sim: Sim<'static>,
    seen: Seen,
    _disk: Disk,
}

impl Going {
    fn new(seed: u64, cast: &Cast) -> Self {
        let (disk, mut sim) = (Disk::new(), network(seed, 300 * SECOND));
        stage(&mut sim, &disk, SHAPE, cast);
        let seen = Seen::watch(&mut sim);
        Self { sim, seen, _disk: disk }
    }

    /// Goes on until a status is as wanted; how long that took.
    fn until(&mut self, what: &str, holds: impl Fn(&GetStatusResponse) -> bool) -> Duration {
        let (from, before) = (self.sim.elapsed(), self.seen.all().len());
        loop {
            self.step(what);
            let fresh = self.seen.all().len() > before;
            if fresh && self.seen.last().is_some_and(|status| holds(&status)) {
                return self.sim.elapsed() - from;
            }
            assert!(
                self.sim.elapsed() - from < 60 * SECOND,
                "waited in vain until {what}; {}",
                self.seen.waits()
            );
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.sim.elapsed() + time;
        while self.sim.elapsed() < until {
            self.step("time passes");
        }
    }

    fn step(&mut self, what: &str) {
        let over = self.sim.step().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(!over, "{what}: the run is too short for this test");
    }

    /// Groups that the learner has.
    fn done(&self) -> u64 {
        self.seen.last().map_or(0, |status| done(&status))
    }
}

fn done(status: &GetStatusResponse) -> u64 {
    status.committed_steps * SHAPE.batch + status.spooled_groups
}

/// A group is done that could not even be leased while somebody was away: one of the step after the one
/// that was under way.
fn moves(before: &GetStatusResponse, now: &GetStatusResponse) -> bool {
    done(now) > (before.committed_steps + 1) * SHAPE.batch
}

/// Everything between a host and all others.
fn cut_off(host: &str, cast: &Cast) -> Vec<Fault> {
    let others = hosts(cast).into_iter().filter(|other| other != host);
    others.map(|other| Fault::Partition(host.to_owned(), other)).collect()
}

#[test]
fn the_groups_of_a_killed_worker_are_leased_again_within_three_seconds() {
    on_one_thread(|| {
        // Slow enough that all groups of a step are out at once, and none is done for long.
        let cast = Cast { workers: vec![(4, 1500 * MS), (4, 1500 * MS)], ..Cast::default() };
        for (what, power_off) in [("killed", false), ("cut off", true)] {
            let mut worst = Duration::ZERO;
            for phase in 0..6 {
                let mut run = Going::new(phase, &cast);
                run.until("both have leases", |status| {
                    status.workers.len() == 2 && status.workers.iter().all(|w| w.leases == 2)
                });
                // The worst moment is right after a heartbeat.
                run.pass(phase as u32 * 90 * MS);
                let killed = worker_name(0);
                match power_off {
                    true => cut_off(&killed, &cast).iter().for_each(|f| f.begin(&mut run.sim)),
                    false => run.sim.crash(killed.as_str()),
                }
                let took = run.until("its groups are leased to the other", |status| {
                    status.workers.iter().any(|w| w.name != killed && w.leases == 4)
                });
                assert!(took < 3 * SECOND, "{what} {phase}: {took:?}");
                worst = worst.max(took);
            }
            eprintln!("a worker was {what}: its groups were leased again after {worst:?} at most");
        }
    });
}

/// Takes hosts away for a while in some way; how long it takes after that until the run moves.
fn back(
    seed: u64,
    away: Duration,
    faults: &[Fault],
    moves: impl Fn(&GetStatusResponse, &GetStatusResponse) -> bool,
) -> Duration {
    let mut run = Going::new(seed, &Cast::default());
    run.until("it is under way", |status| done(status) >= 5);
    faults.iter().for_each(|fault| fault.begin(&mut run.sim));
    run.pass(away);
    // What was under way without them is done by now, or counts as their return does.
    let before = run.seen.last().unwrap();
    faults.iter().for_each(|fault| fault.end(&mut run.sim));
    let took = run.until("it moves again", |status| moves(&before, status));
    assert!(run.done() > 0);
    took
}

fn comes_back(
    who: &str,
    within: Duration,
    ways: &[(&str, Vec<Fault>)],
    moves: fn(&GetStatusResponse, &GetStatusResponse) -> bool,
) {
    on_one_thread(|| {
        for (way, faults) in ways {
            for away in AWAY {
                let took = (0..3).map(|seed| back(seed, away, faults, moves));
                let worst = took.max().unwrap();
                eprintln!("{who} {way} for {away:?}: moves {worst:?} after it is back, at most");
                assert!(worst < within, "{who} {way} for {away:?}: {worst:?}");
            }
        }
    });
}

#[test]
fn a_learner_that_is_back_is_used_within_ten_seconds() {
    let cast = Cast::default();
    let ways =
        [("killed", vec![Fault::Crash(LEARNER.into())]), ("cut off", cut_off(LEARNER, &cast))];
    comes_back("the learner", 10 * SECOND, &ways, moves);
}

#[test]
fn a_coordinator_that_is_back_is_used_within_ten_seconds() {
    let cast = Cast::default();
    let ways = [
        ("killed", vec![Fault::Crash(COORDINATOR.into())]),
        ("cut off", cut_off(COORDINATOR, &cast)),
    ];
    comes_back("the coordinator", 10 * SECOND, &ways, moves);
}

#[test]
fn a_reward_that_is_back_is_used_within_three_seconds() {
    let killed = REWARDS[..2].iter().map(|host| Fault::Crash((*host).into())).collect();
    // Groups are scored and delivered again, and no worker looks for a reward any more.
    let scored = |before: &GetStatusResponse, now: &GetStatusResponse| {
        let mut waits = now.workers.iter().flat_map(|worker| &worker.waits);
        done(now) > done(before) && waits.all(|wait| wait.name != "reward replica")
    };
    comes_back("the reward", 3 * SECOND, &[("killed", killed)], scored);
    // What vanished without a word has to be noticed first.
    let cast = Cast::default();
    let cut_off = REWARDS[..2].iter().flat_map(|host| cut_off(host, &cast)).collect();
    comes_back("the reward", 10 * SECOND, &[("cut off", cut_off)], scored);
}
