//! The protocol under members that hang, die half-way, fail and are slow, and messages that get lost.
#![allow(clippy::unwrap_used)]

mod simulated;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use octet_broadcast::{Convener, Epoch, Member, Order, Seat, Timing};
use proptest::prelude::*;
use simulated::{Net, Wire};

const ROOT: u64 = 0;
const TICK: u64 = 10;
const HEARTBEAT: u64 = 50;
/// How long fetching a version over gRPC takes.
const FETCH: u64 = 300;
const VERSIONS: u64 = 6;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn timing() -> Timing {
    Timing {
        name: ms(300),
        sit: ms(500),
        send: ms(800),
        settle: ms(120),
        silence: ms(600),
        rest: ms(1500),
    }
}

#[derive(Clone, Debug)]
enum Trouble {
    Hang(u64),
    Die,
    DieFor(u64),
    Error,
    Slow(u64),
    Silent(u64),
    /// Its library does not return, so it takes on nothing; its heartbeats go on.
    Stuck(u64),
    Restart,
}

struct Node {
    seat: Seat<Wire>,
    /// Counts the processes that were this member.
    session: u64,
    /// Not before then does it live.
    dead_until: u64,
    /// Its messages get lost until then.
    silent_until: u64,
    /// Nobody drives its seat until then.
    stuck_until: u64,
    fetching: Option<(u64, u64)>,
}

struct World {
    now: u64,
    net: Rc<RefCell<Net>>,
    convener: Convener,
    nodes: BTreeMap<u64, Node>,
    published: u64,
    /// A broadcast under way: its epoch, version and roster.
    sending: Option<(Epoch, u64, Vec<Member>)>,
    broadcasts: u64,
    caught_up: u64,
}

impl World {
    fn new(workers: u64, noticed: bool) -> Self {
        let net = Rc::new(RefCell::new(Net::default()));
        net.borrow_mut().aborts_are_noticed = noticed;
        let node = |member| Node {
            seat: Seat::new(Wire::new(Rc::clone(&net), member)),
            session: 0,
            dead_until: 0,
            silent_until: 0,
            stuck_until: 0,
            fetching: None,
        };
        let nodes = (0..=workers).map(|member| (member, node(member))).collect();
        let convener = Convener::new(Member(ROOT), timing());
        Self {
            now: 0,
            net,
            convener,
            nodes,
            published: 0,
            sending: None,
            broadcasts: 0,
            caught_up: 0,
        }
    }

    fn publish(&mut self) {
        self.published += 1;
        self.net.borrow_mut().weights.insert(ROOT, self.published);
        self.nodes.get_mut(&ROOT).unwrap().seat.holds(self.published);
    }

    fn trouble(&mut self, member: u64, trouble: &Trouble) {
        let now = self.now;
        match trouble {
            Trouble::Hang(for_ms) => {
                self.net.borrow_mut().hangs_until.insert(member, now + for_ms);
            }
            Trouble::Error => drop(self.net.borrow_mut().errors.insert(member)),
            Trouble::Slow(by) => drop(self.net.borrow_mut().slow_ms.insert(member, *by)),
            Trouble::Restart => self.convener = Convener::new(Member(ROOT), timing()),
            Trouble::Silent(for_ms) => {
                self.nodes.get_mut(&member).unwrap().silent_until = now + for_ms;
            }
            Trouble::Stuck(for_ms) => {
                self.nodes.get_mut(&member).unwrap().stuck_until = now + for_ms;
            }
            Trouble::Die | Trouble::DieFor(_) if member == ROOT => {}
            Trouble::Die => self.die(member, u64::MAX),
            Trouble::DieFor(for_ms) => self.die(member, now + for_ms),
        }
    }

    /// The process is gone; another one with the same name may come later, and knows nothing.
    fn die(&mut self, member: u64, until: u64) {
        self.net.borrow_mut().dies(member);
        self.net.borrow_mut().weights.remove(&member);
        let seat = Seat::new(Wire::new(Rc::clone(&self.net), member));
        let node = self.nodes.get_mut(&member).unwrap();
        *node = Node {
            seat,
            session: node.session + 1,
            dead_until: until,
            silent_until: 0,
            stuck_until: 0,
            fetching: None,
        };
    }

