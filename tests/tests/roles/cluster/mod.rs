//! A coordinator, workers and a learner of one process, for the tests that cross roles.
#![allow(dead_code, reason = "each program uses its part")]

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use candle_core::{DType, Device};
use octet_coordinator::{Config, Coordinator, JOURNAL_FILE, JoinToken, Reward, RunPlan, Timing};
use octet_policy::config::{Dtype, ModelConfig};
use octet_policy::model::{Model, Params};
use octet_policy::policy::Policy;
use octet_policy::template::COMPACT_TEMPLATE;
use octet_proto::ConfigDigest;
use octet_proto::auth::Line;
use octet_proto::coordinator::{CoordinatorClient, coordinator_client};
use octet_proto::transport::{ClientOptions, channel};
use octet_rollout_worker::{Limits, OnRewardFailure, SamplingSettings, Worker};
use octet_runtime::CancellationToken;
use octet_runtime::net::{Exposure, Listener, Tcp, bind};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const TOKEN: &str = "open sesame";
pub const DIGEST: &str = "cafe";
pub const STEPS: u64 = 100;

pub async fn listen() -> Listener {
    bind(SocketAddr::from(([127, 0, 0, 1], 0)), Exposure::Loopback).await.unwrap()
}

pub fn line(endpoint: &str) -> Line {
    let channel = channel(endpoint, &ClientOptions::default()).unwrap();
    Line::new(channel, &JoinToken::new(TOKEN))
}

/// A small model of a size of choice, with room for what a run leaves.
pub struct Folder {
    pub directory: TempDir,
    pub config: ModelConfig,
}

impl Folder {
    /// `inner` is the width of the feed-forward layers: 3 × 32 × 2 weights for each.
    pub fn new(inner: usize) -> Self {
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../policy/tests/fixtures/models/qwen2-tied");
        let directory = tempfile::tempdir().unwrap();
        let small = directory.path().join("small");
        std::fs::create_dir(&small).unwrap();
        for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"]
        {
            std::fs::copy(from.join(file), small.join(file)).unwrap();
        }
        std::fs::write(small.join("chat_template.jinja"), COMPACT_TEMPLATE).unwrap();
        let text = std::fs::read_to_string(small.join("config.json")).unwrap();
        let mut value: Value = serde_json::from_str(&text).unwrap();
        value["intermediate_size"] = json!(inner);
        value["max_position_embeddings"] = json!(1024);
        let config = ModelConfig::from_value(value, Path::new("config.json")).unwrap();
        let mut policy = Policy::load(&small, DType::F32, &Device::Cpu).unwrap();
        let params = params(&config, 0);
        policy.model = Model::new(config.clone(), params).unwrap();
        policy.save(&directory.path().join("model"), Dtype::F32).unwrap();
        Self { directory, config }
    }

    pub fn model(&self) -> PathBuf {
        self.directory.path().join("model")
    }
}

/// Weights, other ones for each version.
pub fn params(config: &ModelConfig, version: u64) -> Params {
    let values = config.tensor_specs().into_iter().enumerate().map(|(at, spec)| {
        let value = |i: usize| ((i * 31 + at * 17 + version as usize) % 97) as f32 / 1000.0;
        (0..spec.len()).map(value).collect()
    });
    Params::from_vecs(config, values.collect(), DType::F32, &Device::Cpu).unwrap()
}

/// Starts a coordinator; where it is. It runs until `stop`.
pub async fn coordinator(folder: &Folder, stop: CancellationToken) -> String {
    let row = json!({
        "prompt": [{"role": "user", "content": "add 1 and 2"}],
        "reward_model": {"ground_truth": {"tool_call": {"name": "add", "parameters": {"a": 1}}}},
    });
    let plan = RunPlan {
        run_id: "run".into(),
        config_digest: ConfigDigest::new(DIGEST),
        seed: 1,
        steps: NonZeroU64::new(STEPS).unwrap(),
        batch: NonZeroU64::MIN,
        lag: 0,
        rows: NonZeroU64::MIN,
    };
    coordinator_of(plan, row.to_string(), folder, stop).await
}

/// As [`coordinator`], of a run of one's own over one example.
pub async fn coordinator_of(
    plan: RunPlan,
    example: String,
    folder: &Folder,
    stop: CancellationToken,
) -> String {
    let config = Config {
        plan,
        timing: Timing::default(),
        reward: Reward {
            name: "nobody".into(),
            digest: "nobody".into(),
            endpoints: vec!["http://127.0.0.1:9".into()],
        },
        join_token: JoinToken::new(TOKEN),
        journal: folder.directory.path().join(JOURNAL_FILE),
        drain: Duration::from_secs(1),
    };
    let coordinator = Coordinator::open(config, Arc::new(vec![example])).unwrap();
    let listener = listen().await;
    let endpoint = listener.endpoint();
    tokio::spawn(coordinator.serve(listener.incoming(), stop));
    endpoint
}

pub fn client(coordinator: &str) -> CoordinatorClient {
    coordinator_client(line(coordinator))
}

/// A worker that serves the versions that it holds, and where.
pub async fn worker(folder: &Folder, coordinator: &str, name: &str) -> (Worker, String) {
    let config = octet_rollout_worker::Config {
        name: name.to_owned(),
        coordinator: coordinator.to_owned(),
        join_token: TOKEN.to_owned(),
        config_digest: ConfigDigest::new(DIGEST),
        weights_endpoint: String::new(),
        capacity: NonZeroU32::MIN,
        max_rows: NonZeroUsize::MIN,
        model: folder.model(),
        adapter: None,
        dtype: DType::F32,
        device: Device::Cpu,
        sampling: SamplingSettings { max_tokens: NonZeroUsize::MIN, ..SamplingSettings::default() },
        on_reward_failure: OnRewardFailure::Zero,
        drain: Duration::from_millis(200),
        limits: Limits::default(),
        client: ClientOptions::default(),
    };
    let listener = listen().await;
    let endpoint = listener.endpoint();
    let worker = Worker::new(config, Arc::new(Tcp)).unwrap();
    (worker.serving(listener.incoming(), endpoint.clone()), endpoint)
}
