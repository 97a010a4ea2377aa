//! Weights from other workers: what is taken from whom when sources serve, die, are silent and lie.

use crate::support::coordinator::TOKEN;
use crate::support::learner::Learner;
use crate::support::{World, until};
use octet_proto::auth::{JoinToken, Line};
use octet_proto::error::error_kind;
use octet_proto::transport::{ClientOptions, channel};
use octet_proto::weights::{GetChunksRequest, GetManifestRequest, weights_client};
use octet_rollout_worker::Totals;
use std::time::Duration;

/// Runs a group of version 1; what the worker did, and what the learner was asked from where.
async fn run(world: &World) -> (Totals, Vec<u64>) {
    world.learner.publish(&world.model, 1);
    world.offer(0, 1);
    let running = world.start();
    let handle = running.handle.clone();
    running.end().await.unwrap();
    let group = world.delivered(0).unwrap();
    let expected = world.model.sample(0, 1);
    for (found, expected) in group.completions.iter().zip(&expected) {
        assert_eq!((&found.tokens, &found.logprobs), (&expected.tokens, &expected.logprobs));
    }
    assert_eq!(handle.totals().transfers, 1);
    let asked = world.learner.book.lock().unwrap().asked.clone();
    (handle.totals(), asked)
}

fn asked(source: &Learner) -> Vec<u64> {
    source.book.lock().unwrap().asked.clone()
}

fn bytes(world: &World) -> u64 {
    world.model.publish(1).0.total_bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_holds_the_version_spares_the_learner() {
    let world = World::new(1).await;
    let (source, up) = world.source().await;
    source.publish(&world.model, 1);
    world.name_sources(1, vec![up.endpoint(), world.learner_at()]);
    let (totals, learner) = run(&world).await;
    assert!(learner.is_empty(), "{learner:?}");
    assert_eq!(asked(&source), [0]);
    assert_eq!(totals.weight_bytes_from_workers, bytes(&world));
    assert_eq!((totals.weight_bytes_from_learner, totals.damaged_transfers), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_killed_half_way_costs_nothing_that_has_arrived() {
    let mut world = World::new(1).await;
    world.config.limits.chunk = Duration::from_secs(60);
    let (source, up) = world.source().await;
    source.publish(&world.model, 1);
    source.book.lock().unwrap().silent_at = Some(12_345);
    world.name_sources(1, vec![up.endpoint(), world.learner_at()]);
    let watched = source.clone();
    let killing = tokio::spawn(async move {
        until("the transfer is under way", || !asked(&watched).is_empty()).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        up.down().await;
    });
    let (totals, learner) = run(&world).await;
    killing.await.unwrap();
    assert_eq!(learner, [12_000], "it went on where the other one stopped");
    assert_eq!(totals.weight_bytes_from_workers, 12_000);
    assert_eq!(totals.weight_bytes_from_learner, bytes(&world) - 12_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_source_is_left_after_its_deadline() {
    let mut world = World::new(1).await;
    world.config.limits.chunk = Duration::from_millis(200);
    let (source, up) = world.source().await;
    source.publish(&world.model, 1);
    source.book.lock().unwrap().silent_at = Some(5_500);
    world.name_sources(1, vec![up.endpoint(), world.learner_at()]);
    let (_, learner) = run(&world).await;
    assert_eq!(learner, [5_000]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_with_wrong_bytes_is_found_out_and_dropped() {
    let world = World::new(1).await;
    let (liar, up) = world.source().await;
    liar.publish(&world.model, 1);
    liar.book.lock().unwrap().corrupt = Some((7, u32::MAX));
    world.name_sources(1, vec![up.endpoint(), world.learner_at()]);
    let (totals, learner) = run(&world).await;
    assert_eq!(asked(&liar), [0], "it is not asked again");
    assert_eq!(learner, [0], "nothing of what it sent was kept");
    assert_eq!(totals.damaged_transfers, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_with_weights_of_its_own_is_found_out_before_it_sends_any() {
    let world = World::new(1).await;
    let (liar, up) = world.source().await;
    // Whole and consistent, but not what the learner published as version 1.
    liar.forge(&world.model, 2, 1);
    world.name_sources(1, vec![up.endpoint(), world.learner_at()]);
    let (totals, learner) = run(&world).await;
    assert!(asked(&liar).is_empty());
    assert_eq!(learner, [0]);
    assert_eq!(totals.damaged_transfers, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_blamed_for_another_ones_bytes() {
    let world = World::new(1).await;
    let (liar, liar_up) = world.source().await;
    let (honest, honest_up) = world.source().await;
    liar.publish(&world.model, 1);
    honest.publish(&world.model, 1);
    {
        // A wrong byte, and gone before the tensor that holds it ends.
        let mut book = liar.book.lock().unwrap();
        book.corrupt = Some((7, u32::MAX));
        book.cut_at = Some(2_500);
    }
    world.name_sources(1, vec![liar_up.endpoint(), honest_up.endpoint(), world.learner_at()]);
    let (_, learner) = run(&world).await;
    assert_eq!(asked(&liar), [0]);
    assert_eq!(asked(&honest), [2_000, 0], "the tensor is fetched again, from the same source");
    assert!(learner.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_that_are_gone_or_have_nothing_lead_to_the_learner() {
    let world = World::new(1).await;
    let (empty, up) = world.source().await;
    let nobody = "http://127.0.0.1:9".to_owned();
    let unreachable = "https://127.0.0.1:9".to_owned();
    world.name_sources(1, vec![nobody, unreachable, up.endpoint(), world.learner_at()]);
    let (_, learner) = run(&world).await;
    assert!(asked(&empty).is_empty());
    assert_eq!(learner, [0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_serves_what_it_holds_to_those_with_the_token() {
    let (first, second) = (World::new(1).await, World::new(1).await);
    // The first worker fetches ahead from its learner, and stays.
    first.coordinator.endless();
    first.learner.publish(&first.model, 1);
    first.coordinator.book.lock().unwrap().newest_version = 1;
    let (serving, endpoint) = first.start_serving().await;

    // Asked for early, it answers as soon as it has something.
    let channel = channel(&endpoint, &ClientOptions::default()).unwrap();
    let mut client = weights_client(Line::new(channel.clone(), &JoinToken::new(TOKEN)));
    let request = GetManifestRequest { version: 1, wait_ms: 15_000 };
    let manifest = client.get_manifest(request).await.unwrap().into_inner();
    assert_eq!(manifest, first.learner.manifest(1));
    let status = client.get_manifest(GetManifestRequest { version: 7, wait_ms: 50 }).await;
    assert_eq!(error_kind(&status.unwrap_err()), Some("version-not-held"));
    let beyond = GetChunksRequest { version: 1, offset: u64::MAX };
    let status = client.get_chunks(beyond).await.map(drop).unwrap_err();
    assert_eq!(error_kind(&status), Some("bad-offset"));
    let status = weights_client(channel).get_manifest(request).await.unwrap_err();
    assert_eq!(error_kind(&status), Some("no-token"));

    // The second worker's learner has gone without publishing it to anybody else.
    second.name_sources(1, vec![endpoint, second.learner_at()]);
    second.offer(0, 1);
    let running = second.start();
    let handle = running.handle.clone();
    running.end().await.unwrap();
    assert_eq!(handle.totals().weight_bytes_from_workers, bytes(&first));
    assert_eq!(serving.handle.totals().weight_bytes_served, bytes(&first));
    let beat = first.coordinator.book.lock().unwrap().beats.last().unwrap().clone();
    assert!(beat.versions.contains(&1));
    serving.stop().await.unwrap();
}
