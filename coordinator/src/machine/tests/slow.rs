//! Workers that are slow, new, or boast: what they are given, who helps them, and that a step does not
//! wait for them.

use std::collections::{BTreeMap, BTreeSet};

use octet_proto::{GroupIndex, PolicyVersion, WorkerId};

use super::*;

/// A learner that says nothing but that it lives.
fn alive(c: &mut Coordinator, now: u64, learner: LearnerId) {
    c.report(now, learner, 0, &[]).unwrap();
}

fn view(c: &mut Coordinator, now: u64, id: WorkerId) -> WorkerView {
    let workers = c.machine.snapshot(ms(now)).workers;
    workers.into_iter().find(|worker| worker.id == id).unwrap()
}

#[test]
fn an_idle_worker_helps_a_late_one_and_either_may_be_first() {
    let mut c = Coordinator::new(plan(2, 2, 0));
    let (slow, idle) = (c.worker(0, 2), c.worker(0, 4));
    assert!(c.grants(0, slow, 2).is_empty() && c.grants(0, idle, 2).is_empty());
    let learner = c.learner(0, 0, &[]);
    let held = c.grants(0, slow, 2);
    let quick = c.grants(10, idle, 2);
    assert_eq!((held.len(), quick.len()), (1, 1), "each gets its part");
    c.report(100, learner, 0, &[1]).unwrap();
    for now in [100, 300, 499] {
        c.beat(now, slow, &keys(&held)).unwrap();
        assert!(c.leased(now, idle, 2).is_empty(), "too early to help at {now}");
    }
    let help = c.grants(500, idle, 2);
    assert_eq!(help.len(), 1);
    assert_eq!((help[0].key.group, help[0].version), (GroupIndex(0), PolicyVersion(0)));
    assert!(help[0].key.epoch > held[0].key.epoch);
    assert!(c.leased(501, idle, 2).is_empty(), "one lease of a group to a worker");
    let third = c.worker(900, 4);
    assert!(c.leased(900, third, 2).is_empty(), "the second one is not late");
    for now in [1000, 2000] {
        alive(&mut c, now, learner);
        assert!(c.beat(now, slow, &keys(&held)).unwrap().revoked.is_empty(), "both stay valid");
        assert!(c.beat(now, idle, &keys(&help)).unwrap().revoked.is_empty());
    }
    let more = c.grants(2000, third, 2);
    assert_eq!(more.len(), 1, "both are late by now");
    let delivered = [help[0].key];
    c.report_by(2100, learner, 0, &[0], &delivered).unwrap();
    let confirmed = [slow, idle, third].map(|id| view(&mut c, 2100, id).delivered_groups);
    assert_eq!(confirmed, [0, 2, 0], "by whose lease it came");
    for (worker, leases) in [(slow, keys(&held)), (idle, keys(&help)), (third, keys(&more))] {
        assert_eq!(c.beat(2101, worker, &leases).unwrap().revoked, leases);
    }
}

#[test]
fn nobody_helps_while_the_learner_is_away_and_nobody_is_called_slow_for_it() {
    let mut c = Coordinator::new(plan(2, 2, 0));
    let (first, second) = (c.worker(0, 2), c.worker(0, 2));
    assert!(c.grants(0, first, 2).is_empty() && c.grants(0, second, 2).is_empty());
    let learner = c.learner(0, 0, &[]);
    let held = [c.grants(0, first, 1), c.grants(0, second, 1)];
    c.report_by(200, learner, 0, &[1], &[held[1][0].key]).unwrap();
    for now in (500..=9500).step_by(500) {
        c.beat(now, first, &keys(&held[0])).unwrap();
        if now >= 2200 {
            assert!(c.leased(now, second, 1).is_empty(), "at {now}");
        }
    }
    let learner = c.learner(9600, 0, &[1]);
    assert!(c.leased(9601, second, 1).is_empty(), "its time begins anew");
    c.report_by(9700, learner, 0, &[0], &[held[0][0].key]).unwrap();
    assert_eq!(view(&mut c, 9700, first).delivered_groups, 1);
    assert_eq!(view(&mut c, 9700, first).groups_per_second, None);
}

