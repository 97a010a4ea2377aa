//! Twenty runs, each with every role killed at a moment of its own: the same weights every time.
//!
//! Slow, so it runs only when it is asked for: `cargo test --release -p octet --test chaos -- --ignored --nocapture`.
//! `OCTET_CHAOS_SEED` repeats the moments of another time, `OCTET_CHAOS_ROUNDS` runs more or fewer.

#![allow(clippy::unwrap_used)]

mod common;

use common::cluster::{Cluster, Node, PATIENCE, in_one_process, short_keys};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Numbers from a seed (SplitMix64).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn node(cluster: &mut Cluster, role: usize) -> &mut Node {
    match role {
        0 => &mut cluster.coordinator,
        1 => &mut cluster.learner,
        2 => &mut cluster.reward,
        _ => &mut cluster.workers[role - 3],
    }
}

/// One run with a kill of each of the five processes; how many of them came before its end.
fn round(expected: &str, keys: &[String], seconds: f64, draw: &mut Draw) -> usize {
    let home = tempfile::tempdir().unwrap();
    let patience = ["--coordinator-patience".to_owned(), "60".into()];
    let mut cluster = Cluster::start_with(home.path(), keys, 2, &patience, &["--linger", "60"]);
    let begin = Instant::now();
    let mut moments: Vec<(f64, f64, usize)> =
        (0..5).map(|role| (draw.share() * seconds, draw.share() * 2.0, role)).collect();
    moments.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut killed, mut down): (usize, Vec<(Instant, usize)>) = (0, Vec::new());
    while !moments.is_empty() || !down.is_empty() {
        std::thread::sleep(Duration::from_millis(5));
        if let Some((moment, pause, role)) = moments.first().copied()
            && begin.elapsed().as_secs_f64() >= moment
        {
            moments.remove(0);
            let node = node(&mut cluster, role);
            if node.is_running() {
                node.kill();
                killed += 1;
                down.push((Instant::now() + Duration::from_secs_f64(pause), role));
            }
        }
        if let Some(at) = down.iter().position(|(until, _)| *until <= Instant::now()) {
            let (_, role) = down.remove(at);
            node(&mut cluster, role).again(home.path());
        }
    }
    cluster.learner.succeeds();
    cluster.coordinator.succeeds();
    // One that was started again after the coordinator had gone home finds nobody, and says so.
    for worker in &mut cluster.workers {
        let status = worker.end(PATIENCE);
        let story = worker.story();
        assert!(status.success() || story.contains("for coordinator"), "{story}");
    }
    assert_eq!(cluster.digest(), expected, "{}", cluster.story());
    killed
}

#[test]
#[ignore = "takes many minutes"]
fn whatever_is_killed_whenever_the_weights_are_the_same() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = variable("OCTET_CHAOS_SEED").unwrap_or(now);
    let rounds = variable("OCTET_CHAOS_ROUNDS").unwrap_or(20);
    eprintln!("chaos: OCTET_CHAOS_SEED={seed}, {rounds} rounds");
    let keys = short_keys(&["run.steps=8"]);
    let home = tempfile::tempdir().unwrap();
    let expected = in_one_process(home.path(), &keys);
    let undisturbed = Cluster::start(home.path(), &keys, 2);
    let begin = Instant::now();
    assert_eq!(undisturbed.finish(), expected);
    let seconds = begin.elapsed().as_secs_f64();
    for number in 1..=rounds {
        let begin = Instant::now();
        let mut draw = Draw(seed.wrapping_add(number));
        let killed = round(&expected, &keys, seconds, &mut draw);
        let took = begin.elapsed().as_secs_f64();
        eprintln!("chaos: round {number} of {rounds}, {killed} of 5 processes killed, {took:.0} s");
    }
}
