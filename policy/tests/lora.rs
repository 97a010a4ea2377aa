//! Adapters: their gradients, that samplers and learners agree on them, and that what is stored is what was trained.

#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device};
use common::{MODELS, directory, load, tokens, with_threads};
use octet_policy::files::{
    ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, AdapterBase, AdapterFiles, StagedDir, write_adapter,
};
use octet_policy::kernel::head::Shaping;
use octet_policy::layout::GroupTokens;
use octet_policy::lora::{FreshLora, Lora, Target, Targets};
use octet_policy::model::{Keep, Learned, Model, Params};
use octet_policy::sampler::{GroupRequest, Sampler, Sampling};
use octet_policy::source::Source;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

fn lora(targets: Targets) -> Lora {
    Lora { rank: NonZeroUsize::new(4).unwrap(), alpha: 10.0, targets }
}

/// An adapter as it may be after some steps: `B` is not zero.
fn trained(model: Model, targets: Targets) -> Model {
    let fresh = FreshLora { lora: lora(targets), seed: 7 };
    let model = model.with_fresh_lora(&fresh).unwrap();
    let tensors = model.trained().tensors().iter().zip(model.trained().specs()).enumerate();
    let tensors = tensors.map(|(i, (tensor, spec))| {
        if spec.name.contains("lora_A") {
            return tensor.clone();
        }
        let values: Vec<f32> =
            (0..spec.len()).map(|j| ((i * 31 + j * 17) % 29) as f32 / 140.0 - 0.1).collect();
        let values = candle_core::Tensor::from_vec(values, spec.shape.as_slice(), &Device::Cpu);
        values.unwrap().to_dtype(tensor.dtype()).unwrap()
    });
    let params = Params::of(model.trained().specs().to_vec(), tensors.collect()).unwrap();
    model.with_trained(params)
}

fn group(seed: u32) -> GroupTokens {
    let lengths = [1usize, 9, 17, 2, 30];
    GroupTokens {
        prefix: tokens(41, seed),
        suffixes: lengths.iter().zip(1u32..).map(|(&n, s)| tokens(n, seed * 100 + s)).collect(),
    }
}

fn slope(i: usize) -> f32 {
    ((i * 7919 % 101) as f32 - 50.0) / 50.0
}

fn learn(model: &Model, groups: &[GroupTokens], first: usize, keep: Keep) -> (Params, Vec<f32>) {
    let mut grads = model.trained().zeros_like().unwrap();
    let slopes =
        |learned: &Learned| Ok((0..learned.logprobs.len()).map(|i| slope(first + i)).collect());
    let learned = model.learn(groups, Shaping::default(), keep, &mut grads, slopes).unwrap();
    (grads, learned.logprobs)
}

fn close(a: &[f32], b: &[f32], tolerance: f32, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    let scale = b.iter().fold(0f32, |m, x| m.max(x.abs()));
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance * scale, "{what}: off by {worst:e} of {scale:e}");
}

fn values(params: &Params) -> Vec<Vec<f32>> {
    let flat = params.tensors().iter().map(|t| t.flatten_all().unwrap().to_dtype(DType::F32));
    flat.map(|t| t.unwrap().to_vec1::<f32>().unwrap()).collect()
}

#[test]
fn a_fresh_adapter_changes_no_bit_and_shares_the_weights() {
    for name in MODELS {
        let base = load(name, DType::F32);
        let expected = base.log_probs(&[group(3)], Shaping::default()).unwrap();
        let fresh = FreshLora { lora: lora(Targets::ALL), seed: 1 };
        let model = base.clone().with_fresh_lora(&fresh).unwrap();
        assert_eq!(model.log_probs(&[group(3)], Shaping::default()).unwrap(), expected, "{name}");
        let model = trained(base.clone(), Targets::ALL);
        let moved = model.log_probs(&[group(3)], Shaping::default()).unwrap();
        assert_ne!(moved, expected, "{name}");
        // The reference of a run: the same tensors, not equal ones.
        let reference = model.base();
        assert_eq!(reference.log_probs(&[group(3)], Shaping::default()).unwrap(), expected);
        let ids = |model: &Model| -> Vec<_> {
            model.params().tensors().iter().map(candle_core::Tensor::id).collect()
        };
        assert_eq!(ids(&reference), ids(&base), "{name}");
        assert_eq!(ids(&model.with_trained(model.trained().deep_clone().unwrap())), ids(&base));
    }
}

#[test]
fn a_packed_group_equals_its_separate_sequences() {
    for name in MODELS {
        let model = trained(load(name, DType::F32), Targets::ALL);
        let group = group(3);
        let (packed, together) = learn(&model, std::slice::from_ref(&group), 0, Keep::Activations);
        let (mut apart, mut sums) = (Vec::new(), values(&packed.zeros_like().unwrap()));
        for suffix in &group.suffixes {
            let one = GroupTokens { prefix: group.prefix.clone(), suffixes: vec![suffix.clone()] };
            let (grads, logprobs) = learn(&model, &[one], apart.len(), Keep::Activations);
            apart.extend(logprobs);
            for (sum, values) in sums.iter_mut().zip(values(&grads)) {
                sum.iter_mut().zip(values).for_each(|(s, v)| *s += v);
            }
        }
        close(&together, &apart, 1e-5, name);
        for ((packed, separate), spec) in values(&packed).iter().zip(&sums).zip(packed.specs()) {
            close(packed, separate, 2e-5, &format!("{name} {}", spec.name));
        }
    }
}

