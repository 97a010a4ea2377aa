#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use octet_policy::config::ModelConfig;
use octet_proto::PolicyVersion;
use octet_proto::weights::{TensorEntry, WeightsManifest};
use proptest::prelude::*;

use super::error::{Damage, WeightsError};
use super::intake::Intake;
use super::manifest::{Manifest, Refused};

type Change = fn(&mut WeightsManifest);

pub(super) fn config() -> ModelConfig {
    let fixture =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../policy/tests/fixtures/models/qwen2-tied");
    ModelConfig::from_dir(Path::new(fixture)).unwrap()
}

/// A version with bytes that are no floats in particular.
pub(super) fn published(config: &ModelConfig) -> (WeightsManifest, Vec<u8>) {
    let (mut all, mut tensors, mut digest) = (Vec::new(), Vec::new(), blake3::Hasher::new());
    for (index, spec) in config.tensor_specs().iter().enumerate() {
        let data: Vec<u8> = (0..spec.len() * 2).map(|i| (i * 7 + index) as u8).collect();
        let hash = blake3::hash(&data);
        digest.update(hash.as_bytes());
        tensors.push(TensorEntry {
            name: spec.name.clone(),
            dtype: "BF16".to_owned(),
            shape: spec.shape.iter().map(|n| *n as u64).collect(),
            bytes: data.len() as u64,
            blake3: hash.to_string(),
        });
        all.extend(data);
    }
    let digest = digest.finalize().to_string();
    (WeightsManifest { version: 3, tensors, total_bytes: all.len() as u64, digest }, all)
}

fn checked(message: WeightsManifest) -> Result<Manifest, Refused> {
    Manifest::check(message, PolicyVersion(3), &config().tensor_specs())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_chunks_with_any_damage_end_in_the_published_bytes(
        sizes in proptest::collection::vec(1usize..5000, 1..20),
        wrong in proptest::collection::vec(0usize..50_000, 0..4),
    ) {
        let (message, all) = published(&config());
        let manifest = Arc::new(checked(message).unwrap());
        let mut intake = Intake::new(Arc::clone(&manifest));
        let (mut wrong, mut sizes) = (wrong, sizes.into_iter().cycle());
        while !intake.is_whole() {
            let from = intake.offset() as usize;
            let to = (from + sizes.next().unwrap()).min(all.len());
            let mut chunk = all[from..to].to_vec();
            if let Some(at) = wrong.iter().position(|at| (from..to).contains(at)) {
                let at = wrong.swap_remove(at);
                chunk[at - from] ^= 0x40;
            }
            if let Err(damage) = intake.take(from as u64, &chunk) {
                prop_assert!(matches!(damage, Damage::Tensor { .. }), "{damage}");
                let at = intake.offset();
                prop_assert!(manifest.entries().iter().any(|entry| entry.start == at));
            }
        }
        prop_assert_eq!(intake.offset(), manifest.total());
        let tensors = intake.into_tensors().unwrap();
        let parts: Vec<&[u8]> = tensors.iter().map(|tensor| &tensor[..]).collect();
        prop_assert_eq!(parts.concat(), all);
    }
}

#[test]
fn chunks_that_do_not_fit_are_refused_by_name() {
    let (message, all) = published(&config());
    let mut intake = Intake::new(Arc::new(checked(message).unwrap()));
    intake.take(0, &all[..10]).unwrap();
    assert_eq!(intake.take(20, &all[20..30]), Err(Damage::Offset { expected: 10, found: 20 }));
    let mut intake = intake.into_tensors().unwrap_err();
    intake.take(10, &all[10..]).unwrap();
    let expected = all.len() as u64;
    assert_eq!(intake.take(expected, &[0]), Err(Damage::TooLong { expected }));
}

#[test]
fn a_manifest_of_another_model_is_refused_for_good() {
    let (good, _) = published(&config());
    assert!(checked(good.clone()).is_ok());
    let cases: [(&str, Change); 6] = [
        ("tensors", |m| drop(m.tensors.pop())),
        ("another.weight", |m| m.tensors[1].name = "another.weight".to_owned()),
        ("[1]", |m| m.tensors[1].shape = vec![1]),
        ("I64", |m| m.tensors[1].dtype = "I64".to_owned()),
        ("7 bytes", |m| m.tensors[1].bytes = 7),
        ("9 bytes", |m| m.total_bytes = 9),
    ];
    for (found, change) in cases {
        let mut message = good.clone();
        change(&mut message);
        let Err(Refused::Never(error)) = checked(message) else {
            panic!("`{found}` was taken");
        };
        assert!(matches!(error, WeightsError::OtherModel { .. }));
        let text = error.to_string();
        assert!(text.contains("version 3") && text.contains(found), "{text}");
        assert!(text.contains("expected") && text.contains("start the worker"), "{text}");
    }
    // An order that is not the model's is another model too.
    let mut message = good;
    message.tensors.swap(0, 1);
    assert!(matches!(checked(message), Err(Refused::Never(_))));
}

#[test]
fn a_manifest_that_contradicts_itself_is_fetched_again() {
    let (good, _) = published(&config());
    let cases: [Change; 4] = [
        |m| m.version = 4,
        |m| m.digest = "zz".to_owned(),
        |m| m.tensors[0].blake3 = String::new(),
        |m| m.tensors[0].blake3 = m.tensors[1].blake3.clone(),
    ];
    for change in cases {
        let mut message = good.clone();
        change(&mut message);
        assert!(matches!(checked(message), Err(Refused::Damaged(_))));
    }
}
