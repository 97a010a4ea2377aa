//! Publishing: a version made, sent over loopback gRPC, verified, and made a model again.
//!
//! Invariant: the learner's publication and service on one side, the worker's intake and builder on the other,
//! with the channels and limits that both have in a run.

use super::report::{Findings, Quantity, Samples};
use super::{Bench, room};
use anyhow::{Context, Result};
use candle_core::{DType, Device};
use indicatif::ProgressBar;
use octet_learner::service::weights::{Publication, Published, Weights};
use octet_policy::config::TensorSpec;
use octet_policy::model::Model;
use octet_proto::PolicyVersion;
use octet_proto::transport::{ClientOptions, KeepAlive, server};
use octet_proto::weights::{
    GetChunksRequest, GetManifestRequest, WeightsClient, weights_client, weights_server,
};
use octet_rollout_worker::weights::{Intake, Manifest, build};
use octet_runtime::CancellationToken;
use octet_runtime::net::{Dial, Exposure, Tcp, bind, serve};
use serde_json::Map;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the service may take to end.
const DRAIN: Duration = Duration::from_secs(2);
/// How long the next chunk may take to come.
const SILENCE: Duration = Duration::from_secs(30);

/// The parts of a publication.
#[derive(Default)]
struct Times {
    publish: Samples,
    transfer: Samples,
    build: Samples,
    whole: Samples,
}

/// Measures.
pub fn measure(bench: &Bench) -> Result<Findings> {
    let (s, config) = (&bench.settings, &bench.subject.config);
    let bar = bench.begin("publish", 1 + s.repeats as u64);
    let model = bench.subject.model(s.seed)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("starting the async runtime")?;
    let work = publish(model, s.repeats, &bar);
    let (times, peak) = room::peak_of(|| runtime.block_on(work));
    let times = times?;
    bar.finish_and_clear();

    let bytes = 4.0 * config.param_count() as f64;
    let headline = format!("{:.1} MB of weights over loopback gRPC", bytes / 1e6);
    let mut found = Findings::new("publish", headline, Map::new());
    for (item, samples) in [
        ("manifest", &times.publish),
        ("transfer", &times.transfer),
        ("model", &times.build),
        ("whole", &times.whole),
    ] {
        found.time(item, samples);
        found.add(item, Quantity::Bandwidth, bytes / samples.median() / 1e9);
    }
    found.memory(peak, room::publishing(config));
    Ok(found)
}

async fn publish(model: Model, repeats: usize, bar: &ProgressBar) -> Result<Times> {
    let stop = CancellationToken::new();
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), Exposure::Loopback).await?;
    let channel = Tcp.dial(&listener.endpoint(), &ClientOptions::default())?;
    let publication = Publication::new(0, []);
    let last = PolicyVersion(repeats as u64);
    let weights = Weights::new(publication.clone(), last, stop.clone());
    let router = server(KeepAlive::default()).add_service(weights_server(weights));
    let serving = tokio::spawn(serve("bench", router, listener.incoming(), stop.clone(), DRAIN));

    let mut client = weights_client(channel);
    let mut times = Times::default();
    for repetition in 0..=repeats {
        let version = PolicyVersion(repetition as u64);
        let start = Instant::now();
        publication.publish(Published::new(version, model.params())?);
        let published = Instant::now();
        let intake = fetch(&mut client, version, model.params().specs()).await?;
        let fetched = Instant::now();
        let manifest = Arc::clone(intake.manifest());
        let tensors = intake.into_tensors().ok().context("the version is not whole")?;
        let of = model.clone();
        let built = tokio::task::spawn_blocking(move || {
            build(&of, &manifest, tensors, DType::F32, &Device::Cpu)
        });
        built.await??;
        if repetition > 0 {
            times.publish.push(published - start);
            times.transfer.push(fetched - published);
            times.build.push(fetched.elapsed());
            times.whole.push(start.elapsed());
        }
        bar.inc(1);
    }
    stop.cancel();
    serving.await??;
    Ok(times)
}

/// All bytes of a version, verified.
async fn fetch(
    client: &mut WeightsClient,
    version: PolicyVersion,
    specs: &[TensorSpec],
) -> Result<Intake> {
    let request = GetManifestRequest { version: version.get(), wait_ms: 0 };
    let message = client.get_manifest(request).await?.into_inner();
    let mut intake = Intake::new(Arc::new(Manifest::check(message, version, specs)?));
    let request = GetChunksRequest { version: version.get(), offset: 0 };
    let mut chunks = client.get_chunks(request).await?.into_inner();
    while !intake.is_whole() {
        let next = tokio::time::timeout(SILENCE, chunks.message()).await;
        let chunk = next.context("waiting for a chunk of weights")??;
        let chunk = chunk.context("the stream of chunks ended early")?;
        intake.take(chunk.offset, &chunk.data)?;
    }
    Ok(intake)
}
