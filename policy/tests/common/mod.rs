//! Fixture models, as the tests of the numeric side load them.

#![allow(dead_code, clippy::unwrap_used)]

use candle_core::{DType, Device};
use octet_policy::config::ModelConfig;
use octet_policy::files::{TensorFile, Weights};
use octet_policy::model::{Model, Params};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// All fixture models, made by `make_fixtures.py` with `transformers`.
pub const MODELS: [&str; 5] =
    ["qwen2-tied", "qwen2-untied-sharded", "qwen3-tied", "llama-tied", "llama3-untied-biased"];

pub fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

pub fn load(name: &str, dtype: DType) -> Model {
    let directory = directory(name);
    let config = ModelConfig::from_dir(&directory).unwrap();
    let weights = Weights::open(&directory, &config).unwrap();
    let values = weights.specs().iter().map(|s| weights.f32(&s.name).unwrap()).collect();
    let params = Params::from_vecs(&config, values, dtype, &Device::Cpu).unwrap();
    Model::new(config, params).unwrap()
}

pub fn cases(name: &str) -> Value {
    let text = std::fs::read(directory(name).join("cases.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

pub fn tensors(name: &str, file: &str) -> TensorFile {
    TensorFile::open(&directory(name).join(file)).unwrap()
}

pub fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Pseudo-random token ids below the fixtures' vocabulary.
pub fn tokens(count: usize, seed: u32) -> Vec<u32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state % 300
        })
        .collect()
}

/// A pool of its own, so that thread counts can differ within one test.
pub fn with_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}
