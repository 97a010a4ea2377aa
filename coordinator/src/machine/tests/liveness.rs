//! Whatever happened before: once the environment is fair, the run completes.
//!
//! A small simulation in steps of 50 ms: workers that lease, sample at their own speed, deliver and
//! send heartbeats; a learner with a disk, which says by whose lease a group came. Before `CALM`,
//! answers are lost, workers die and hang, the learner and the coordinator restart. After it one
//! worker may hang for ever with its leases renewed; the others and the learner do their work.

use std::collections::{BTreeMap, BTreeSet};

use octet_proto::WorkerId;
use proptest::prelude::*;

use super::*;

const STEP_MS: u64 = 50;
const CALM: u64 = 30_000;

/// Splitmix64: the schedule is a function of the seed alone.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

struct Worker {
    id: Option<WorkerId>,
    capacity: u64,
    /// How long a group takes; a worker that hangs never ends one.
    takes: Option<u64>,
    /// Leases, with the time at which each will be delivered.
    held: BTreeMap<LeaseKeyOrd, Option<u64>>,
}

type LeaseKeyOrd = (u64, u64);

fn key((group, epoch): LeaseKeyOrd) -> LeaseKey {
    LeaseKey { group: group.into(), epoch: epoch.into() }
}

struct Learner {
    id: Option<LearnerId>,
    committed: u64,
    spool: BTreeSet<u64>,
    /// By which leases groups came, since the last report.
    delivered: Vec<LeaseKey>,
    /// Every group that a committed step consumed, to see that none is consumed twice or never.
    consumed: Vec<u64>,
}

struct Sim {
    dice: Dice,
    c: Coordinator,
    /// Added to the simulated time since the coordinator started.
    started: u64,
    workers: Vec<Worker>,
    learner: Learner,
}

impl Sim {
    fn new(seed: u64, plan: RunPlan) -> Self {
        let mut dice = Dice(seed);
        let count = 2 + dice.below(4);
        let workers = (0..count)
            .map(|_| Worker {
                id: None,
                capacity: 1 + dice.below(6),
                takes: Some(STEP_MS + dice.below(1500)),
                held: BTreeMap::new(),
            })
            .collect();
        let learner = Learner {
            id: None,
            committed: 0,
            spool: BTreeSet::new(),
            delivered: Vec::new(),
            consumed: Vec::new(),
        };
        Self { dice, c: Coordinator::new(plan), started: 0, workers, learner }
    }

    fn chaos(&mut self, t: u64) {
        for index in 0..self.workers.len() {
            if self.dice.one_in(120) {
                // Killed: it comes back with nothing in its hands.
                self.workers[index].id = None;
                self.workers[index].held.clear();
            }
            if self.dice.one_in(150) {
                self.workers[index].takes = None;
            }
        }
        if self.dice.one_in(150) {
            self.learner.id = None;
            if self.dice.one_in(2) {
                // The disk was restored from a backup: some of the spool is gone.
                self.learner.spool.pop_first();
            }
        }
        if self.dice.one_in(200) {
            self.c.restart();
            self.started = t;
        }
    }

    /// From `CALM` on one worker hangs for ever, the others work.
    fn calm(&mut self) {
        for (index, worker) in self.workers.iter_mut().enumerate() {
            worker.takes = (index > 0).then_some(300 + 100 * index as u64);
            if index > 0 {
                let done = CALM + worker.takes.unwrap_or(0);
                worker.held.values_mut().for_each(|at| *at = Some(done));
            }
        }
    }

    fn step(&mut self, t: u64) {
        let rough = t < CALM;
        let now = t - self.started;
        for index in 0..self.workers.len() {
            if !(rough && self.dice.one_in(3)) {
                self.work(index, t, now, rough);
            }
        }
        if !(rough && self.dice.one_in(3)) {
            self.learn(now, rough);
        }
        self.c.machine.tick(ms(now));
        if let Err(violation) = self.c.machine.check() {
            panic!("at {t} ms: {violation}");
        }
    }

