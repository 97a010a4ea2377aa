//! A worker that samples with the real sampler from the weights that the learner publishes.

use super::coordinator::Scripted;
use super::{BATCH, COMPLETIONS, LONGEST_PROMPT, MAX_TOKENS, STEPS, TOKEN, adapter, shaping};
use candle_core::{DType, Device};
use octet_policy::config::ModelConfig;
use octet_policy::model::{Model, Params, from_bytes};
use octet_policy::sampler::{Finish, GroupRequest, Sampler, Sampling};
use octet_policy::source::Source;
use octet_proto::auth::{JoinToken, Line};
use octet_proto::learner::{
    DeliveryReceipt, FinishReason, ScoredCompletion, ScoredGroup, learner_client,
};
use octet_proto::transport::{ClientOptions, channel};
use octet_proto::weights::{GetChunksRequest, GetManifestRequest, weights_client};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Pseudo-random token ids below the fixture's vocabulary.
fn prompt(group: u64) -> Vec<u32> {
    let length = 10 + (group * 7) as usize % (LONGEST_PROMPT - 9);
    let mut state = (group as u32 + 1).wrapping_mul(2_654_435_761) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state % 300
    };
    (0..length).map(next).collect()
}

/// Any function of the tokens will do; every fourth group teaches nothing.
fn reward(group: u64, tokens: &[u32]) -> f64 {
    if group % 4 == 3 {
        return 0.5;
    }
    tokens.iter().filter(|token| *token % 2 == 0).count() as f64 / tokens.len() as f64
}

/// Samples and scores some groups with one version.
pub fn sample(
    model: &Arc<Model>,
    version: u64,
    groups: impl Iterator<Item = u64>,
) -> Vec<ScoredGroup> {
    let sampling = Sampling {
        seed: 42,
        completions: COMPLETIONS,
        shaping: shaping(),
        max_tokens: MAX_TOKENS,
        stop_tokens: vec![2],
    };
    let mut sampler = Sampler::new(sampling, 64);
    let mut found: Vec<ScoredGroup> = Vec::new();
    for group in groups {
        sampler.submit(GroupRequest { group, prompt: prompt(group), model: Arc::clone(model) });
        found.push(ScoredGroup {
            group,
            lease_epoch: 1,
            policy_version: version,
            reward_revision: 1,
            prompt_tokens: prompt(group),
            completions: Vec::new(),
            worker: "scripted".to_owned(),
            example_json: r#"{"prompt": [], "reward_model": {}}"#.to_owned(),
        });
    }
    while sampler.pending() > 0 {
        for ended in sampler.step().unwrap() {
            let of = found.iter_mut().find(|group| group.group == ended.group).unwrap();
            of.completions.push(ScoredCompletion {
                sample: ended.sample,
                reward: reward(ended.group, &ended.tokens),
                tokens: ended.tokens,
                logprobs: ended.logprobs,
                finish: match ended.finish {
                    Finish::Stop => FinishReason::Stop.into(),
                    Finish::Length => FinishReason::Length.into(),
                },
                verdict: "scripted".to_owned(),
                detail: String::new(),
            });
        }
    }
    found
}

/// Groups of a step.
pub fn groups(step: u64) -> Range<u64> {
    step * BATCH..(step + 1) * BATCH
}

/// A line to the learner, with the run's token.
pub fn line(endpoint: &str) -> Line {
    let channel = channel(endpoint, &ClientOptions::default()).unwrap();
    Line::new(channel, &JoinToken::new(TOKEN))
}

/// The published version, fetched over gRPC and checked against its manifest.
pub async fn fetch(endpoint: &str, version: u64) -> Option<Arc<Model>> {
    let mut client = weights_client(line(endpoint));
    let request = GetManifestRequest { version, wait_ms: 5_000 };
    let manifest = client.get_manifest(request).await.ok()?.into_inner();
    let request = GetChunksRequest { version, offset: 0 };
    let mut chunks = client.get_chunks(request).await.ok()?.into_inner();
    let mut data = Vec::new();
    while let Some(chunk) = chunks.message().await.ok()? {
        assert_eq!(chunk.offset, data.len() as u64);
        data.extend_from_slice(&chunk.data);
    }
    let directory =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/tests/fixtures/models/qwen2-tied");
    let config = ModelConfig::from_dir(&directory).unwrap();
    let mut rest = data.as_slice();
    let tensors = manifest.tensors.iter().map(|entry| {
        let (own, after) = rest.split_at(entry.bytes as usize);
        rest = after;
        let shape: Vec<usize> = entry.shape.iter().map(|size| *size as usize).collect();
        from_bytes(own, DType::F32, &shape, &Device::Cpu).unwrap()
    });
    let tensors: Vec<_> = tensors.collect();
    // An adapter comes alone: this worker has the weights below it.
    let mut model = if manifest.tensors[0].name.contains("lora_A") {
        let base = Source::open(&directory).unwrap().weights(&config).unwrap();
        let base = Params::from_vecs(&config, base, DType::F32, &Device::Cpu).unwrap();
        let lora = adapter().lora;
        let params = Params::of(lora.tensor_specs(&config), tensors).unwrap();
        Model::new(config, base).unwrap().with_lora(lora, params).unwrap()
    } else {
        let params = Params::new(&config, tensors).unwrap();
        Model::new(config, params).unwrap()
    };
    assert_eq!(model.trained().digest().unwrap().to_hex().as_str(), manifest.digest);
    model.freeze().unwrap();
    Some(Arc::new(model))
}

/// Delivers groups and returns their receipts; none when the stream was cut.
pub async fn deliver(endpoint: &str, groups: Vec<ScoredGroup>) -> Option<Vec<DeliveryReceipt>> {
    let mut client = learner_client(line(endpoint));
    let mut answers = client.deliver(tokio_stream::iter(groups)).await.ok()?.into_inner();
    let mut receipts = Vec::new();
    while let Some(receipt) = answers.message().await.ok()? {
        receipts.push(receipt);
    }
    Some(receipts)
}

/// Samples whatever the lag allows and is not spooled, highest group first, until `until`.
pub async fn work(endpoint: String, scripted: Arc<Scripted>, lag: u64, until: u64) {
    let mut progress = scripted.progress.subscribe();
    loop {
        let now = progress.borrow_and_update().clone();
        let end = now.committed.saturating_add(lag + 1).min(STEPS).min(until);
        for step in now.committed..end {
            let version = step.saturating_sub(lag);
            let open: Vec<u64> =
                groups(step).rev().filter(|group| !now.spooled.contains(group)).collect();
            if now.registered == 0 || open.is_empty() {
                continue;
            }
            let Some(model) = fetch(&endpoint, version).await else { continue };
            deliver(&endpoint, sample(&model, version, open.into_iter())).await;
        }
        if progress.changed().await.is_err() {
            return;
        }
    }
}
