//! One learner and eight workers: how a new version comes to all of them, what the learner's uplink
//! carries for it, and how long it takes beside the speed of the wire.

use std::time::{Duration, Instant};

use crate::cluster::{
    DIGEST, Folder, STEPS, TOKEN, client, coordinator, line, listen, params, worker,
};
use octet_coordinator::JoinToken;
use octet_learner::service::weights::{Publication, Published, Weights};
use octet_proto::PolicyVersion;
use octet_proto::auth::Demand;
use octet_proto::coordinator::{
    GetStatusRequest, RegisterLearnerRequest, ReportProgressRequest, WeightsSpread,
};
use octet_proto::transport::{KeepAlive, server};
use octet_proto::weights::{GetChunksRequest, weights_client, weights_server};
use octet_runtime::CancellationToken;
use octet_runtime::net::serve;
use tonic::service::interceptor::InterceptedService;

const WORKERS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes per second from a service of weights on this machine, one stream.
async fn wire(endpoint: &str, version: u64, bytes: u64) -> f64 {
    let mut client = weights_client(line(endpoint));
    let started = Instant::now();
    let request = GetChunksRequest { version, offset: 0 };
    let mut chunks = client.get_chunks(request).await.unwrap().into_inner();
    let mut arrived = 0;
    while let Some(chunk) = chunks.message().await.unwrap() {
        arrived += chunk.data.len() as u64;
    }
    assert_eq!(arrived, bytes);
    bytes as f64 / started.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_workers_share_a_version_and_the_learner_sends_less_than_eight() {
    // 12.6 MB of weights.
    let folder = Folder::new(16_384);
    let stop = CancellationToken::new();
    let coordinator = coordinator(&folder, stop.clone()).await;

    let first = Published::new(PolicyVersion(0), &params(&folder.config, 0)).unwrap();
    let publication = Publication::new(0, [first]);
    let listener = listen().await;
    let learner_at = listener.endpoint();
    let weights = Weights::new(publication.clone(), PolicyVersion(STEPS), stop.clone());
    let demand = Demand::new(JoinToken::new(TOKEN), "learner");
    let router = server(KeepAlive::default())
        .add_service(InterceptedService::new(weights_server(weights), demand));
    let drain = Duration::from_secs(1);
    tokio::spawn(serve("learner", router, listener.incoming(), stop.clone(), drain));
    let mut told = client(&coordinator);
    let registered = told.register_learner(RegisterLearnerRequest {
        config_digest: DIGEST.into(),
        endpoint: learner_at.clone(),
        committed_steps: 0,
        spooled_groups: Vec::new(),
        published: publication.to_proto(),
    });
    let learner_id = registered.await.unwrap().into_inner().learner_id;

    let (mut handles, mut running) = (Vec::new(), Vec::new());
    for at in 0..WORKERS {
        let (worker, _) = worker(&folder, &coordinator, &format!("worker-{at}")).await;
        handles.push(worker.handle());
        running.push(tokio::spawn(worker.run(stop.clone())));
    }
    spread(&mut told, 0, WORKERS).await;

    for version in 1..=3 {
        let next = Published::new(PolicyVersion(version), &params(&folder.config, version));
        let next = next.unwrap();
        let bytes = next.manifest().total_bytes;
        let sent_before = publication.sent_bytes();
        publication.publish(next);
        let report = ReportProgressRequest {
            learner_id,
            committed_steps: version,
            published: publication.to_proto(),
            ..ReportProgressRequest::default()
        };
        told.report_progress(report).await.unwrap();
        let spread = spread(&mut told, version, WORKERS).await;
        let copies = (publication.sent_bytes() - sent_before) as f64 / bytes as f64;
        let speed = wire(&learner_at, version, bytes).await;
        eprintln!(
            "version {version}: {:.1} MB to {WORKERS} workers in {} ms; the learner sent {copies:.1} copies; \
             one copy over this wire takes {:.0} ms at {:.2} GB/s",
            bytes as f64 / 1e6,
            spread.spread_ms,
            1000.0 * bytes as f64 / speed,
            speed / 1e9,
        );
        assert_eq!(spread.bytes, bytes);
        assert!(copies < WORKERS as f64 / 2.0, "the learner sent {copies} copies");
        let total = |of: fn(&octet_rollout_worker::Totals) -> u64| -> u64 {
            handles.iter().map(|handle| of(&handle.totals())).sum()
        };
        let from_learner = total(|totals| totals.weight_bytes_from_learner);
        let from_workers = total(|totals| totals.weight_bytes_from_workers);
        assert_eq!(from_learner + from_workers, version * WORKERS as u64 * bytes);
        assert_eq!(total(|totals| totals.damaged_transfers), 0);
    }
    stop.cancel();
    for worker in running {
        worker.await.unwrap().unwrap();
    }
}

/// Waits until every worker holds the version.
async fn spread(
    told: &mut octet_proto::coordinator::CoordinatorClient,
    version: u64,
    workers: usize,
) -> WeightsSpread {
    let until = Instant::now() + PATIENCE;
    loop {
        let status = told.get_status(GetStatusRequest {}).await.unwrap().into_inner();
        let there = status.workers.len() == workers;
        let found = status.weights.into_iter().find(|spread| spread.version == version);
        if let Some(found) = found.filter(|found| there && (found.spread_ms > 0 || version == 0)) {
            return found;
        }
        assert!(Instant::now() < until, "version {version} did not come to {workers} workers");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
