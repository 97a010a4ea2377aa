//! What a stranger can send to each port, and an insider who talks nonsense: nobody panics, memory stays
//! bounded, and those who belong are served afterwards.
#![allow(clippy::unwrap_used)]

#[path = "roles/cluster/mod.rs"]
mod cluster;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use candle_core::{DType, Device};
use cluster::{DIGEST, Folder, TOKEN, client, coordinator, line, listen, worker};
use futures::StreamExt;
use octet_learner::learner::Patience;
use octet_learner::{Config, Learner, LearnerConfig, RunShape};
use octet_policy::kernel::head::Shaping;
use octet_proto::ConfigDigest;
use octet_proto::auth::Line;
use octet_proto::coordinator::GetStatusRequest;
use octet_proto::error::error_kind;
use octet_proto::reward::{DescribeRequest, reward_client};
use octet_proto::transport::{ClientOptions, channel};
use octet_proto::weights::{GetManifestRequest, weights_client};
use octet_runtime::CancellationToken;
use octet_runtime::net::Tcp;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};

const SECOND: Duration = Duration::from_secs(1);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What all of this may cost at most, clients of the same process included.
const MOST_BYTES: u64 = 400 << 20;

/// Bytes as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length)))
    }
}

/// A port with the calls that it takes.
struct Port {
    name: &'static str,
    endpoint: String,
    methods: &'static [&'static str],
    /// Whether it asks for the token.
    demands: bool,
}

impl Port {
    fn address(&self) -> SocketAddr {
        self.endpoint.trim_start_matches("http://").parse().unwrap()
    }

    /// Somebody who belongs is served, and in time.
    async fn assert_serves(&self) {
        let answer = match self.name {
            "coordinator" => {
                let mut client = client(&self.endpoint);
                timeout(10 * SECOND, client.get_status(GetStatusRequest {}))
                    .await
                    .map(|a| a.map(drop))
            }
            "reward-service" => {
                let mut client = reward_client(line(&self.endpoint));
                timeout(10 * SECOND, client.describe(DescribeRequest {})).await.map(|a| a.map(drop))
            }
            _ => {
                let mut client = weights_client(line(&self.endpoint));
                let request = GetManifestRequest { version: u64::MAX, wait_ms: 0 };
                let answer = timeout(10 * SECOND, client.get_manifest(request)).await;
                answer.map(|answer| match answer {
                    Err(status) if status.code() == Code::NotFound => Ok(()),
                    other => other.map(drop),
                })
            }
        };
        answer.unwrap_or_else(|_| panic!("{} does not answer", self.name)).unwrap();
    }
}

const COORDINATOR: &[&str] = &[
    "/octet.v1.CoordinatorService/RegisterWorker",
    "/octet.v1.CoordinatorService/Lease",
    "/octet.v1.CoordinatorService/Heartbeat",
    "/octet.v1.CoordinatorService/Release",
    "/octet.v1.CoordinatorService/RegisterLearner",
    "/octet.v1.CoordinatorService/ReportProgress",
    "/octet.v1.CoordinatorService/GetStatus",
];
const LEARNER: &[&str] = &[
    "/octet.v1.LearnerService/Deliver",
    "/octet.v1.WeightsService/GetManifest",
    "/octet.v1.WeightsService/GetChunks",
];
const REWARD: &[&str] = &["/octet.v1.RewardService/Describe", "/octet.v1.RewardService/Score"];
const WORKER: &[&str] =
    &["/octet.v1.WeightsService/GetManifest", "/octet.v1.WeightsService/GetChunks"];

/// One of each role, on a port of its own.
async fn ports(folder: &Folder, stop: &CancellationToken) -> Vec<Port> {
    let at_coordinator = coordinator(folder, stop.clone()).await;
    let (worker, at_worker) = worker(folder, &at_coordinator, "worker").await;
    tokio::spawn(worker.run(stop.clone()));

    let listener = listen().await;
    let at_reward = listener.endpoint();
    let function = octet_reward_service::by_name("tool-call").unwrap();
    let settings = octet_reward_service::ServiceSettings::default();
    tokio::spawn(octet_reward_service::serve(listener, function, settings, stop.clone()));

    let listener = listen().await;
    let at_learner = listener.endpoint();
    let config = Config {
        run: folder.directory.path().join("run"),
        model: folder.model(),
        dtype: DType::F32,
        device: Device::Cpu,
        recipe: LearnerConfig::default(),
        shape: RunShape {
            steps: std::num::NonZeroU64::new(cluster::STEPS).unwrap(),
            completions: 8,
            max_tokens: 8,
            longest_prompt: 100,
            shaping: Shaping { temperature: 1.0, top_p: 1.0, top_k: 0 },
            adapter: None,
        },
        config_digest: ConfigDigest::new(DIGEST),
        // It has a coordinator of its own, which never answers.
        coordinator: "http://127.0.0.1:9".to_owned(),
        join_token: TOKEN.to_owned(),
        endpoint: None,
        threads: None,
        patience: Patience::default(),
    };
    let learner = tokio::task::spawn_blocking(move || Learner::open(config)).await.unwrap();
    let (endpoint, dialer) = (at_learner.clone(), std::sync::Arc::new(Tcp));
    let learner = learner.unwrap();
    tokio::spawn(learner.serve(listener.incoming(), endpoint, dialer, stop.clone()));

    let port = |name, endpoint, methods, demands| Port { name, endpoint, methods, demands };
    vec![
        port("coordinator", at_coordinator, COORDINATOR, true),
        port("learner", at_learner, LEARNER, true),
        port("reward-service", at_reward, REWARD, false),
        port("rollout-worker", at_worker, WORKER, true),
    ]
}

