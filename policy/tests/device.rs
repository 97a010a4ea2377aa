//! The model on another device than the CPU: the same numbers within the rounding of its type.
//!
//! Needs one, and says so: `OCTET_TEST_DEVICE=cuda:0 cargo test --release -p octet-policy --features cuda
//! --test device -- --nocapture`.

#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device};
use common::{MODELS, load, tokens};
use octet_policy::kernel::head::Shaping;
use octet_policy::layout::{GroupTokens, PackedGroups};
use octet_policy::model::{Keep, Model, Params};
use octet_policy::sampler::{GroupRequest, Sampler, Sampling};
use std::sync::Arc;

const DEVICE: &str = "OCTET_TEST_DEVICE";

fn device() -> Option<Device> {
    let Ok(name) = std::env::var(DEVICE) else {
        eprintln!("SKIPPED: no device to compute on; {DEVICE}=cuda:0 names one");
        return None;
    };
    let ordinal = name.strip_prefix("cuda:").unwrap().parse().unwrap();
    Some(Device::new_cuda(ordinal).unwrap())
}

fn groups() -> Vec<GroupTokens> {
    let suffixes = |g| (0..8).map(|s| tokens(9 + s as usize, 40 * g + s)).collect();
    (1..4)
        .map(|g| GroupTokens { prefix: tokens(20 * g as usize, g), suffixes: suffixes(g) })
        .collect()
}

/// Log-probabilities and gradients of Σ ± log p.
fn learn(model: &Model, device: &Device) -> (Vec<f32>, Params) {
    let zeros = model.params().zeros_like().unwrap();
    let mut gradients = zeros.to(DType::F32, device).unwrap();
    let slope = |i: usize| if i.is_multiple_of(3) { -0.5 } else { 0.25 };
    let learned = model
        .learn(&groups(), Shaping::default(), Keep::Activations, &mut gradients, |learned| {
            Ok((0..learned.logprobs.len()).map(slope).collect())
        })
        .unwrap();
    (learned.logprobs, gradients.to(DType::F32, &Device::Cpu).unwrap())
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn log_probs_and_gradients_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    for name in MODELS {
        let reference = load(name, DType::F32);
        let (expected, gradients) = learn(&reference, &Device::Cpu);
        for (dtype, bound, of_gradients) in [(DType::F32, 1e-4, 1e-3), (DType::BF16, 0.5, 0.5)] {
            let model = reference.to(dtype, &device).unwrap();
            let (found, on_device) = learn(&model, &device);
            let gap = worst(&expected, &found);
            let mut largest = 0f32;
            for i in 0..gradients.specs().len() {
                let scale =
                    gradients.read(i, |g| g.iter().fold(1e-3f32, |m, x| m.max(x.abs()))).unwrap();
                let off =
                    gradients.read(i, |a| on_device.read(i, |b| worst(a, b)).unwrap()).unwrap();
                largest = largest.max(off / scale);
            }
            eprintln!(
                "{name} {dtype:?}: log-probabilities off by {gap:e}, gradients by {largest:e}"
            );
            assert!(gap < bound, "{name} {dtype:?}: log-probabilities are off by {gap:e}");
            assert!(largest < of_gradients, "{name} {dtype:?}: gradients are off by {largest:e}");
        }
    }
}

#[test]
fn logits_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let prompts: Vec<Vec<u32>> = (1..4).map(|g| tokens(30 * g as usize, g)).collect();
    let packed = PackedGroups::prompts(prompts.iter().map(Vec::as_slice));
    for name in MODELS {
        let reference = load(name, DType::F32);
        let logits = |model: &Model| {
            let logits = model.all_logits(&packed).unwrap().to_dtype(DType::F32).unwrap();
            logits.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let gap = worst(&logits(&reference), &logits(&reference.to(DType::F32, &device).unwrap()));
        eprintln!("{name}: logits off by {gap:e}");
        assert!(gap < 1e-4, "{name}: logits are off by {gap:e}");
    }
}

#[test]
fn the_learner_finds_the_samplers_log_probs_within_rounding() {
    let Some(device) = device() else { return };
    for name in MODELS {
        for (dtype, bound) in [(DType::F32, 1e-4), (DType::BF16, 0.5)] {
            let model = Arc::new(load(name, DType::F32).to(dtype, &device).unwrap());
            let shaping = Shaping::default();
            let stop_tokens = vec![7, 11, 200];
            let sampling =
                Sampling { seed: 42, completions: 8, shaping, max_tokens: 24, stop_tokens };
            let mut sampler = Sampler::new(sampling, 16);
            let prompt = |g: u64| tokens(20 + 13 * g as usize, g as u32 + 1);
            for group in 0..3 {
                sampler.submit(GroupRequest { group, prompt: prompt(group), model: model.clone() });
            }
            let mut completions = Vec::new();
            while sampler.pending() > 0 {
                completions.extend(sampler.step().unwrap());
            }
            completions.sort_by_key(|c| (c.group, c.sample));
            let suffixes = |g| completions.iter().filter(move |c| c.group == g);
            let groups: Vec<GroupTokens> = (0..3)
                .map(|g| GroupTokens {
                    prefix: prompt(g),
                    suffixes: suffixes(g).map(|c| c.tokens.clone()).collect(),
                })
                .collect();
            let recorded: Vec<f32> =
                completions.iter().flat_map(|c| c.logprobs.iter().copied()).collect();
            let gap = worst(&recorded, &model.log_probs(&groups, shaping).unwrap().logprobs);
            eprintln!("{name} {dtype:?}: sampler and learner are {gap:e} apart");
            assert!(gap < bound, "{name} {dtype:?}: sampler and learner are {gap:e} apart");
        }
    }
}
