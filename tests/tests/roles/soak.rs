//! One learner and one coordinator feeding many scripted workers on this machine, over real loopback
//! gRPC, for as long as it is told. Run it with
//!
//! ```sh
//! OCTET_SOAK_SECONDS=600 cargo test --release -p octet-tests --test roles soak -- --ignored --nocapture
//! ```
//!
//! A scripted worker does all that a worker does but compute: it leases, renews, fetches every version
//! whole and verifies it, and delivers groups of a usual size whose completions are all worth the same, so
//! that the learner stores, commits and publishes and has nothing to learn. See `docs/scale.md`.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::cluster::{DIGEST, Folder, TOKEN, client, coordinator_of, listen};
use crate::soak_worker::{COMPLETIONS, PROMPT, TOKENS, Tally, example, work};
use candle_core::{DType, Device};
use octet_coordinator::RunPlan;
use octet_learner::learner::{Patience, SPOOL_FILE};
use octet_learner::spool::Spool;
use octet_learner::{Learner, LearnerConfig, RunShape};
use octet_policy::kernel::head::Shaping;
use octet_proto::coordinator::GetStatusRequest;
use octet_proto::{ConfigDigest, GroupIndex};
use octet_runtime::CancellationToken;
use octet_runtime::net::Tcp;

const STEPS: u64 = 1_000_000;
/// Four groups for each worker.
const BATCH_FOR_EACH: u64 = 4;
/// How long it takes until memory is what it will be.
const WARM: u64 = 60;

fn number(variable: &str, usual: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}: expected a number")),
        Err(_) => usual,
    }
}

/// Resident memory of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// Seconds of processor time that this process used, all threads together.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // After the name in brackets; user and system time are fields 14 and 15, in hundredths.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

fn plan(batch: u64) -> RunPlan {
    RunPlan {
        run_id: "soak".into(),
        config_digest: ConfigDigest::new(DIGEST),
        seed: 1,
        steps: NonZeroU64::new(STEPS).unwrap(),
        batch: NonZeroU64::new(batch).unwrap(),
        lag: 1,
        rows: NonZeroU64::MIN,
    }
}