#[test]
fn neither_threads_nor_what_is_kept_nor_packing_change_a_bit() {
    for name in MODELS {
        let model = trained(load(name, DType::F32), Targets::ALL);
        let mut frozen = model.clone();
        frozen.freeze().unwrap();
        let groups = [group(1), group(2)];
        let of = |model: &Model, threads, keep| {
            with_threads(threads, || {
                let (grads, logprobs) = learn(model, &groups, 0, keep);
                (grads.digest().unwrap(), logprobs)
            })
        };
        let expected = of(&model, 1, Keep::Activations);
        for threads in [1, 2, 3] {
            assert_eq!(of(&model, threads, Keep::LayerInputs), expected, "{name}");
            assert_eq!(of(&frozen, threads, Keep::Activations), expected, "{name}");
        }
    }
}

/// What the adapter's gradient must be by the chain rule, from that of the merged weights:
/// `dA = s · Bᵀ · dW` and `dB = s · dW · Aᵀ`.
#[test]
fn gradients_are_those_of_the_merged_weights() {
    for name in MODELS {
        for targets in
            [Targets::ALL, Targets::of([Target::Q, Target::V]), Targets::of([Target::Down])]
        {
            let model = trained(load(name, DType::F32), targets);
            let merged = model.merged().unwrap();
            let (grads, adapted) = learn(&model, &[group(4)], 0, Keep::Activations);
            let (whole, plain) = learn(&merged, &[group(4)], 0, Keep::Activations);
            close(&adapted, &plain, 1e-4, name);
            let scale = f64::from(model.lora().unwrap().scale());
            let specs = grads.specs();
            for at in (0..specs.len()).step_by(2) {
                let weight = specs[at].name.replace("lora_A.", "");
                let dw = whole.specs().iter().position(|spec| spec.name == weight).unwrap();
                let dw = (&whole.tensors()[dw] * scale).unwrap();
                let [a, b] = [at, at + 1].map(|at| &model.trained().tensors()[at]);
                let da = b.t().unwrap().matmul(&dw).unwrap();
                let db = dw.matmul(&a.t().unwrap()).unwrap();
                for (found, expected) in [(at, da), (at + 1, db)] {
                    let expected = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                    let what = format!("{name} {}", specs[found].name);
                    grads.read(found, |found| close(found, &expected, 2e-4, &what)).unwrap();
                }
            }
        }
    }
}

/// Along the gradient's signs, in f64 through the composite operations.
#[test]
fn gradients_pass_finite_differences() {
    for name in MODELS {
        let model = trained(load(name, DType::F64), Targets::ALL);
        let group = group(7);
        let loss = |model: &Model| -> f64 {
            let all = model.log_probs(std::slice::from_ref(&group), Shaping::default()).unwrap();
            all.logprobs.iter().enumerate().map(|(i, &l)| f64::from(slope(i)) * f64::from(l)).sum()
        };
        let (grads, _) = learn(&model, std::slice::from_ref(&group), 0, Keep::Activations);
        assert!(grads.tensors().iter().all(|t| t.dtype() == DType::F64));
        for (i, spec) in grads.specs().iter().enumerate() {
            let direction = grads.tensors()[i].sign().unwrap();
            let size = 1e-3 / (spec.len() as f64).sqrt();
            let at = |factor: f64| {
                let mut moved = model.trained().tensors().to_vec();
                moved[i] = (&moved[i] + (&direction * (factor * size)).unwrap()).unwrap();
                loss(&model.with_trained(Params::of(grads.specs().to_vec(), moved).unwrap()))
            };
            let measured = (at(1.0) - at(-1.0)) / (2.0 * size);
            let expected = (&grads.tensors()[i] * &direction).unwrap().sum_all().unwrap();
            let expected = expected.to_scalar::<f64>().unwrap();
            let error = (measured - expected).abs() / expected.abs().max(1e-6);
            assert!(error < 2e-2, "{name} {}: {measured} against {expected}", spec.name);
        }
        // And the kernels against these.
        let fused = trained(load(name, DType::F32), Targets::ALL);
        let (fused, _) = learn(&fused, std::slice::from_ref(&group), 0, Keep::Activations);
        for ((fused, oracle), spec) in values(&fused).iter().zip(values(&grads)).zip(grads.specs())
        {
            close(fused, &oracle, 1e-4, &format!("{name} {}", spec.name));
        }
    }
}

