//! A tiny random model in a directory, and what it samples when nobody is in between.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device};
use octet_dataset::Example;
use octet_policy::model::{Model, Params, bytes};
use octet_policy::policy::Policy;
use octet_policy::sampler::{Completion, GroupRequest, Sampler};
use octet_policy::template::COMPACT_TEMPLATE;
use octet_proto::weights::{TensorEntry, WeightsManifest};
use octet_rollout_worker::SamplingSettings;
use serde_json::{Value, json};

pub const COMPLETIONS: u32 = 8;
pub const SAMPLING: SamplingSettings = SamplingSettings {
    seed: 7,
    completions: NonZeroU32::new(COMPLETIONS).unwrap(),
    temperature: 1.0,
    top_p: 1.0,
    top_k: 0,
    max_tokens: NonZeroUsize::new(12).unwrap(),
};

/// The fixture model with a longer context and a chat template.
pub struct ModelDirectory {
    directory: tempfile::TempDir,
    pub policy: Policy,
}

impl ModelDirectory {
    pub fn new() -> Self {
        let from = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../policy/tests/fixtures/models/qwen2-tied");
        let directory = tempfile::tempdir().unwrap();
        for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(from.join(file), directory.path().join(file)).unwrap();
        }
        let config = std::fs::read_to_string(from.join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&config).unwrap();
        config["max_position_embeddings"] = json!(1024);
        std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        std::fs::write(directory.path().join("chat_template.jinja"), COMPACT_TEMPLATE).unwrap();
        let policy = Policy::load(directory.path(), DType::F32, &Device::Cpu).unwrap();
        Self { directory, policy }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Version `version`: the directory's weights for 0, other ones for each later version.
    pub fn version(&self, version: u64) -> Model {
        let config = self.policy.model.config();
        let params = self.policy.model.params();
        let values = params.tensors().iter().map(|tensor| {
            let scaled = tensor.affine(1.0 + version as f64 / 16.0, 0.0).unwrap();
            scaled.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        });
        let params = Params::from_vecs(config, values.collect(), DType::F32, &Device::Cpu).unwrap();
        Model::new(config.clone(), params).unwrap()
    }

    /// The completions of a group as its version samples them.
    pub fn sample(&self, group: u64, version: u64) -> Vec<Completion> {
        let example = Example::from_json(&example(group)).unwrap();
        let messages: Vec<Value> =
            example.prompt.iter().map(|m| Value::Object(m.json().clone())).collect();
        let prompt = self.policy.prompt_tokens(&messages, &example.tools).unwrap();
        let sampling = SAMPLING.with_stop_tokens(self.policy.stop_tokens());
        let mut sampler = Sampler::new(sampling, COMPLETIONS as usize);
        sampler.submit(GroupRequest { group, prompt, model: Arc::new(self.version(version)) });
        let mut completions = Vec::new();
        while sampler.pending() > 0 {
            completions.extend(sampler.step().unwrap());
        }
        completions.sort_by_key(|completion| completion.sample);
        completions
    }

    /// A version as the learner publishes it.
    pub fn publish(&self, version: u64) -> (WeightsManifest, Vec<u8>) {
        let model = self.version(version);
        let params = model.params();
        let mut all = Vec::new();
        let tensors = params.specs().iter().zip(params.tensors()).map(|(spec, tensor)| {
            let data = bytes(tensor).unwrap();
            all.extend_from_slice(&data);
            TensorEntry {
                name: spec.name.clone(),
                dtype: "F32".to_owned(),
                shape: spec.shape.iter().map(|n| *n as u64).collect(),
                bytes: data.len() as u64,
                blake3: blake3::hash(&data).to_string(),
            }
        });
        let tensors = tensors.collect();
        let digest = params.digest().unwrap().to_string();
        (WeightsManifest { version, tensors, total_bytes: all.len() as u64, digest }, all)
    }
}

/// A row, another one for each group.
pub fn example(group: u64) -> String {
    json!({
        "prompt": [{"role": "user", "content": format!("what is {group} and {group}?")}],
        "tools": [{"type": "function", "function": {
            "name": "add", "description": "Adds",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
        }}],
        "reward_model": {"ground_truth": {"tool_call": {"name": "add", "parameters": {"a": group}}}},
    })
    .to_string()
}
