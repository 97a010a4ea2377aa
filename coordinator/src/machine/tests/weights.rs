//! Who fetches a version from whom, and the time until everybody has it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use octet_proto::{ConfigDigest, PolicyVersion, WorkerId};

use super::{Coordinator, DIGEST, ms, plan};
use crate::machine::{Beat, LearnerId, LearnerReport, Offer, Published, Pulse, WorkerJoin};

const LEARNER: &str = "http://127.0.0.1:2";

fn join(c: &mut Coordinator, name: &str, serves: bool) -> WorkerId {
    let endpoint = if serves { format!("http://{name}:1") } else { String::new() };
    let join = WorkerJoin {
        name: name.to_owned(),
        config_digest: ConfigDigest::new(DIGEST),
        capacity: 1,
        weights_endpoint: endpoint,
    };
    c.machine.register_worker(ms(0), join, &mut c.records).unwrap()
}

fn publish(c: &mut Coordinator, now: u64, learner: LearnerId, committed: u64, versions: &[u64]) {
    let published = versions.iter().map(|version| Published {
        version: PolicyVersion(*version),
        digest: format!("digest-{version}"),
        bytes: 1000,
    });
    let published = published.collect();
    let report = LearnerReport { committed, published, ..LearnerReport::default() };
    c.machine.report(ms(now), learner, report).unwrap();
}

fn beat(c: &mut Coordinator, now: u64, worker: WorkerId, versions: &[u64]) -> Pulse {
    let versions = versions.iter().copied().map(PolicyVersion).collect();
    c.machine.heartbeat(ms(now), worker, Beat { versions, ..Beat::default() }).unwrap()
}

#[test]
fn the_learner_sends_a_new_version_twice_and_the_workers_the_rest() {
    let mut c = Coordinator::new(plan(4, 1, 0));
    let learner = c.learner(0, 1, &[]);
    let workers: Vec<_> = (0..8).map(|at| join(&mut c, &format!("w{at}"), true)).collect();
    publish(&mut c, 1, learner, 1, &[1]);
    let mut from: BTreeMap<String, usize> = BTreeMap::new();
    for worker in &workers {
        let sources = beat(&mut c, 2, *worker, &[0]).sources;
        assert_eq!(sources.len(), 1);
        assert_eq!(
            (sources[0].version, sources[0].digest.as_str()),
            (PolicyVersion(1), "digest-1")
        );
        assert_eq!(sources[0].endpoints.last().map(String::as_str), Some(LEARNER));
        *from.entry(sources[0].endpoints[0].clone()).or_default() += 1;
    }
    assert_eq!(from.remove(LEARNER), Some(2));
    assert!(from.len() >= 3 && from.values().all(|count| *count <= 2), "{from:?}");
}

#[test]
fn holders_are_named_before_the_learner_and_nobody_is_named_itself() {
    let mut c = Coordinator::new(plan(4, 1, 0));
    let learner = c.learner(0, 1, &[]);
    let workers: Vec<_> = (0..8).map(|at| join(&mut c, &format!("w{at}"), true)).collect();
    let mute = join(&mut c, "mute", false);
    publish(&mut c, 1, learner, 1, &[1]);
    for holder in &workers[..6] {
        beat(&mut c, 2, *holder, &[1]);
    }
    beat(&mut c, 2, mute, &[1]);
    let sources = beat(&mut c, 3, workers[6], &[0]).sources.remove(0).endpoints;
    let (learner_at, holders) = sources.split_last().unwrap();
    assert_eq!(learner_at, LEARNER);
    assert!((1..=4).contains(&holders.len()), "{sources:?}");
    for holder in holders {
        assert!((0..6).any(|at| *holder == format!("http://w{at}:1")), "{sources:?}");
    }
    assert!(beat(&mut c, 3, workers[0], &[1]).sources.is_empty(), "it has the version");
    // A worker whose lease needs the version is told with the lease, before any heartbeat.
    match c.lease(4, workers[7], 1).unwrap() {
        Offer::Grants(grants) => assert_eq!(grants.sources[0].version, PolicyVersion(1)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_learner_or_for_a_retired_version_nobody_is_named() {
    let mut c = Coordinator::new(plan(4, 1, 0));
    let early = join(&mut c, "early", true);
    assert!(beat(&mut c, 0, early, &[]).sources.is_empty());
    let learner = c.learner(1, 1, &[]);
    publish(&mut c, 1, learner, 1, &[1]);
    publish(&mut c, 2, learner, 2, &[2]);
    let sources = beat(&mut c, 3, early, &[]).sources;
    assert_eq!(sources.iter().map(|s| s.version.get()).collect::<Vec<_>>(), [2]);
}

#[test]
fn the_time_to_the_last_worker_is_measured_from_the_step_on() {
    let mut c = Coordinator::new(plan(4, 1, 0));
    let learner = c.learner(0, 1, &[]);
    let (a, b) = (join(&mut c, "a", true), join(&mut c, "b", true));
    publish(&mut c, 100, learner, 1, &[1]);
    beat(&mut c, 150, a, &[0, 1]);
    beat(&mut c, 160, b, &[0]);
    // Later reports of the same version do not begin anew.
    publish(&mut c, 200, learner, 1, &[1]);
    let spread = c.machine.snapshot(ms(300)).weights.remove(0);
    assert_eq!((spread.holders, spread.workers, spread.took), (1, 2, None));
    assert_eq!(spread.since_ago, Duration::from_millis(200));
    beat(&mut c, 430, b, &[1]);
    // Who joins later does not change what was measured.
    join(&mut c, "late", true);
    let spread = c.machine.snapshot(ms(900)).weights.remove(0);
    assert_eq!((spread.holders, spread.workers), (2, 3));
    assert_eq!(spread.took, Some(Duration::from_millis(330)));
    assert_eq!(spread.published.bytes, 1000);
    let all = c.machine.snapshot(ms(900)).spreading;
    assert_eq!((all.versions, all.time, all.bytes), (1, Duration::from_millis(330), 1000));
}
