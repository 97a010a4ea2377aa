//! Broadcasts between the run's own events: who is told to wait for one, and when to fetch after all.
#![allow(clippy::unwrap_used)]

use octet_broadcast::{Order, Outcome, Phase, Player, State, UniqueId};
use octet_proto::{PolicyVersion, WorkerId};

use super::{Coordinator, ms, plan};
use crate::machine::{Beat, LearnerId, LearnerReport, Published, Pulse, Said, Told};

/// A run with members that do at once what they are told.
struct Run {
    c: Coordinator,
    now: u64,
    learner: LearnerId,
    newest: u64,
    root: Player,
    workers: Vec<(WorkerId, Player)>,
}

fn said(state: State) -> Said {
    Said { state, parcel_bytes: 1010, fault: String::new() }
}

fn follow(now: u64, player: &mut Player, told: &Told) {
    for action in player.order(ms(now), &told.orders) {
        match action {
            octet_broadcast::Action::Name => {
                player.outcome(Outcome::Named(UniqueId([now as u8; 128])));
            }
            octet_broadcast::Action::Form(_) => {
                player.begun();
                player.outcome(Outcome::Done);
            }
            // What is broadcast ends when the test says so.
            octet_broadcast::Action::Broadcast(_) => player.begun(),
            octet_broadcast::Action::Abort => {}
        }
    }
}

impl Run {
    /// Two workers that hold version 0.
    fn new() -> Self {
        let mut c = Coordinator::new(plan(9, 1, 0));
        let learner = c.learner(0, 0, &[]);
        let workers = (1..=2).map(|at| (c.worker(0, at), Player::default()));
        let workers = workers.collect();
        Self { c, now: 0, learner, newest: 0, root: Player::default(), workers }
    }

    fn report(&mut self) -> Option<Told> {
        let published = Published {
            version: PolicyVersion(self.newest),
            digest: format!("digest-{}", self.newest),
            bytes: 1000,
        };
        let report = LearnerReport {
            committed: self.newest,
            published: vec![published],
            ..LearnerReport::default()
        };
        self.c.machine.report(ms(self.now), self.learner, report).unwrap();
        self.root.holds(self.newest);
        let told = self.c.machine.broadcast_of_learner(
            ms(self.now),
            self.learner,
            &said(self.root.state()),
        );
        if let Some(told) = &told {
            follow(self.now, &mut self.root, told);
        }
        told
    }

    fn beat(&mut self, at: usize, versions: &[u64]) -> (Told, Pulse) {
        let (id, player) = &mut self.workers[at];
        for version in versions {
            player.holds(*version);
        }
        let machine = &mut self.c.machine;
        let told = machine.broadcast_of_worker(ms(self.now), *id, &said(player.state())).unwrap();
        follow(self.now, player, &told);
        let versions = versions.iter().copied().map(PolicyVersion).collect();
        let beat = Beat { versions, ..Beat::default() };
        (told, self.c.machine.heartbeat(ms(self.now), *id, beat).unwrap())
    }

    /// Heartbeats of everybody until `until`.
    fn go(&mut self, until: u64, versions: &[u64]) {
        while self.now < until {
            self.now += 100;
            self.report();
            for at in 0..self.workers.len() {
                self.beat(at, versions);
            }
        }
    }

    fn phase(&mut self) -> Phase {
        self.c.machine.snapshot(ms(self.now)).broadcast.unwrap().phase
    }
}

#[test]
fn a_run_without_members_knows_of_no_broadcasts() {
    let mut c = Coordinator::new(plan(4, 1, 0));
    c.learner(0, 0, &[]);
    let worker = c.worker(0, 1);
    c.beat(1, worker, &[]).unwrap();
    let snapshot = c.machine.snapshot(ms(2));
    assert_eq!(snapshot.broadcast, None);
    assert!(snapshot.waits.iter().all(|wait| wait.name != "broadcast"));
}

