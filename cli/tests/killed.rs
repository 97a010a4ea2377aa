//! Each role killed in the middle of a run and started again: the same weights, after a pause that is measured.

#![allow(clippy::unwrap_used)]

mod common;

use common::cluster::{Cluster, in_one_process, short_keys};
use serde_json::Value;
use std::time::{Duration, Instant};

fn committed(status: &Value) -> u64 {
    status["committed_steps"].as_u64().unwrap()
}

/// Waits until the run is one step further than now, so that a kill comes in the middle of its work.
fn in_the_middle(cluster: &Cluster) -> u64 {
    let mut now = 0;
    cluster.until("an answer", |_| true);
    if let Some(status) = cluster.status() {
        now = committed(&status);
    }
    cluster.until("the next step", |status| committed(status) > now);
    committed(&cluster.status().unwrap())
}

#[test]
fn a_killed_role_comes_back_and_changes_no_bit() {
    let home = tempfile::tempdir().unwrap();
    let keys = short_keys(&["run.steps=24"]);
    let expected = in_one_process(home.path(), &keys);
    let mut cluster = Cluster::start(home.path(), &keys, 2);
    let told = |role: &str, what: &str, took: Duration| {
        eprintln!("killed {role}: {what} after {:.2} s", took.as_secs_f64());
    };

    // A worker: its leases run out, and the other one has them.
    in_the_middle(&cluster);
    let name_of =
        |status: &Value, at: usize| status["workers"][at]["name"].as_str().unwrap().to_owned();
    let lost = cluster.workers[0].name().to_owned();
    let holds = |status: &Value, lost: &str| {
        let all = status["workers"].as_array().unwrap();
        all.iter().filter(|w| w["name"] == lost).any(|w| w["leases"].as_u64() > Some(0))
    };
    cluster.until("the worker to hold a lease", |status| holds(status, &lost));
    let begin = Instant::now();
    cluster.workers[0].kill();
    cluster.until("its leases to run out", |status| !holds(status, &lost));
    told("rollout-worker", "its groups are open", begin.elapsed());
    cluster.until("its groups to be leased again", |status| status["groups"]["open"] == 0);
    told("rollout-worker", "its groups are leased again", begin.elapsed());
    let begin = Instant::now();
    cluster.workers[0].again(home.path());
    cluster.until("the worker to work again", |status| {
        (0..status["workers"].as_array().unwrap().len()).any(|at| {
            let name = name_of(status, at);
            name != lost && name != cluster.workers[1].name() && holds(status, &name)
        })
    });
    told("rollout-worker", "started again, it holds leases", begin.elapsed());

    // The others: the run moves again.
    for role in ["learner", "coordinator", "reward-service"] {
        let before = in_the_middle(&cluster);
        let node = match role {
            "learner" => &mut cluster.learner,
            "coordinator" => &mut cluster.coordinator,
            _ => &mut cluster.reward,
        };
        let begin = Instant::now();
        node.kill();
        node.again(home.path());
        cluster.until("the coordinator to answer", |_| true);
        told(role, "started again, the coordinator answers", begin.elapsed());
        // The coordinator knows nothing until the learner has told it.
        cluster.until("the next step", |status| committed(status) > before);
        told(role, "started again, the next step is committed", begin.elapsed());
    }
    assert_eq!(cluster.finish(), expected);
}
