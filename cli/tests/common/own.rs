//! octet's own log-probabilities of the next token, to be compared with other implementations'.

#![allow(dead_code, clippy::unwrap_used)]

use candle_core::{DType, Device};
use octet_policy::kernel::head::Shaping;
use octet_policy::policy::Policy;
use octet_policy::sampler::{GroupRequest, Manner, Sampler, Sampling};
use std::path::Path;
use std::sync::Arc;

/// Of every token of the vocabulary, after these.
pub fn logprobs(directory: &Path, ids: &[u32]) -> Vec<f64> {
    let policy = Policy::load(directory, DType::F32, &Device::Cpu).unwrap();
    let vocabulary = policy.model.config().vocab_size;
    let sampling = Sampling {
        seed: 1,
        completions: 1,
        shaping: Shaping::default(),
        max_tokens: 1,
        stop_tokens: vec![],
    };
    let mut sampler = Sampler::new(sampling.clone(), 1);
    let request = GroupRequest { group: 0, prompt: ids.to_vec(), model: Arc::new(policy.model) };
    let manner = Manner {
        sampling: Arc::new(sampling),
        stream: 0,
        alternatives: Some(vocabulary),
        guide: None,
    };
    sampler.submit_with(request, manner);
    let done = sampler.step().unwrap();
    let mut logprobs = vec![0.0; vocabulary];
    for (id, logprob) in &done[0].notes[0].likeliest {
        logprobs[*id as usize] = f64::from(*logprob);
    }
    logprobs
}

/// The largest difference.
pub fn gap(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}