    fn tick(&mut self) {
        self.now += TICK;
        self.net.borrow_mut().now_ms = self.now;
        let now = self.now;
        for (member, node) in &mut self.nodes {
            if node.dead_until > now {
                continue;
            }
            let stuck = node.stuck_until > now;
            if !stuck {
                node.seat.poll(ms(now));
            }
            if node.seat.transport().is_busy() && !stuck {
                let until = node.seat.deadline().expect("a wait without a deadline");
                assert!(until > ms(now), "member {member} waits past its deadline");
            }
            if let Some((version, at)) = node.fetching
                && at <= now
            {
                node.fetching = None;
                node.seat.holds(version);
                self.net.borrow_mut().weights.insert(*member, version);
                self.caught_up += 1;
            }
            if (now + member * 7).is_multiple_of(HEARTBEAT) || now.is_multiple_of(HEARTBEAT) {
                if node.silent_until > now {
                    continue;
                }
                let orders =
                    self.convener.report(ms(now), Member(*member), node.session, node.seat.state());
                if let (Order::Send(..), true) = (orders.order, *member == ROOT) {
                    assert_eq!(Some(self.published), node.seat.state().holds);
                }
                if !stuck {
                    node.seat.order(ms(now), &orders);
                }
                if let (Some(version), None) = (orders.catch_up, node.fetching) {
                    node.fetching = Some((version, now + FETCH));
                }
            }
        }
        self.convener.tick(ms(now));
        self.check_stage();
    }

    /// The convener never waits without a deadline, and an epoch ends with the version or evicts.
    fn check_stage(&mut self) {
        if let Some(until) = self.convener.deadline() {
            assert!(until > ms(self.now), "the convener waits past its deadline");
            assert!(until <= ms(self.now) + timing().send);
        }
        let roster = self.convener.roster().to_vec();
        if let Some((epoch, version, before)) = self.sending.take()
            && self.convener.epoch() == epoch
            && !roster.is_empty()
        {
            // Still under way, or over with everybody.
            let all = before.iter().all(|m| self.nodes[&m.0].seat.state().holds >= Some(version));
            match all {
                true => self.broadcasts += 1,
                false => self.sending = Some((epoch, version, before)),
            }
            return;
        }
        let lacks = |member: &&Member| {
            self.nodes[&member.0].seat.state().holds.unwrap_or(0) < self.published
        };
        if self.published > 0 && roster.iter().any(|member| lacks(&member)) {
            self.sending = Some((self.convener.epoch(), self.published, roster));
        }
    }

    fn run(&mut self, until: u64) {
        while self.now < until {
            self.tick();
        }
    }

    fn living(&self) -> Vec<u64> {
        let alive = self.nodes.iter().filter(|(_, node)| node.dead_until <= self.now);
        alive.map(|(member, _)| *member).collect()
    }

    /// Everybody who lives holds the newest version, in truth and not by its word, and is in the epoch.
    fn assert_whole(&self) {
        let weights = self.net.borrow().weights.clone();
        for member in self.living() {
            assert_eq!(weights.get(&member), Some(&self.published), "member {member}");
        }
        let mut roster: Vec<u64> = self.convener.roster().iter().map(|m| m.0).collect();
        roster.sort_unstable();
        if self.living().len() > 1 {
            assert_eq!(roster, self.living(), "everybody who lives is in the communicator");
        }
    }
}

#[test]
fn without_trouble_each_version_is_one_broadcast_in_one_epoch() {
    let mut world = World::new(4, false);
    world.run(1_000);
    assert_eq!(world.convener.epoch(), Epoch(1));
    for _ in 0..3 {
        world.publish();
        world.run(world.now + 400);
        world.assert_whole();
    }
    assert_eq!((world.convener.epoch(), world.caught_up), (Epoch(1), 0), "nobody had to fetch");
    assert_eq!(world.broadcasts, 3);
}

