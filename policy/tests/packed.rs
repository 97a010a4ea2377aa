//! A packed group is eight separate sequences: the same log-probabilities, the same gradients.

#![allow(clippy::unwrap_used)]

mod common;

use candle_core::DType;
use common::{MODELS, load, tokens, with_threads};
use octet_policy::kernel::head::Shaping;
use octet_policy::layout::GroupTokens;
use octet_policy::model::{Keep, Model, Params};

fn group(seed: u32) -> GroupTokens {
    let lengths = [1usize, 9, 17, 2, 30, 5, 12, 8];
    GroupTokens {
        prefix: tokens(41, seed),
        suffixes: lengths.iter().zip(1u32..).map(|(&n, s)| tokens(n, seed * 100 + s)).collect(),
    }
}

fn slope(i: usize) -> f32 {
    ((i * 7919 % 101) as f32 - 50.0) / 50.0
}

fn learn(model: &Model, groups: &[GroupTokens], first: usize, grads: &mut Params) -> Vec<f32> {
    let learn = |learned: &octet_policy::model::Learned| {
        Ok((0..learned.logprobs.len()).map(|i| slope(first + i)).collect())
    };
    model.learn(groups, Shaping::default(), Keep::Activations, grads, learn).unwrap().logprobs
}

fn close(a: &[f32], b: &[f32], tolerance: f32, what: &str) {
    assert_eq!(a.len(), b.len());
    let scale = b.iter().fold(0f32, |m, x| m.max(x.abs()));
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance * scale, "{what}: off by {worst:e} of {scale:e}");
}

#[test]
fn a_packed_group_equals_its_separate_sequences() {
    for name in MODELS {
        let model = load(name, DType::F32);
        let group = group(3);
        let mut packed = model.params().zeros_like().unwrap();
        let together = learn(&model, std::slice::from_ref(&group), 0, &mut packed);
        let mut separate = model.params().zeros_like().unwrap();
        let mut apart = Vec::new();
        for suffix in &group.suffixes {
            let one = GroupTokens { prefix: group.prefix.clone(), suffixes: vec![suffix.clone()] };
            apart.extend(learn(&model, &[one], apart.len(), &mut separate));
        }
        close(&together, &apart, 1e-5, name);
        for (i, spec) in packed.specs().iter().enumerate() {
            let separate = separate.read(i, <[f32]>::to_vec).unwrap();
            packed
                .read(i, |p| close(p, &separate, 1e-5, &format!("{name} {}", spec.name)))
                .unwrap();
        }
    }
}

#[test]
fn log_probs_do_not_depend_on_other_groups_or_on_threads() {
    for name in MODELS {
        let model = load(name, DType::F32);
        let alone = model.log_probs(&[group(5)], Shaping::default()).unwrap();
        let crowd = [group(1), group(5), group(9)];
        for threads in [1, 2, 3] {
            let all =
                with_threads(threads, || model.log_probs(&crowd, Shaping::default()).unwrap());
            let n = alone.logprobs.len();
            assert_eq!(&all.logprobs[n..2 * n], &alone.logprobs[..], "{name}, {threads} threads");
        }
    }
}

#[test]
fn gradients_do_not_depend_on_threads() {
    for name in MODELS {
        let model = load(name, DType::F32);
        let digests: Vec<_> = [1, 2, 3]
            .map(|threads| {
                with_threads(threads, || {
                    let mut grads = model.params().zeros_like().unwrap();
                    learn(&model, &[group(1), group(2)], 0, &mut grads);
                    grads.digest().unwrap()
                })
            })
            .into();
        assert!(digests.windows(2).all(|w| w[0] == w[1]), "{name}");
    }
}

/// Along random directions, in f64 through the composite operations and candle's tape.
#[test]
fn gradients_pass_finite_differences() {
    for name in MODELS {
        let model = load(name, DType::F64);
        let group = group(7);
        let mut grads = model.params().zeros_like().unwrap();
        let loss = |model: &Model| -> f64 {
            let all = model.log_probs(std::slice::from_ref(&group), Shaping::default()).unwrap();
            all.logprobs.iter().enumerate().map(|(i, &l)| f64::from(slope(i)) * f64::from(l)).sum()
        };
        learn(&model, std::slice::from_ref(&group), 0, &mut grads);
        for i in 0..grads.specs().len() {
            let weights: Vec<_> = model.params().tensors().to_vec();
            let direction = grads.tensors()[i].sign().unwrap();
            // The head's logits are rounded to f32, so the step must be far above that.
            let size = 1e-3 / (grads.specs()[i].len() as f64).sqrt();
            let at = |factor: f64| {
                let mut moved = weights.clone();
                moved[i] = (&weights[i] + (&direction * (factor * size)).unwrap()).unwrap();
                let params = Params::new(model.config(), moved).unwrap();
                loss(&Model::new(model.config().clone(), params).unwrap())
            };
            let measured = (at(1.0) - at(-1.0)) / (2.0 * size);
            let expected = (&grads.tensors()[i] * &direction).unwrap().sum_all().unwrap();
            let expected = expected.to_scalar::<f64>().unwrap();
            let error = (measured - expected).abs() / expected.abs().max(1e-6);
            assert!(
                error < 2e-2,
                "{name} {}: {measured} against {expected}",
                grads.specs()[i].name
            );
        }
    }
}