#[test]
fn a_new_worker_starts_small_whatever_it_says_it_can_do() {
    let mut c = Coordinator::new(plan(1, 64, 0));
    let (boaster, other) = (c.worker(0, 1000), c.worker(0, 4));
    assert!(c.grants(0, boaster, 1).is_empty() && c.grants(0, other, 1).is_empty());
    let learner = c.learner(0, 0, &[]);
    let mut held = c.grants(0, boaster, 1000);
    assert_eq!(held.len(), 2);
    match c.lease(0, boaster, 998).unwrap() {
        Offer::Nothing(why) => assert_eq!(why.name, "room"),
        offer => panic!("{offer:?}"),
    }
    // Every group that it delivers is worth one more.
    for (round, now) in [(4, 100), (8, 200), (16, 300)] {
        let groups: Vec<u64> = held.iter().map(|grant| grant.key.group.get()).collect();
        c.report_by(now, learner, 0, &groups, &keys(&held)).unwrap();
        c.lease(now, other, 0).unwrap();
        held = c.grants(now, boaster, 1000);
        assert_eq!((held.len(), view(&mut c, now, boaster).allowance), (round, round as u64));
    }
    // Alone it may have as much as it can hold.
    c.machine.release(ms(400), other, &[], true).unwrap();
    assert_eq!(c.grants(1000, boaster, 1000).len(), 64 - 2 - 4 - 8 - 16);
}

#[test]
fn what_a_dead_worker_held_goes_to_others_at_once_and_not_to_its_own_question() {
    let mut c = Coordinator::new(plan(1, 6, 0));
    let workers = [0, 1, 2].map(|_| c.worker(0, 4));
    for id in workers {
        assert!(c.grants(0, id, 4).is_empty());
    }
    let learner = c.learner(0, 0, &[]);
    let held = workers.map(|id| c.grants(0, id, 4));
    assert_eq!(held.each_ref().map(Vec::len), [2, 2, 2], "none is trusted with more yet");
    for now in [400, 900, 1400, 1900, 2400] {
        alive(&mut c, now, learner);
        for (id, held) in workers.iter().zip(&held).skip(1) {
            c.beat(now, *id, &keys(held)).unwrap();
        }
        // The dead one's question is still there; it was last heard of at 0.
        let offer = c.machine.offer(ms(now), workers[0], 2, &mut c.records).unwrap();
        assert!(matches!(offer, Offer::Nothing(_)), "at {now}: {offer:?}");
    }
    let again: Vec<u64> = [1, 2].iter().flat_map(|at| c.leased(2400, workers[*at], 2)).collect();
    assert_eq!(again, [0, 1]);
    c.machine.check().unwrap();
}

/// A worker that samples as many groups at once as it says, each in the same time.
struct Scripted {
    id: WorkerId,
    capacity: u64,
    takes: u64,
    /// Leases, and when each will be delivered.
    held: BTreeMap<(u64, u64), u64>,
}

/// How long learning and committing a step takes.
const LEARNS: u64 = 200;
const TICK: u64 = 10;

/// What a run came to.
struct Outcome {
    /// Milliseconds that each step took.
    took: Vec<u64>,
    /// Leases that were given out.
    leases: u64,
}

