//! A scripted coordinator and a scripted worker around a real learner: real gRPC, real groups.

pub mod coordinator;
pub mod worker;

use candle_core::{DType, Device};
use coordinator::Scripted;
use octet_learner::learner::Patience;
use octet_learner::{Config, LearnerConfig, LearnerError, RunShape, Summary};
use octet_policy::kernel::head::Shaping;
use octet_policy::lora::{FreshLora, Lora, Target, Targets};
use octet_proto::ConfigDigest;
use octet_runtime::CancellationToken;
use octet_runtime::net::{Exposure, Tcp, bind};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

pub const STEPS: u64 = 4;
pub const BATCH: u64 = 3;
pub const COMPLETIONS: usize = 4;
pub const MAX_TOKENS: usize = 6;
pub const TOKEN: &str = "open sesame";
pub const LONGEST_PROMPT: usize = 30;

/// A model directory and room for runs.
pub struct World {
    pub folder: TempDir,
    pub model: PathBuf,
}

/// What a run is told apart by.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub recipe: LearnerConfig,
    pub threads: Option<NonZeroUsize>,
    pub adapter: Option<FreshLora>,
}

impl World {
    /// The policy crate's fixture, with a chat template beside it.
    pub fn new() -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/tests/fixtures");
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        std::fs::create_dir(&model).unwrap();
        for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
        {
            let from = fixtures.join("models/qwen2-tied").join(name);
            std::fs::copy(from, model.join(name)).unwrap();
        }
        let template = fixtures.join("chat/qwen2.5.jinja");
        std::fs::copy(template, model.join("chat_template.jinja")).unwrap();
        Self { folder, model }
    }

    pub fn run_directory(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn config(&self, name: &str, setup: &Setup, coordinator: &str) -> Config {
        Config {
            run: self.run_directory(name),
            model: self.model.clone(),
            dtype: DType::F32,
            device: Device::Cpu,
            recipe: setup.recipe.clone(),
            shape: RunShape {
                steps: NonZeroU64::new(STEPS).unwrap(),
                completions: COMPLETIONS,
                max_tokens: MAX_TOKENS,
                longest_prompt: LONGEST_PROMPT,
                shaping: shaping(),
                adapter: setup.adapter,
            },
            config_digest: ConfigDigest::new("c0ffee"),
            coordinator: coordinator.to_owned(),
            join_token: TOKEN.to_owned(),
            endpoint: None,
            threads: setup.threads,
            patience: Patience { coordinator: Duration::from_secs(20), ..Patience::default() },
        }
    }

    /// Runs a learner with a worker that samples the steps before `until`, and stops it when these
    /// are committed.
    pub async fn run(
        &self,
        name: &str,
        setup: &Setup,
        until: u64,
    ) -> Result<Summary, LearnerError> {
        let (scripted, coordinator) = Scripted::start().await;
        self.run_with(name, setup, (until, until), &scripted, &coordinator).await
    }

    /// As [`World::run`], with a worker that samples the steps before `sampled` only.
    pub async fn run_from_spool(
        &self,
        name: &str,
        setup: &Setup,
        sampled: u64,
        until: u64,
    ) -> Result<Summary, LearnerError> {
        let (scripted, coordinator) = Scripted::start().await;
        self.run_with(name, setup, (sampled, until), &scripted, &coordinator).await
    }

    pub async fn run_with(
        &self,
        name: &str,
        setup: &Setup,
        (sampled, until): (u64, u64),
        scripted: &Arc<Scripted>,
        coordinator: &str,
    ) -> Result<Summary, LearnerError> {
        let shutdown = CancellationToken::new();
        let (endpoint, learner) =
            self.start(self.config(name, setup, coordinator), shutdown.clone()).await;
        let lag = setup.recipe.lag;
        let worker = tokio::spawn(worker::work(endpoint, Arc::clone(scripted), lag, sampled));
        let mut progress = scripted.progress.subscribe();
        let reached = async {
            progress.wait_for(|progress| progress.committed >= until).await.unwrap();
            if until < STEPS {
                shutdown.cancel();
            }
        };
        let (summary, ()) = tokio::join!(
            async {
                let summary = ended(learner).await;
                // A learner that failed reaches nothing any more.
                scripted.progress.send_modify(|progress| progress.committed = u64::MAX);
                summary
            },
            reached
        );
        worker.abort();
        summary
    }

    /// Starts a learner; its address and its end.
    pub async fn start(
        &self,
        config: Config,
        shutdown: CancellationToken,
    ) -> (String, tokio::task::JoinHandle<Result<Summary, LearnerError>>) {
        let listener = bind("127.0.0.1:0".parse().unwrap(), Exposure::Loopback).await.unwrap();
        let endpoint = listener.endpoint();
        let run = octet_learner::run(config, listener, Arc::new(Tcp), shutdown);
        (endpoint, tokio::spawn(run))
    }
}

/// How a learner ended; one that does not end is a failed test and no hanging one.
pub async fn ended(
    learner: tokio::task::JoinHandle<Result<Summary, LearnerError>>,
) -> Result<Summary, LearnerError> {
    tokio::time::timeout(Duration::from_secs(60), learner).await.expect("the learner ends").unwrap()
}

pub fn shaping() -> Shaping {
    Shaping { temperature: 0.9, top_p: 1.0, top_k: 0 }
}

/// The adapter of the runs that train one.
pub fn adapter() -> FreshLora {
    let targets = Targets::of([Target::Q, Target::V, Target::O, Target::Up, Target::Down]);
    let lora = Lora { rank: NonZeroUsize::new(4).unwrap(), alpha: 8.0, targets };
    FreshLora { lora, seed: 7 }
}

/// Small micro-batches, a learning rate that moves every weight, several groups a step.
pub fn recipe() -> LearnerConfig {
    LearnerConfig {
        batch: NonZeroU64::new(BATCH).unwrap(),
        learning_rate: 1e-2,
        warmup_steps: 2,
        micro_batch_tokens: NonZeroUsize::new(70).unwrap(),
        ..LearnerConfig::default()
    }
}