fn learner_config(folder: &Folder, batch: u64, coordinator: &str) -> octet_learner::Config {
    octet_learner::Config {
        run: folder.directory.path().join("run"),
        model: folder.model(),
        dtype: DType::F32,
        device: Device::Cpu,
        recipe: LearnerConfig {
            batch: NonZeroU64::new(batch).unwrap(),
            lag: 1,
            // Nothing is learned, so nothing need be computed.
            check_inert: false,
            ..LearnerConfig::default()
        },
        shape: RunShape {
            steps: NonZeroU64::new(STEPS).unwrap(),
            completions: COMPLETIONS as usize,
            max_tokens: TOKENS,
            longest_prompt: PROMPT,
            shaping: Shaping { temperature: 1.0, top_p: 1.0, top_k: 0 },
            adapter: None,
        },
        config_digest: ConfigDigest::new(DIGEST),
        coordinator: coordinator.to_owned(),
        join_token: TOKEN.to_owned(),
        endpoint: None,
        threads: None,
        patience: Patience::default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs for as long as OCTET_SOAK_SECONDS says"]
async fn one_learner_feeds_many_workers() {
    let seconds = number("OCTET_SOAK_SECONDS", 60);
    let workers = number("OCTET_SOAK_WORKERS", 64);
    let folder = Folder::new(usize::try_from(number("OCTET_SOAK_WIDTH", 4096)).unwrap());
    let batch = BATCH_FOR_EACH * workers;
    std::fs::create_dir(folder.directory.path().join("run")).unwrap();

    let (stop_all, stop_workers) = (CancellationToken::new(), CancellationToken::new());
    let coordinator = coordinator_of(plan(batch), example(), &folder, stop_all.clone()).await;
    let config = learner_config(&folder, batch, &coordinator);
    let learner = tokio::task::spawn_blocking(move || Learner::open(config)).await.unwrap();
    let learner = learner.unwrap();
    let handle = learner.handle();
    let listener = listen().await;
    let at_learner = listener.endpoint();
    let serving = tokio::spawn(learner.serve(
        listener.incoming(),
        at_learner.clone(),
        Arc::new(Tcp),
        stop_all.clone(),
    ));
    let tally = Arc::new(Tally::default());
    let working: Vec<_> = (0..workers)
        .map(|at| {
            let (tally, stop) = (Arc::clone(&tally), stop_workers.clone());
            tokio::spawn(work(
                format!("scripted-{at}"),
                coordinator.clone(),
                at_learner.clone(),
                tally,
                stop,
            ))
        })
        .collect();

    let (began, used) = (Instant::now(), processor_seconds());
    let mut memory = Vec::new();
    while began.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        memory.push(resident());
        assert!(!serving.is_finished(), "the learner has ended");
        assert!(working.iter().all(|worker| !worker.is_finished()), "a worker has ended");
    }
    let (took, used) = (began.elapsed().as_secs_f64(), processor_seconds() - used);
    let groups = tally.delivered.load(Ordering::Relaxed);
    let bytes = handle.weight_bytes_sent();
    let totals = handle.totals();

    stop_workers.cancel();
    for worker in working {
        worker.await.unwrap();
    }
    let status = client(&coordinator).get_status(GetStatusRequest {}).await.unwrap().into_inner();
    stop_all.cancel();
    let summary = serving.await.unwrap().unwrap();

    // No group is lost: what was acknowledged is in the spool, and every step had all of its groups.
    let spool = Spool::read_only(&folder.directory.path().join("run").join(SPOOL_FILE)).unwrap();
    let present = spool.present(GroupIndex(0)..GroupIndex(STEPS * batch)).unwrap();
    let consumed = summary.committed_steps * batch;
    let expected: Vec<u64> = (0..consumed).collect();
    let found: Vec<u64> = present.iter().map(|group| group.get()).collect();
    assert_eq!(found[..expected.len()], expected, "every group of a committed step, once");
    let acknowledged = tally.acknowledged.lock().unwrap();
    let lost: Vec<_> =
        acknowledged.iter().filter(|group| found.binary_search(group).is_err()).collect();
    assert!(lost.is_empty(), "acknowledged and not in the spool: {lost:?}");
    let window = status.open_groups + status.leased_groups + status.spooled_groups;
    assert_eq!(window, 2 * batch, "every group of the steps that are allowed is somewhere");

    let quarter = (memory.len() / 4).max(1);
    let early = median(memory[quarter..(2 * quarter).max(quarter + 1)].to_vec());
    let late = median(memory[memory.len() - quarter..].to_vec());
    let cores = std::thread::available_parallelism().unwrap();
    let share = |seconds: f64| 100.0 * seconds / took;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    eprintln!("{workers} scripted workers for {took:.0} s, batch {batch}, lag 1");
    eprintln!(
        "groups          {:>10.1} /s   {groups} delivered, {} steps",
        groups as f64 / took,
        totals.steps
    );
    eprintln!(
        "weights         {:>10.1} MB/s {} versions of {:.1} MB fetched",
        mb(bytes) / took,
        tally.fetched.load(Ordering::Relaxed),
        mb(tally.version_bytes.load(Ordering::Relaxed))
    );
    eprintln!(
        "memory          {:>10.1} MB   in the second quarter, {:.1} MB in the last",
        mb(early),
        mb(late)
    );
    eprintln!("processors      {:>10.2} of {cores} used by this process", used / took);
    eprintln!(
        "learner         {:>10.0} %    of the time waiting for groups, {:.0} % committing, {:.0} % stepping",
        share(totals.wait_seconds),
        share(totals.commit_seconds),
        share(totals.learn_seconds)
    );
    eprintln!("workers         {}", tally.shares(took * workers as f64));
    assert!(groups > 0 && totals.steps > 1);
    if seconds < WARM {
        eprintln!("memory is not judged within the first {WARM} s");
    } else {
        assert!(
            late <= early + early / 10 + (16 << 20),
            "memory grew from {early} to {late} bytes"
        );
    }
}