/// Runs workers that are given by their capacity and by the time that they take for a group, which
/// differs from group to group by `spread` parts of a hundred up and down.
fn simulate(plan: RunPlan, workers: &[(u64, u64)], spread: u64) -> Outcome {
    let (steps, batch) = (plan.steps.get(), plan.batch.get());
    let mut c = Coordinator::new(plan);
    let mut workers: Vec<Scripted> = workers
        .iter()
        .map(|&(capacity, takes)| {
            let id = c.worker(0, capacity);
            Scripted { id, capacity, takes, held: BTreeMap::new() }
        })
        .collect();
    // All are there before there is anything to do.
    for worker in &workers {
        assert!(c.leased(0, worker.id, worker.capacity).is_empty());
    }
    let learner = c.learner(0, 0, &[]);
    let (mut committed, mut spool) = (0, BTreeSet::new());
    let (mut learned_at, mut took, mut began, mut leases) = (None, Vec::new(), 0, 0);
    let factor = |group: u64| 100 - spread + group.wrapping_mul(7919) % 101 * spread / 50;
    let mut t = 0;
    while committed < steps {
        t += TICK;
        assert!(t < 3_600_000, "the run does not end");
        let mut news = Vec::new();
        for (index, worker) in workers.iter_mut().enumerate() {
            worker.held.retain(|&(group, epoch), done| {
                if *done <= t && group >= committed * batch && spool.insert(group) {
                    news.push(LeaseKey { group: group.into(), epoch: epoch.into() });
                }
                *done > t
            });
            if (t + 40 * index as u64).is_multiple_of(500) {
                let leases: Vec<LeaseKey> = worker
                    .held
                    .keys()
                    .map(|&(group, epoch)| LeaseKey { group: group.into(), epoch: epoch.into() })
                    .collect();
                let revoked = c.beat(t, worker.id, &leases).unwrap().revoked;
                worker.held.retain(|&(group, epoch), _| {
                    !revoked.contains(&LeaseKey { group: group.into(), epoch: epoch.into() })
                });
            }
            let want = worker.capacity - worker.held.len() as u64;
            if want > 0 {
                for grant in c.grants(t, worker.id, want) {
                    let key = (grant.key.group.get(), grant.key.epoch.get());
                    leases += 1;
                    worker.held.insert(key, t + worker.takes * factor(key.0) / 100);
                }
                assert!(worker.held.len() as u64 <= worker.capacity);
            }
        }
        let groups = committed * batch..(committed + 1) * batch;
        if learned_at.is_none() && groups.clone().all(|group| spool.contains(&group)) {
            learned_at = Some(t + LEARNS);
        }
        if learned_at.is_some_and(|at| at <= t) {
            (committed, learned_at) = (committed + 1, None);
            spool.retain(|group| *group >= groups.end);
            took.push(t - began);
            began = t;
        }
        if !news.is_empty() || t.is_multiple_of(500) || began == t {
            let spooled: Vec<u64> = spool.iter().copied().collect();
            c.report_by(t, learner, committed, &spooled, &news).unwrap();
        }
        c.machine.check().unwrap();
    }
    Outcome { took, leases }
}

#[test]
fn a_worker_twenty_times_slower_does_not_hold_up_a_step() {
    // Name, batch, and the workers: width and time of a group in milliseconds.
    type Shape = (&'static str, u64, Vec<(u64, u64)>);
    let shapes: [Shape; 4] = [
        ("four of width 4, 32 groups", 32, vec![(4, 1000); 4]),
        ("two of width 4, 8 groups", 8, vec![(4, 1000); 2]),
        ("eight of width 8, 64 groups of 10 s", 64, vec![(8, 10_000); 8]),
        ("three of width 2, 24 quick groups", 24, vec![(2, 300); 3]),
    ];
    for (name, batch, quick) in shapes {
        for lag in [0, 1] {
            let without = simulate(plan(40, batch, lag), &quick, 0).took;
            // One as wide as the others and one that boasts; one that asks first and one that asks last.
            for (width, at) in [(quick[0].0, 0), (64, 0), (64, quick.len())] {
                let mut all = quick.clone();
                all.insert(at, (width, 20 * quick[0].1));
                let with = simulate(plan(40, batch, lag), &all, 0).took;
                let ratios = with.iter().zip(&without).map(|(a, b)| *a as f64 / *b as f64);
                let worst = ratios.fold(0.0, f64::max);
                let mean = with.iter().sum::<u64>() as f64 / without.iter().sum::<u64>() as f64;
                eprintln!(
                    "{name}, lag {lag}, beside one of width {width}: steps take {mean:.2} times as \
                     long, the worst one {worst:.2} times"
                );
                assert!(mean < 1.1, "{name}, lag {lag}: {mean}");
                assert!(worst < 2.0, "{name}, lag {lag}: {worst}");
            }
        }
    }
}

#[test]
fn equals_do_not_do_each_others_work() {
    for (workers, batch, lag) in [(2, 8, 0), (4, 32, 0), (4, 32, 1), (16, 64, 1)] {
        let run = plan(40, batch, lag);
        let groups = run.total_groups();
        let done = simulate(run, &vec![(4, 1000); workers], 50);
        let again = done.leases as f64 / groups as f64 - 1.0;
        eprintln!("{workers} workers, {batch} groups, lag {lag}: {again:.3} sampled twice");
        assert!(again < 0.05, "{workers} workers, {batch} groups, lag {lag}: {again}");
    }
}
