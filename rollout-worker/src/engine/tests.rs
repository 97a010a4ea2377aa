#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};
use octet_policy::config::ModelConfig;
use octet_policy::files::Weights;
use octet_policy::kernel::head::Shaping;
use octet_policy::model::{Model, Params};
use octet_policy::sampler::{Completion, Sampler, Sampling};
use octet_proto::GroupIndex;
use octet_runtime::CancellationToken;
use octet_runtime::mailbox::{Address, Mailbox, mailbox};
use octet_runtime::wait::Waits;
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};

use super::{Command, Engine, Task};
use crate::error::WorkerError;
use crate::groups::{Event, JobId};
use crate::stats::Handle;

const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    model: Arc<Model>,
    commands: Address<Command>,
    events: Mailbox<Event>,
    handle: Handle,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), WorkerError>>,
}

impl Bench {
    fn new() -> Self {
        let fixture =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../policy/tests/fixtures/models/qwen2-tied");
        let config = ModelConfig::from_dir(Path::new(fixture)).unwrap();
        let weights = Weights::open(Path::new(fixture), &config).unwrap();
        let values = weights.specs().iter().map(|spec| weights.f32(&spec.name).unwrap()).collect();
        let params = Params::from_vecs(&config, values, DType::F32, &Device::Cpu).unwrap();
        let model = Arc::new(Model::new(config, params).unwrap());
        let sampling = Sampling {
            seed: 1,
            completions: 4,
            shaping: Shaping::default(),
            max_tokens: 100,
            stop_tokens: (0..40).collect(),
        };
        let (commands, inbox) = mailbox("engine", 8);
        let (address, events) = mailbox("events", 64);
        let (handle, stop) = (Handle::new(Waits::new()), CancellationToken::new());
        let sampler = Sampler::new(sampling, 8);
        let engine = Engine {
            sampler,
            completions: 4,
            inbox,
            events: address,
            handle: handle.clone(),
            simulated: None,
        };
        let ended = tokio::spawn(engine.run(stop.clone()));
        Self { model, commands, events, handle, stop, ended }
    }

    async fn sample(&self, job: u64, group: u64) {
        let (job, group) = (JobId(job), GroupIndex(group));
        let task = Task { job, group, prompt: vec![1, 7, 9], model: Arc::clone(&self.model) };
        self.commands.send(Command::Sample(task), PATIENCE).await.unwrap();
    }

    async fn next(&mut self) -> (JobId, Completion) {
        match timeout(PATIENCE, self.events.receive()).await.unwrap() {
            Some(Event::Sampled { job, completion }) => (job, completion),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn completions_come_as_they_end_and_the_thread_stops_when_told() {
    let mut bench = Bench::new();
    bench.sample(1, 5).await;
    let mut lengths = Vec::new();
    for _ in 0..4 {
        let (job, completion) = bench.next().await;
        assert_eq!((job, completion.group), (JobId(1), 5));
        lengths.push(completion.tokens.len());
    }
    assert!(lengths.is_sorted(), "shorter ones come first: {lengths:?}");
    let totals = bench.handle.totals();
    assert_eq!(totals.sampled_tokens, lengths.iter().sum::<usize>() as u64);
    assert_eq!(totals.prefilled_tokens, 3);
    // Idle now: it stops from its sleep.
    bench.stop.cancel();
    timeout(PATIENCE, bench.ended).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_group_that_is_given_again_comes_under_its_new_job_only() {
    let mut bench = Bench::new();
    bench.sample(1, 5).await;
    bench.commands.send(Command::Cancel(GroupIndex(5)), PATIENCE).await.unwrap();
    bench.sample(2, 5).await;
    bench.sample(3, 6).await;
    let mut seen = BTreeSet::new();
    // What the first job had ready before it was cancelled may come, and nothing else of it.
    while seen.len() < 8 {
        let (job, completion) = bench.next().await;
        if job == JobId(1) {
            assert!(seen.is_empty(), "a cancelled job came after its successor");
            continue;
        }
        assert!(seen.insert((job, completion.sample)), "each once");
    }
    bench.stop.cancel();
    timeout(PATIENCE, bench.ended).await.unwrap().unwrap().unwrap();
}
