//! Logits, log-probabilities and gradients equal those of `transformers` on random weights.

#![allow(clippy::unwrap_used)]

mod common;

use candle_core::DType;
use common::{MODELS, cases, ids, load, tensors};
use octet_policy::kernel::head::Shaping;
use octet_policy::layout::{GroupTokens, PackedGroups};
use octet_policy::model::{Keep, Params};

#[test]
fn logits_agree_with_transformers() {
    for name in MODELS {
        let (model, cases, file) =
            (load(name, DType::F32), cases(name), tensors(name, "logits.safetensors"));
        let sequences: Vec<Vec<u32>> =
            cases["sequences"].as_array().unwrap().iter().map(ids).collect();
        // Packed together: what one computes must not touch the other.
        let packed = PackedGroups::prompts(sequences.iter().map(Vec::as_slice));
        let ours =
            model.all_logits(&packed).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let theirs: Vec<f32> =
            (0..sequences.len()).flat_map(|i| file.f32(&format!("logits.{i}")).unwrap()).collect();
        assert_eq!(ours.len(), theirs.len(), "{name}");
        let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "{name}: logits are off by {worst:e}");
    }
}

/// The fixture's loss: Σ coefficient · log p(token), over some positions of one sequence.
fn gradients(name: &str, keep: Keep) -> (Params, Vec<f32>) {
    let (model, case) = (load(name, DType::F32), cases(name)["gradient"].clone());
    let all = ids(&case["ids"]);
    let positions = ids(&case["positions"]);
    let coefficients: Vec<f32> = serde_json::from_value(case["coefficients"].clone()).unwrap();
    let group = GroupTokens { prefix: all[..1].to_vec(), suffixes: vec![all[1..].to_vec()] };
    let mut grads = model.params().zeros_like().unwrap();
    let learned = model
        .learn(&[group], Shaping::default(), keep, &mut grads, |learned| {
            let mut slopes = vec![0f32; learned.logprobs.len()];
            for (&at, &c) in positions.iter().zip(&coefficients) {
                slopes[at as usize - 1] += c;
            }
            Ok(slopes)
        })
        .unwrap();
    (grads, positions.iter().map(|&at| learned.logprobs[at as usize - 1]).collect())
}

#[test]
fn log_probs_and_gradients_agree_with_transformers() {
    for name in MODELS {
        let (grads, logprobs) = gradients(name, Keep::Activations);
        let case = cases(name)["gradient"].clone();
        let theirs: Vec<f32> = serde_json::from_value(case["logprobs"].clone()).unwrap();
        for (a, b) in logprobs.iter().zip(&theirs) {
            assert!((a - b).abs() < 2e-5 * b.abs(), "{name}: log-probability {a} against {b}");
        }
        let file = tensors(name, "gradients.safetensors");
        for (i, spec) in grads.specs().iter().enumerate() {
            let theirs = file.f32(&spec.name).unwrap();
            grads
                .read(i, |ours| {
                    let scale = theirs.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
                    let worst =
                        ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(
                        worst < 2e-4 * scale,
                        "{name} {}: off by {worst:e} of {scale:e}",
                        spec.name
                    );
                    assert!(ours.iter().any(|x| *x != 0.0), "{name} {}: no gradient", spec.name);
                })
                .unwrap();
        }
    }
}

#[test]
fn recomputing_layers_changes_no_bit() {
    for name in MODELS {
        let (kept, _) = gradients(name, Keep::Activations);
        let (again, _) = gradients(name, Keep::LayerInputs);
        assert_eq!(kept.digest().unwrap(), again.digest().unwrap(), "{name}");
    }
}