#[test]
fn a_version_that_is_broadcast_is_not_to_be_fetched_until_the_deadline() {
    let mut run = Run::new();
    run.go(3_000, &[0]);
    assert_eq!(run.phase(), Phase::Together);
    let view = run.c.machine.snapshot(ms(run.now)).broadcast.unwrap();
    assert_eq!(view.roster, ["learner", "w1", "w2"]);
    assert_eq!((view.epoch.0, view.until_in), (1, None));

    run.newest = 1;
    let told = run.report().unwrap();
    let parcel = told.parcel.clone().unwrap();
    assert_eq!((parcel.version, parcel.bytes, parcel.digest.as_str()), (1, 1010, "digest-1"));
    let (told, pulse) = run.beat(0, &[0]);
    assert!(matches!(told.orders.order, Order::Send(place, 1) if place.rank == 1));
    let within = pulse.sources[0].broadcast_within.unwrap();
    assert_eq!(within, told.orders.within);
    assert!(!pulse.sources[0].endpoints.is_empty(), "it knows where to go if nothing comes");
    let waits = run.c.machine.snapshot(ms(run.now)).waits;
    let wait = waits.iter().find(|wait| wait.name == "broadcast").unwrap();
    assert!(wait.detail.contains("w1, w2") && wait.deadline_in == within, "{wait:?}");

    // One that joins meanwhile is no member: it fetches.
    let late = run.c.worker(run.now, 3);
    assert_eq!(run.c.beat(run.now, late, &[]).unwrap().sources[0].broadcast_within, None);

    // The other one comes late, when the learner has the next version and not this one any more.
    run.root.outcome(Outcome::Done);
    run.newest = 2;
    run.report();
    let (told, pulse) = run.beat(1, &[0]);
    assert!(matches!(told.orders.order, Order::Send(place, 1) if place.rank == 2));
    assert_eq!(told.parcel, Some(parcel), "what is under way is what it was");
    assert_eq!(pulse.sources[0].version, PolicyVersion(2));
    assert_eq!(pulse.sources[0].broadcast_within, None, "that one is not under way");

    // All have it, and the next one begins.
    run.workers[0].1.outcome(Outcome::Done);
    run.workers[1].1.outcome(Outcome::Done);
    for at in 0..2 {
        run.beat(at, &[0, 1]);
    }
    assert_eq!(run.phase(), Phase::Sending(2));
    assert_eq!(run.c.machine.snapshot(ms(run.now)).broadcast.unwrap().broadcasts, 1);
}

#[test]
fn one_that_does_not_begin_is_left_out_and_the_others_fetch_at_the_deadline() {
    let mut run = Run::new();
    run.go(3_000, &[0]);
    run.newest = 1;
    run.report();
    run.beat(0, &[0]);
    // Its library does not return, so its state stays what it was.
    let stuck = run.workers[1].1.clone();
    let end = run.now + 30_000;
    while run.now < end {
        run.workers[1].1 = stuck.clone();
        run.now += 500;
        run.report();
        run.beat(0, &[0]);
        run.beat(1, &[0]);
    }
    let view = run.c.machine.snapshot(ms(run.now)).broadcast.unwrap();
    let left_out: Vec<_> = view.evictions.iter().map(|e| e.member.as_str()).collect();
    assert_eq!(left_out, ["w2"]);
    assert!(view.evictions[0].why.contains("broadcasting version 1"), "{view:?}");
    assert_eq!(run.beat(0, &[0]).1.sources[0].broadcast_within, None, "it is to be fetched now");
    // The next epoch is without it, as soon as the other one holds the version.
    let end = run.now + 5_000;
    while run.now < end {
        run.workers[1].1 = stuck.clone();
        run.now += 500;
        run.report();
        run.beat(0, &[0, 1]);
        run.beat(1, &[0, 1]);
    }
    let view = run.c.machine.snapshot(ms(run.now)).broadcast.unwrap();
    assert_eq!((view.phase, view.roster), (Phase::Together, vec!["learner".into(), "w1".into()]));
}

#[test]
fn losing_a_member_ends_the_epoch_at_once() {
    for lose in [0, 1, 2] {
        let mut run = Run::new();
        run.go(3_000, &[0]);
        match lose {
            0 => run.c.machine.release(ms(run.now), run.workers[0].0, &[], true).unwrap(),
            // Another incarnation of the learner.
            1 => drop(run.c.learner(run.now, 0, &[])),
            _ => run.c.machine.tick(ms(run.now + 5_000)),
        }
        let view = run.c.machine.snapshot(ms(run.now)).broadcast.unwrap();
        assert_eq!(view.phase, Phase::Apart);
        assert!(!view.evictions.is_empty(), "{view:?}");
        let told =
            run.c.machine.broadcast_of_learner(ms(run.now), run.learner, &said(run.root.state()));
        match lose {
            1 => assert_eq!(told, None, "the old learner counts no more"),
            _ => assert_eq!(told.unwrap().orders.order, Order::Stand),
        }
    }
}