    fn work(&mut self, index: usize, t: u64, now: u64, rough: bool) {
        let lost = rough && self.dice.one_in(6);
        let worker = &mut self.workers[index];
        let Some(id) = worker.id else {
            let id = self.c.worker(now, worker.capacity);
            worker.id = (!lost).then_some(id);
            return;
        };
        // Deliveries go to the learner itself; one that is down is tried again.
        if self.learner.id.is_some() {
            let Learner { spool, delivered, committed, .. } = &mut self.learner;
            let first = *committed * self.c.machine.plan().batch.get();
            worker.held.retain(|lease, at| {
                let done = at.is_some_and(|at| at <= t);
                if done && lease.0 >= first && spool.insert(lease.0) {
                    delivered.push(key(*lease));
                }
                !done
            });
        }
        if t.is_multiple_of(500) {
            let leases: Vec<LeaseKey> = worker.held.keys().copied().map(key).collect();
            match self.c.beat(now, id, &leases) {
                Ok(pulse) if !lost => {
                    let revoked = |k: &LeaseKeyOrd| pulse.revoked.contains(&key(*k));
                    worker.held.retain(|k, _| !revoked(k));
                }
                Ok(_) => {}
                Err(_) => worker.id = None,
            }
            return;
        }
        let want = worker.capacity.saturating_sub(worker.held.len() as u64);
        match self.c.lease(now, id, want) {
            Ok(Offer::Grants(Grants { leases: grants, .. })) if !lost => {
                for grant in grants {
                    let at = worker.takes.map(|takes| t + takes);
                    worker.held.insert((grant.key.group.get(), grant.key.epoch.get()), at);
                }
            }
            Ok(_) => {}
            Err(_) => worker.id = None,
        }
    }

    fn learn(&mut self, now: u64, rough: bool) {
        let batch = self.c.machine.plan().batch.get();
        let spooled: Vec<u64> = self.learner.spool.iter().copied().collect();
        let Some(id) = self.learner.id else {
            self.learner.id = Some(self.c.learner(now, self.learner.committed, &spooled));
            return;
        };
        let step = self.learner.committed;
        let groups = step * batch..(step + 1) * batch;
        let full = groups.clone().all(|group| self.learner.spool.contains(&group));
        if full && step < self.c.machine.plan().steps.get() {
            self.learner.consumed.extend(groups.clone());
            self.learner.spool.retain(|group| *group >= groups.end);
            self.learner.committed += 1;
        }
        if rough && self.dice.one_in(4) {
            return;
        }
        let delivered = std::mem::take(&mut self.learner.delivered);
        if self.c.report_by(now, id, self.learner.committed, &spooled, &delivered).is_err() {
            self.learner.id = None;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_fair_environment_completes_the_run(
        seed in any::<u64>(),
        steps in 1u64..40,
        batch in 1u64..9,
        lag in 0u64..3,
    ) {
        let mut sim = Sim::new(seed, plan(steps, batch, lag));
        let mut t = 0;
        while t < CALM && !sim.c.machine.is_complete() {
            sim.chaos(t);
            sim.step(t);
            t += STEP_MS;
        }
        sim.calm();
        // At worst one group is worked on at a time. A lease of the hung worker is waited for once as if nobody's pace
        // were known, and as if somebody had helped in vain; later ones no longer than a late one.
        let enough = CALM + 40_000 + steps * (batch * 1000 + 5_000);
        while t < enough && !sim.c.machine.is_complete() {
            sim.step(t);
            t += STEP_MS;
        }
        let waits = sim.c.machine.snapshot(ms(t)).waits;
        prop_assert!(sim.c.machine.is_complete(), "after {} ms: {:?}", t, waits);
        let all: Vec<u64> = (0..steps * batch).collect();
        prop_assert_eq!(sim.learner.consumed, all, "each group once, in order");
    }
}