fn drawn<S: Strategy>(runner: &mut TestRunner, strategy: &S) -> S::Value {
    strategy.new_tree(runner).unwrap().current()
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Bytes that are nothing, HTTP/2 frames that make no sense, and the beginnings of both.
async fn gibberish(port: &Port, runner: &mut TestRunner) {
    let bytes = prop::collection::vec(any::<u8>(), 0..2048);
    let frame = (any::<u8>(), any::<u8>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..64));
    let frames = prop::collection::vec(frame, 0..16);
    for round in 0..48 {
        let mut said = Vec::new();
        match round % 3 {
            0 => said = drawn(runner, &bytes),
            1 => {
                said.extend_from_slice(PREFACE);
                said.extend(drawn(runner, &bytes));
            }
            _ => {
                said.extend_from_slice(PREFACE);
                for (kind, flags, stream, payload) in drawn(runner, &frames) {
                    said.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
                    said.extend_from_slice(&[kind % 10, flags]);
                    said.extend_from_slice(&(stream % 8).to_be_bytes());
                    said.extend(payload);
                }
            }
        }
        let mut stream = TcpStream::connect(port.address()).await.unwrap();
        // The server may hang up before all is said.
        let _said = stream.write_all(&said).await;
    }
}

async fn call(line: Line, method: &'static str, body: Bytes) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(line);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static(method);
    let request = Request::new(futures::stream::iter([body]));
    let answer = timeout(10 * SECOND, async {
        let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
        answers.message().await.map(drop)
    });
    answer.await.unwrap_or(Ok(()))
}

fn strange(port: &Port) -> Line {
    channel(&port.endpoint, &ClientOptions::default()).unwrap().into()
}

/// Calls with payloads that are no messages; who shows no token gets no further than the door.
async fn nonsense(port: &Port, runner: &mut TestRunner) {
    let bytes = prop::collection::vec(any::<u8>(), 0..512);
    for method in port.methods {
        for _ in 0..24 {
            let body = Bytes::from(drawn(runner, &bytes));
            let refused = call(strange(port), method, body.clone()).await;
            if port.demands {
                assert_eq!(error_kind(&refused.unwrap_err()), Some("no-token"), "{method}");
            }
            let _whatever = call(line(&port.endpoint), method, body).await;
        }
    }
}

/// A message above the limit is refused before it is held.
async fn oversize(port: &Port) {
    let method = port.methods[0];
    let body = Bytes::from(vec![0; 65 << 20]);
    let refused = call(line(&port.endpoint), method, body).await.unwrap_err();
    assert!(
        matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted),
        "{}: {refused:?}",
        port.name
    );
}

/// Thousands of calls that never end, each with the beginning of a message, and connections that say
/// nothing at all.
async fn crowd(port: &Port) {
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(port.address()).await.unwrap());
    }
    let (mut open, method) = (Vec::new(), port.methods[port.methods.len() - 1]);
    for _ in 0..40 {
        let line = line(&port.endpoint);
        for _ in 0..100 {
            let line = line.clone();
            open.push(tokio::spawn(async move {
                let mut grpc = tonic::client::Grpc::new(line);
                if grpc.ready().await.is_err() {
                    return;
                }
                let body = futures::stream::iter([Bytes::from(vec![0x80; 16 << 10])]);
                let request = Request::new(body.chain(futures::stream::pending()));
                let path = PathAndQuery::from_static(method);
                if let Ok(answers) = grpc.streaming(request, path, Raw).await {
                    let mut answers = answers.into_inner();
                    while let Ok(Some(_)) = answers.message().await {}
                }
            }));
        }
    }
    tokio::time::sleep(3 * SECOND).await;
    port.assert_serves().await;
    for call in open {
        call.abort();
    }
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_cost_little_and_break_nothing() {
    let folder = Folder::new(48);
    let stop = CancellationToken::new();
    let ports = ports(&folder, &stop).await;
    let mut runner = TestRunner::deterministic();
    for port in &ports {
        port.assert_serves().await;
        let before = resident();
        gibberish(port, &mut runner).await;
        port.assert_serves().await;
        nonsense(port, &mut runner).await;
        port.assert_serves().await;
        oversize(port).await;
        port.assert_serves().await;
        crowd(port).await;
        port.assert_serves().await;
        let grown = resident().saturating_sub(before);
        eprintln!("{}: {} MiB more than before", port.name, grown >> 20);
        assert!(grown < MOST_BYTES, "{}: memory grew by {grown} bytes", port.name);
    }
    // Nothing that was sent counts for anything.
    let status = client(&ports[0].endpoint).get_status(GetStatusRequest {}).await.unwrap();
    assert_eq!(status.into_inner().committed_steps, 0);
    stop.cancel();
}