#[test]
fn the_sampler_and_the_learner_agree_to_the_bit() {
    for name in MODELS {
        let model = trained(load(name, DType::F32), Targets::ALL);
        let mut frozen = model.clone();
        frozen.freeze().unwrap();
        // A second version beside it, as in a swap: the weights below are packed once.
        let other = frozen.with_trained(model.trained().zeros_like().unwrap());
        let versions = [Arc::new(frozen), Arc::new(other)];
        let sampling = Sampling {
            seed: 5,
            completions: 4,
            shaping: Shaping::default(),
            max_tokens: 12,
            stop_tokens: vec![2],
        };
        let mut sampler = Sampler::new(sampling, 32);
        for group in 0..6u64 {
            let version = Arc::clone(&versions[group as usize % 2]);
            let prompt = tokens(20 + 7 * group as usize, group as u32 + 1);
            sampler.submit(GroupRequest { group, prompt, model: version });
        }
        let mut ended = Vec::new();
        while sampler.pending() > 0 {
            ended.extend(sampler.step().unwrap());
        }
        assert_eq!(ended.len(), 24);
        for completion in ended {
            let learner = if completion.group % 2 == 0 { model.clone() } else { model.base() };
            let group = GroupTokens {
                prefix: tokens(20 + 7 * completion.group as usize, completion.group as u32 + 1),
                suffixes: vec![completion.tokens.clone()],
            };
            let found = learner.log_probs(&[group], Shaping::default()).unwrap();
            assert_eq!(found.logprobs, completion.logprobs, "{name}");
        }
    }
}

/// Writes an adapter of a fixture into `folder`.
fn written(folder: &Path, model: &Model, base: &AdapterBase) -> std::path::PathBuf {
    let target = folder.join("adapter");
    let staged = StagedDir::create(&target).unwrap();
    write_adapter(&staged, model.lora().unwrap(), base, model.trained()).unwrap();
    staged.commit().unwrap();
    target
}

fn base_of(name: &str) -> AdapterBase {
    let digest = load(name, DType::F32).params().digest().unwrap().to_hex().to_string();
    AdapterBase { name: directory(name).display().to_string(), digest: Some(digest) }
}

#[test]
fn what_is_stored_is_what_was_trained() {
    let folder = tempfile::tempdir().unwrap();
    let name = "qwen2-tied";
    let model = trained(load(name, DType::F32), Targets::of([Target::K, Target::Gate]));
    let target = written(folder.path(), &model, &base_of(name));
    let files = AdapterFiles::open(&target).unwrap();
    assert_eq!((files.lora(), files.base()), (*model.lora().unwrap(), &base_of(name)));
    let again = files.params(model.config(), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(again.digest().unwrap(), model.trained().digest().unwrap());
    // The directory with its base is a source like any other.
    let source = Source::open(&target).unwrap();
    assert_eq!(source.config().unwrap().tensor_specs(), model.config().tensor_specs());
    let weights = source.weights(model.config()).unwrap();
    assert_eq!(Params::digest_of(&weights), model.params().digest().unwrap());
    assert_eq!(source.companions(&target), directory(name));
    // Nothing of the base is in it.
    let names: Vec<_> =
        std::fs::read_dir(&target).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn what_would_be_computed_differently_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let name = "qwen2-tied";
    let model = trained(load(name, DType::F32), Targets::ALL);
    let target = written(folder.path(), &model, &base_of(name));
    let config = target.join(ADAPTER_CONFIG_FILE);
    let whole: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    let refused = |key: &str, value: serde_json::Value| {
        let mut changed = whole.clone();
        changed[key] = value;
        std::fs::write(&config, changed.to_string()).unwrap();
        let error = Source::open(&target).and_then(|source| {
            let config = source.config()?;
            source.weights(&config)?;
            source.adapter().unwrap().params(&config, DType::F32, &Device::Cpu).map(|_| ())
        });
        error.unwrap_err().to_string()
    };
    for (key, value, words) in [
        ("use_dora", true.into(), "`use_dora`: true"),
        ("use_rslora", true.into(), "merge this one with peft"),
        ("bias", "all".into(), "`bias`: \"all\""),
        ("peft_type", "IA3".into(), "`peft_type` \"LORA\""),
        ("rank_pattern", serde_json::json!({"q_proj": 2}), "`rank_pattern`"),
        ("r", 0.into(), "`r` of at least 1"),
        ("r", 8.into(), "has the wrong shape, expected [8,"),
        ("target_modules", serde_json::json!(["q_proj", "lm_head"]), "\"lm_head\""),
        ("target_modules", serde_json::json!(["q_proj"]), "is unexpected"),
        ("base_model_name_or_path", "Qwen/Qwen2.5-7B".into(), "an adapter of `Qwen/Qwen2.5-7B`"),
        (
            "base_model_name_or_path",
            directory("qwen2-untied-sharded").display().to_string().into(),
            "was trained on a base whose weights have the digest",
        ),
        ("base_model_name_or_path", target.display().to_string().into(), "merge that one first"),
    ] {
        let error = refused(key, value);
        assert!(error.contains(words), "{key}: {error}");
    }
    std::fs::write(&config, whole.to_string()).unwrap();
    let weights = target.join(ADAPTER_WEIGHTS_FILE);
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 9]).unwrap();
    let error = Source::open(&target).unwrap_err().to_string();
    assert!(error.contains("is damaged"), "{error}");
}