#[test]
fn one_that_dies_in_a_broadcast_is_left_out_and_the_others_have_the_version_in_seconds() {
    for noticed in [true, false] {
        let mut world = World::new(4, noticed);
        world.run(1_000);
        world.net.borrow_mut().slow_ms = (0..5).map(|member| (member, 100)).collect();
        world.publish();
        world.run(world.now + 70);
        world.trouble(2, &Trouble::Die);
        world.run(world.now + 3_000);
        world.assert_whole();
        assert!(world.convener.epoch() > Epoch(1) && world.living() == [0, 1, 3, 4]);
    }
}

#[test]
fn one_that_hangs_holds_nobody_up_for_longer_than_a_deadline() {
    let mut world = World::new(3, false);
    world.run(1_000);
    world.trouble(3, &Trouble::Hang(4_000));
    world.publish();
    // From outside all of them hang. At the deadline they stand up, and fetch what they lack.
    let patience = timing().send.as_millis() as u64 + 3 * HEARTBEAT + FETCH;
    world.run(world.now + patience);
    let weights = world.net.borrow().weights.clone();
    assert_eq!(weights.values().copied().collect::<Vec<_>>(), [1, 1, 1, 1]);
    world.run(world.now + 10_000);
    world.assert_whole();
}

#[test]
fn one_that_does_not_even_begin_is_left_out_alone() {
    let mut world = World::new(3, false);
    world.run(1_000);
    world.trouble(3, &Trouble::Stuck(60_000));
    world.publish();
    let patience = timing().send.as_millis() as u64 + 3 * HEARTBEAT + FETCH;
    world.run(world.now + patience);
    assert_eq!(world.convener.evictions().map(|e| e.member).collect::<Vec<_>>(), [Member(3)]);
    // The others do not rest: they form the next epoch as soon as all have settled.
    world.run(world.now + 500);
    assert_eq!(world.convener.roster(), [Member(0), Member(1), Member(2)]);
    let fetched = world.caught_up;
    world.publish();
    world.run(world.now + 300);
    let weights = world.net.borrow().weights.clone();
    assert_eq!([0, 1, 2].map(|member| weights[&member]), [2, 2, 2]);
    assert_eq!(world.caught_up, fetched, "the second version came by broadcast");
}

#[test]
fn one_that_joins_catches_up_and_enters_at_the_next_epoch() {
    let mut world = World::new(3, true);
    world.trouble(3, &Trouble::DieFor(3_000));
    world.run(1_000);
    world.publish();
    world.run(2_500);
    let before = world.convener.epoch();
    assert_eq!(world.convener.roster(), [Member(0), Member(1), Member(2)]);
    world.run(5_000);
    assert_eq!((world.convener.epoch(), world.caught_up), (before.next(), 1));
    world.assert_whole();
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        (50u64..3_000).prop_map(Trouble::Hang),
        Just(Trouble::Die),
        (100u64..3_000).prop_map(Trouble::DieFor),
        Just(Trouble::Error),
        (0u64..600).prop_map(Trouble::Slow),
        (50u64..2_000).prop_map(Trouble::Silent),
        (50u64..3_000).prop_map(Trouble::Stuck),
        Just(Trouble::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_happens_nobody_waits_for_ever_and_all_who_live_get_the_newest_version(
        workers in 1u64..7,
        noticed: bool,
        troubles in prop::collection::vec((0u64..12_000, 0u64..7, trouble()), 0..16),
    ) {
        let mut world = World::new(workers, noticed);
        let mut troubles = troubles;
        troubles.sort_by_key(|(at, ..)| *at);
        let mut next = 0;
        while world.now < 12_000 {
            while let Some((at, member, trouble)) = troubles.get(next)
                && *at <= world.now
            {
                world.trouble(member % (workers + 1), trouble);
                next += 1;
            }
            if world.now.is_multiple_of(2_000) && world.published < VERSIONS {
                world.publish();
            }
            world.tick();
        }
        // The troubles are over: a few seconds later everybody is together again.
        {
            let mut net = world.net.borrow_mut();
            net.slow_ms.clear();
            net.errors.clear();
        }
        world.run(world.now + 12_000);
        world.assert_whole();
        let epoch = world.convener.epoch();
        world.publish();
        world.run(world.now + 1_000);
        world.assert_whole();
        prop_assert_eq!(world.convener.epoch(), epoch, "a calm cluster keeps its communicator");
    }
}
