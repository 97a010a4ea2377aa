//! A worker against scripted peers over real gRPC on loopback ports, with a tiny random model.

use std::num::NonZeroU32;
use std::time::Duration;

use octet_policy::sampler::Finish;
use octet_proto::coordinator::LeaseRef;
use octet_proto::learner::{FinishReason, ScoredGroup};
use octet_rollout_worker::weights::WeightsError;
use octet_rollout_worker::{OnRewardFailure, WorkerError};

use crate::support::model::{COMPLETIONS, example};
use crate::support::reward::worth;
use crate::support::{Running, World, until};

fn lease(group: u64) -> LeaseRef {
    LeaseRef { group, epoch: 100 + group }
}

/// The group is, to the bit, what its version samples, each completion with the reward of its text.
fn assert_true(world: &World, group: &ScoredGroup) {
    let expected = world.model.sample(group.group, group.policy_version);
    assert_eq!(group.completions.len(), expected.len());
    for (found, expected) in group.completions.iter().zip(&expected) {
        assert_eq!((found.sample, &found.tokens), (expected.sample, &expected.tokens));
        assert_eq!(found.logprobs, expected.logprobs);
        let finish = match expected.finish {
            Finish::Stop => FinishReason::Stop,
            Finish::Length => FinishReason::Length,
        };
        assert_eq!(found.finish(), finish);
        let text = world.model.policy.completion_text(&expected.tokens).unwrap();
        assert_eq!((&found.verdict[..], &found.detail), ("scripted", &text));
        assert_eq!(found.reward, worth(group.group, &text));
    }
    assert_eq!(group.example_json, example(group.group));
    assert_eq!((group.worker.as_str(), group.reward_revision), ("worker-a", 1));
    assert_eq!(group.lease_epoch, 100 + group.group);
}

