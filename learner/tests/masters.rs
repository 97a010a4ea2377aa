//! A model that computes with a copy of the weights learns what one does that computes with them.
//!
//! On a machine without another device the copy is of another type, f64, and takes candle's operations: the way
//! that a GPU takes.
#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device};
use octet_learner::adamw::Hyperparameters;
use octet_learner::update::Updater;
use octet_policy::config::ModelConfig;
use octet_policy::files::Weights;
use octet_policy::kernel::head::Shaping;
use octet_policy::layout::GroupTokens;
use octet_policy::model::{Keep, Model, Params};
use std::path::Path;

fn model() -> Model {
    let fixture =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../policy/tests/fixtures/models/qwen2-tied");
    let config = ModelConfig::from_dir(Path::new(fixture)).unwrap();
    let weights = Weights::open(Path::new(fixture), &config).unwrap();
    let values = weights.specs().iter().map(|spec| weights.f32(&spec.name).unwrap()).collect();
    let params = Params::from_vecs(&config, values, DType::F32, &Device::Cpu).unwrap();
    Model::new(config, params).unwrap()
}

fn groups(step: u32) -> Vec<GroupTokens> {
    let tokens = |n: u32, from: u32| (0..n).map(|i| (i * 17 + from * 31) % 300).collect();
    (0..3)
        .map(|g| GroupTokens {
            prefix: tokens(12, g + step),
            suffixes: (0..4).map(|s| tokens(5 + s, 7 * g + s + step)).collect(),
        })
        .collect()
}

/// Three updates of two micro-batches each.
fn learn(mut updater: Updater) -> Updater {
    for step in 0..3 {
        for half in groups(step).chunks(2) {
            updater
                .accumulate(half, Shaping::default(), |learned| {
                    let slope = |i: usize| if i.is_multiple_of(3) { -0.5 } else { 0.25 };
                    Ok((0..learned.logprobs.len()).map(slope).collect())
                })
                .unwrap();
        }
        updater.apply(1e-3).unwrap();
    }
    updater
}

fn values(params: &Params) -> Vec<f32> {
    (0..params.specs().len()).flat_map(|i| params.read(i, <[f32]>::to_vec).unwrap()).collect()
}

#[test]
fn a_copy_of_the_weights_learns_what_the_weights_learn() {
    let new = || Updater::new(model(), Keep::LayerInputs, Hyperparameters::default()).unwrap();
    let before = values(model().params());
    let plain = learn(new());
    let copied = learn(new().computing(DType::F64, &Device::Cpu).unwrap());
    assert_eq!(copied.model().params().tensors()[0].dtype(), DType::F64);
    let (expected, found) = (values(plain.weights()), values(copied.weights()));
    let apart = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    };
    let (moved, off) = (apart(&expected, &before), apart(&expected, &found));
    assert!(moved > 1e-2, "nothing was learned: {moved:e}");
    // Three steps of AdamW, which divides by the gradient: where that is nearly 0, rounding decides.
    assert!(off < 1e-2 * moved, "moved by {moved:e}, {off:e} apart");
}
