//! What a learner does when something lies: refusals with stable kinds, the purity check, the gap, and
//! a coordinator that forgets.

use crate::support::coordinator::Scripted;
use crate::support::{STEPS, Setup, World, ended, recipe, worker};
use octet_learner::{LearnerConfig, LearnerError};
use octet_proto::error::error_kind;
use octet_proto::learner::{DeliveryOutcome, DeliveryReceipt, ScoredGroup};
use octet_proto::weights::{GetManifestRequest, weights_client};
use octet_runtime::CancellationToken;
use std::num::NonZeroU64;
use std::sync::Arc;

fn setup() -> Setup {
    Setup { recipe: recipe(), threads: None, adapter: None }
}

async fn first_groups(endpoint: &str) -> Vec<ScoredGroup> {
    let model = loop {
        // The learner may not have opened yet.
        if let Some(model) = worker::fetch(endpoint, 0).await {
            break model;
        }
    };
    worker::sample(&model, 0, worker::groups(0))
}

fn outcome(receipt: &DeliveryReceipt) -> String {
    match receipt.outcome.as_ref().unwrap() {
        DeliveryOutcome::Accepted(accepted) => format!("accepted {}", accepted.duplicate),
        DeliveryOutcome::Refused(refused) => refused.kind.clone(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_receipts_and_an_impure_duplicate_ends_the_run() {
    let world = World::new();
    let (scripted, coordinator) = Scripted::start().await;
    let config = world.config("run", &setup(), &coordinator);
    let (endpoint, learner) = world.start(config, CancellationToken::new()).await;
    let groups = first_groups(&endpoint).await;

    let mut wrong = groups.clone();
    wrong[0].policy_version = 1;
    wrong[1].group = 1_000;
    wrong[2].completions[0].logprobs.pop();
    let receipts = worker::deliver(&endpoint, wrong).await.unwrap();
    let mut found: Vec<(u64, String)> = receipts.iter().map(|r| (r.group, outcome(r))).collect();
    found.sort();
    let expected = [(0, "wrong-version"), (2, "malformed"), (1_000, "unknown-group")];
    assert_eq!(found, expected.map(|(group, kind)| (group, kind.to_owned())));

    // The same group twice in one stream, and again later from another worker.
    let twice = vec![groups[0].clone(), groups[0].clone()];
    let receipts = worker::deliver(&endpoint, twice).await.unwrap();
    assert_eq!(
        receipts.iter().map(outcome).collect::<Vec<_>>(),
        ["accepted false", "accepted true"]
    );
    let mut again = groups[0].clone();
    (again.worker, again.lease_epoch) = ("another".to_owned(), 2);
    assert_eq!(
        outcome(&worker::deliver(&endpoint, vec![again]).await.unwrap()[0]),
        "accepted true"
    );
    scripted.progress.subscribe().wait_for(|p| p.spooled.contains(&0)).await.unwrap();

    let mut impure = groups[0].clone();
    impure.completions[1].logprobs[0] -= 1e-6;
    let receipts = worker::deliver(&endpoint, vec![impure]).await.unwrap();
    assert_eq!(outcome(&receipts[0]), "impure-duplicate");
    let error = ended(learner).await.unwrap_err();
    assert_eq!(error.kind(), "impure-duplicate");
    assert!(error.to_string().contains("sample 1: log-probability"), "{error}");
    assert!(scripted.waits.lock().unwrap().contains("groups"), "the wait was seen in status");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_ends_the_run_before_anything_is_committed() {
    let world = World::new();
    let (_, coordinator) = Scripted::start().await;
    let config = world.config("run", &setup(), &coordinator);
    let (endpoint, learner) = world.start(config, CancellationToken::new()).await;
    let mut groups = first_groups(&endpoint).await;
    groups[1].completions[2].logprobs[1] += 0.25;
    worker::deliver(&endpoint, groups).await.unwrap();
    match ended(learner).await.unwrap_err() {
        LearnerError::Gap(gap) => {
            assert_eq!((gap.group.get(), gap.sample, gap.token), (1, 2, 1));
            assert!((gap.gap - 0.25).abs() < 1e-6, "{gap}");
        }
        other => panic!("{other}"),
    }
    let checkpoints = world.run_directory("run").join("checkpoints");
    let committed = std::fs::read_dir(checkpoints).unwrap();
    assert!(
        !committed.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("step-"))
    );
}

/// With a lag the gap has a pass of its own, with the weights that sampled: on one group in `gap_every`, others at each
/// step. Group 3 teaches nothing; 4 and 5 lie, and 4 lies more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_lag_the_gap_is_measured_on_some_groups_of_each_step() {
    for (every, found) in [(1, 4), (16, 5)] {
        let world = World::new();
        let (_, coordinator) = Scripted::start().await;
        let gap_every = NonZeroU64::new(every).unwrap();
        let setup =
            Setup { recipe: LearnerConfig { lag: 1, gap_every, ..recipe() }, ..Setup::default() };
        let config = world.config("run", &setup, &coordinator);
        let (endpoint, learner) = world.start(config, CancellationToken::new()).await;
        let mut groups = first_groups(&endpoint).await;
        let model = worker::fetch(&endpoint, 0).await.unwrap();
        groups.extend(worker::sample(&model, 0, worker::groups(1)));
        for (lying, by) in [(4, 0.5), (5, 0.25)] {
            groups[lying].completions[2].logprobs[1] += by;
        }
        worker::deliver(&endpoint, groups).await.unwrap();
        match ended(learner).await.unwrap_err() {
            LearnerError::Gap(gap) => assert_eq!((gap.group.get(), gap.sample), (found, 2)),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_forgets_is_told_everything_again() {
    let world = World::new();
    let (scripted, coordinator) = Scripted::start().await;
    let forgetting = {
        let scripted = Arc::clone(&scripted);
        async move {
            scripted.progress.subscribe().wait_for(|p| p.committed >= 1).await.unwrap();
            *scripted.answer.lock().unwrap() = Some("unknown-learner");
        }
    };
    let setup = setup();
    let run = world.run_with("run", &setup, (STEPS, STEPS), &scripted, &coordinator);
    let (summary, ()) = tokio::join!(run, forgetting);
    let summary = summary.unwrap();
    assert!(summary.complete);
    let registrations = scripted.registrations.lock().unwrap();
    assert_eq!(registrations.len(), 2);
    assert_eq!((registrations[0].committed_steps, registrations[0].spooled_groups.len()), (0, 0));
    assert!(registrations[1].committed_steps >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_was_superseded_ends() {
    let world = World::new();
    let (scripted, coordinator) = Scripted::start().await;
    *scripted.answer.lock().unwrap() = Some("superseded-learner");
    let config = world.config("run", &setup(), &coordinator);
    let (_, learner) = world.start(config, CancellationToken::new()).await;
    match ended(learner).await.unwrap_err() {
        LearnerError::Refused { kind, .. } => assert_eq!(kind, "superseded-learner"),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_serves_and_stops_without_a_coordinator() {
    let world = World::new();
    let shutdown = CancellationToken::new();
    let config = world.config("run", &setup(), "http://127.0.0.1:9");
    let second = world.config("run", &setup(), "http://127.0.0.1:9");
    let (endpoint, learner) = world.start(config, shutdown.clone()).await;
    first_groups(&endpoint).await;
    // Two learners never write one run.
    let (_, intruder) = world.start(second, CancellationToken::new()).await;
    let error = ended(intruder).await.unwrap_err();
    assert!(error.to_string().contains("held by another process"), "{error}");

    let mut client = weights_client(worker::line(&endpoint));
    let waiting = tokio::spawn(async move {
        client.get_manifest(GetManifestRequest { version: 1, wait_ms: 15_000 }).await
    });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let started = std::time::Instant::now();
    shutdown.cancel();
    let summary = ended(learner).await.unwrap();
    assert!(!summary.complete && summary.weights == world.model);
    assert!(started.elapsed().as_secs() < 5, "a parked request does not hold the shutdown up");
    let status = waiting.await.unwrap().unwrap_err();
    assert_eq!(error_kind(&status), Some("version-unpublished"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_run_is_refused_before_it_starts() {
    let world = World::new();
    let mut config = world.config("run", &setup(), "http://127.0.0.1:9");
    config.shape.longest_prompt = 128;
    let (_, learner) = world.start(config, CancellationToken::new()).await;
    let error = ended(learner).await.unwrap_err();
    assert_eq!(error.kind(), "prompt-too-long");
    assert!(error.to_string().contains("128"), "{error}");
    let mut config = world.config("run", &setup(), "nowhere");
    let (_, learner) = world.start(config.clone(), CancellationToken::new()).await;
    assert_eq!(ended(learner).await.unwrap_err().kind(), "bad-address");
    config.recipe.learning_rate = -1.0;
    let (_, learner) = world.start(config, CancellationToken::new()).await;
    assert_eq!(ended(learner).await.unwrap_err().kind(), "bad-config");
}