/// The worker ends by itself with group 0 delivered, which it sampled once.
async fn ends_having_sampled_once(world: &World, running: Running) {
    let handle = running.handle.clone();
    running.end().await.unwrap();
    assert_true(world, &world.delivered(0).unwrap());
    assert_eq!(handle.totals().groups_sampled, 1, "it was not sampled again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leased_groups_are_sampled_scored_and_delivered() {
    let world = World::new(1).await;
    world.offer(0, 0);
    world.offer(1, 0);
    let running = world.start();
    let handle = running.handle.clone();
    running.end().await.unwrap();
    for group in 0..2 {
        assert_true(&world, &world.delivered(group).unwrap());
    }
    assert_eq!(world.learner.received().len(), 2, "each is delivered once");
    assert!(world.learner.book.lock().unwrap().asked.is_empty(), "version 0 came from the disk");
    let totals = handle.totals();
    let sampled: usize =
        (0..2).flat_map(|group| world.model.sample(group, 0)).map(|c| c.tokens.len()).sum();
    assert_eq!(totals.sampled_tokens, sampled as u64);
    assert_eq!((totals.groups_delivered, totals.reward_failures), (2, 0));
    assert!(totals.busy > Duration::ZERO && totals.gflops() > 0.0);
    assert!(handle.waits().is_empty(), "nothing is waited for any more: {:?}", handle.waits());
    let book = world.coordinator.book.lock().unwrap();
    assert_eq!((book.registered, book.left), (1, 1));
    assert!(book.released.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_are_resumed_where_they_were_cut_and_fetched_again_where_they_were_wrong() {
    let world = World::new(1).await;
    world.learner.publish(&world.model, 1);
    let manifest = world.learner.manifest(1);
    let first = manifest.tensors[0].bytes;
    // The first stream breaks inside of the first tensor, the second has a wrong byte in the next.
    let (cut, wrong) = (2_500, first as usize + 10);
    {
        let mut book = world.learner.book.lock().unwrap();
        book.cut_at = Some(cut);
        book.corrupt = Some((wrong, 2));
    }
    world.offer(0, 1);
    let running = world.start();
    let handle = running.handle.clone();
    running.end().await.unwrap();
    assert_true(&world, &world.delivered(0).unwrap());
    assert_eq!(world.learner.book.lock().unwrap().asked, [0, 2_000, first]);
    assert_eq!((handle.totals().transfers, handle.totals().damaged_transfers), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_that_are_always_wrong_are_a_named_error() {
    let world = World::new(1).await;
    world.learner.publish(&world.model, 1);
    world.learner.book.lock().unwrap().corrupt = Some((10, u32::MAX));
    world.offer(0, 1);
    let error = world.start().end().await.unwrap_err();
    let WorkerError::Weights(WeightsError::Damaged { times, .. }) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*times, world.config.limits.transfer_attempts.get());
    let text = error.to_string();
    assert!(text.contains("version 1") && text.contains("model.embed_tokens.weight"), "{text}");
    assert_eq!(world.coordinator.book.lock().unwrap().left, 1, "its leases went back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_learner_did_not_confirm_is_delivered_again() {
    let world = World::new(1).await;
    world.learner.book.lock().unwrap().cut_deliveries = 2;
    world.offer(0, 0);
    world.offer(1, 0);
    world.start().end().await.unwrap();
    let received = world.learner.received();
    assert!(received.len() >= 4, "two lost, two confirmed: {}", received.len());
    for group in &received {
        assert_true(&world, group);
    }
    assert_eq!(world.learner.accepted().into_iter().collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_broken_reward_stream_left_is_scored_elsewhere() {
    let world = World::new(2).await;
    for reward in &world.rewards {
        reward.book.lock().unwrap().break_after = Some(3);
    }
    world.offer(0, 0);
    world.offer(1, 0);
    let running = world.start();
    let handle = running.handle.clone();
    running.end().await.unwrap();
    for group in 0..2 {
        assert_true(&world, &world.delivered(group).unwrap());
    }
    let asked: u32 = world.rewards.iter().map(|reward| reward.asked()).sum();
    assert!(asked > 2 * COMPLETIONS, "some were asked twice: {asked}");
    assert!(world.rewards.iter().all(|reward| reward.asked() > 0), "both replicas had work");
    assert_eq!(handle.totals().reward_failures, 0, "a broken stream is nobody's failure");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_that_may_pass_are_tried_again() {
    let world = World::new(1).await;
    world.rewards[0].book.lock().unwrap().fail_first = 2;
    world.offer(0, 0);
    let running = world.start();
    let handle = running.handle.clone();
    running.end().await.unwrap();
    assert_true(&world, &world.delivered(0).unwrap());
    assert_eq!(world.rewards[0].asked(), 3 * COMPLETIONS);
    let totals = handle.totals();
    assert_eq!((totals.reward_retries, totals.reward_failures), (u64::from(2 * COMPLETIONS), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_without_a_reward_counts_as_zero_and_says_so() {
    let world = World::new(1).await;
    world.rewards[0].book.lock().unwrap().fail_sample = Some(5);
    world.offer(0, 0);
    let running = world.start();
    let handle = running.handle.clone();
    running.end().await.unwrap();
    let group = world.delivered(0).unwrap();
    let failed = &group.completions[5];
    assert_eq!((failed.reward, failed.verdict.as_str()), (0.0, "reward-failed:threw"));
    assert_eq!(failed.detail, "as scripted");
    assert!(group.completions.iter().all(|c| c.sample == 5 || c.verdict == "scripted"));
    assert_eq!(handle.totals().reward_failures, 1);
    assert_eq!(world.rewards[0].asked(), COMPLETIONS, "it was not asked for again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_without_a_reward_ends_the_worker_where_that_is_wanted() {
    let mut world = World::new(1).await;
    world.config.on_reward_failure = OnRewardFailure::Fail;
    world.rewards[0].book.lock().unwrap().fail_sample = Some(5);
    world.offer(0, 0);
    let error = world.start().end().await.unwrap_err();
    assert!(matches!(error, WorkerError::Reward { sample: 5, .. }), "{error:?}");
    assert!(world.learner.received().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stops_finishes_what_it_can() {
    let mut world = World::new(1).await;
    // The replica hangs at first, and is dialled anew until it answers.
    world.config.limits.score = Duration::from_millis(200);
    world.config.limits.score_attempts = NonZeroU32::MAX;
    world.coordinator.endless();
    world.rewards[0].book.lock().unwrap().mute = true;
    world.offer(0, 0);
    let running = world.start();
    until("all is sampled", || running.waits_for("reward scores")).await;
    running.shutdown.cancel();
    world.offer(1, 0);
    until("a heartbeat names the wait and renews the lease", || {
        let book = world.coordinator.book.lock().unwrap();
        let last = book.beats.last().unwrap();
        last.waits.iter().any(|wait| wait.name == "reward scores") && last.leases == [lease(0)]
    })
    .await;
    assert!(!running.ended.is_finished());
    world.rewards[0].book.lock().unwrap().mute = false;
    running.end().await.unwrap();
    assert_true(&world, &world.delivered(0).unwrap());
    assert!(world.delivered(1).is_none(), "the new group is for others");
    assert_eq!(world.coordinator.book.lock().unwrap().left, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_finished_in_time_goes_back() {
    let mut world = World::new(1).await;
    world.config.drain = Duration::from_millis(300);
    world.coordinator.endless();
    world.rewards[0].book.lock().unwrap().mute = true;
    world.offer(0, 0);
    // A version that is never published: this one is released at once.
    world.offer(1, 9);
    let running = world.start();
    until("one is sampled, one waits for weights", || {
        running.waits_for("reward scores") && running.waits_for("weights")
    })
    .await;
    running.stop().await.unwrap();
    let book = world.coordinator.book.lock().unwrap();
    assert_eq!(book.released, [lease(1)]);
    assert_eq!(book.left, 1, "leaving releases the rest");
    assert!(world.learner.received().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_forgot_the_worker_gets_its_leases_named_again() {
    let mut world = World::new(1).await;
    // The learner is silent at first; a delivery without a receipt is sent again.
    world.config.limits.receipt = Duration::from_millis(200);
    world.learner.book.lock().unwrap().mute = true;
    world.offer(0, 0);
    let running = world.start();
    until("delivered", || running.waits_for("delivery receipt")).await;
    world.coordinator.forget();
    until("registered again, with its lease", || {
        let book = world.coordinator.book.lock().unwrap();
        book.beats.iter().any(|beat| beat.worker_id == 2 && beat.leases == [lease(0)])
    })
    .await;
    world.learner.book.lock().unwrap().mute = false;
    ends_having_sampled_once(&world, running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coordinator_and_learner_may_go_and_come_back() {
    let mut world = World::new(1).await;
    world.learner.book.lock().unwrap().mute = true;
    world.offer(0, 0);
    let running = world.start();
    until("delivered once", || !world.learner.received().is_empty()).await;
    let places = world.take_down().await;
    until("the coordinator is missed", || running.waits_for("coordinator")).await;
    assert!(!running.ended.is_finished());
    world.learner.book.lock().unwrap().mute = false;
    world.bring_back(places).await;
    ends_having_sampled_once(&world, running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_lease_is_worked_on_no_more() {
    let world = World::new(1).await;
    world.coordinator.endless();
    world.rewards[0].book.lock().unwrap().mute = true;
    world.offer(0, 0);
    let running = world.start();
    until("all is sampled", || running.waits_for("reward scores")).await;
    world.coordinator.book.lock().unwrap().revoke = vec![lease(0)];
    until("the wait has ended", || !running.waits_for("reward scores")).await;
    until("it is named no more", || {
        world.coordinator.book.lock().unwrap().beats.last().unwrap().leases.is_empty()
    })
    .await;
    running.stop().await.unwrap();
    assert!(world.learner.received().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_the_learner_does_not_want_is_dropped_and_its_lease_given_back() {
    let world = World::new(1).await;
    world.coordinator.endless();
    world.learner.book.lock().unwrap().refuse = Some((0, "wrong-version"));
    world.offer(0, 0);
    let running = world.start();
    until("released", || !world.coordinator.book.lock().unwrap().released.is_empty()).await;
    assert_eq!(world.coordinator.book.lock().unwrap().released, [lease(0)]);
    world.offer(1, 0);
    until("the next one is taken", || world.learner.accepted().contains(&1)).await;
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_impure_duplicate_ends_the_worker() {
    let world = World::new(1).await;
    world.learner.book.lock().unwrap().refuse = Some((0, "impure-duplicate"));
    world.offer(0, 0);
    let error = world.start().end().await.unwrap_err();
    assert!(matches!(error, WorkerError::Impure { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_another_runs_token_is_told_so() {
    let mut world = World::new(1).await;
    world.config.join_token = "guess".to_owned();
    let error = world.start().end().await.unwrap_err();
    let WorkerError::Unwelcome { kind, .. } = &error else { panic!("{error:?}") };
    assert_eq!(kind, "wrong-token");
    assert!(!format!("{:?}", world.config).contains("guess"), "tokens are not printed");
}
