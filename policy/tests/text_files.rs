//! Model directories: loading what `transformers` wrote, saving, and refusing what is damaged.

#![allow(clippy::unwrap_used)]

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use octet_policy::config::{Dtype, ModelConfig, TensorSpec};
use octet_policy::files::{
    FilesError, StagedDir, StoredTensor, TensorFile, Weights, save_model, write_safetensors,
};
use proptest::prelude::*;

const MODELS: [&str; 5] =
    ["qwen2-tied", "qwen2-untied-sharded", "qwen3-tied", "llama-tied", "llama3-untied-biased"];

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

fn open(name: &str) -> (ModelConfig, Weights) {
    let config = ModelConfig::from_dir(&model(name)).unwrap();
    let weights = Weights::open(&model(name), &config).unwrap();
    (config, weights)
}

/// A copy of a fixture that a test may damage.
fn copy(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(model(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

fn refusal(dir: &Path) -> String {
    let config = ModelConfig::from_dir(dir).unwrap();
    Weights::open(dir, &config).unwrap_err().to_string()
}

fn save(target: &Path, name: &str, dtype: Dtype) -> Result<(), FilesError> {
    let (config, weights) = open(name);
    save_model(target, &config, dtype, &model(name), |spec| {
        Cow::Owned(weights.f32(&spec.name).unwrap())
    })
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_transformers_saved_is_loaded_whole() {
    for name in MODELS {
        let (config, weights) = open(name);
        let mut elements = 0;
        for spec in weights.specs() {
            let values = weights.f32(&spec.name).unwrap();
            assert_eq!(values.len(), spec.len(), "{name} {}", spec.name);
            assert!(values.iter().any(|v| *v != 0.0) && values.iter().all(|v| v.is_finite()));
            elements += values.len();
        }
        assert_eq!(elements, config.param_count());
        // transformers stores the gradients of exactly its parameters: the names must agree.
        let gradients = TensorFile::open(&model(name).join("gradients.safetensors")).unwrap();
        let mut ours: Vec<_> = weights.specs().iter().map(|spec| spec.name.as_str()).collect();
        ours.sort_unstable();
        assert_eq!(gradients.names().collect::<Vec<_>>(), ours, "{name}");
    }
}

#[test]
fn saving_keeps_every_bit_and_leaves_nothing_else_behind() {
    for name in MODELS {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("saved");
        save(&target, name, Dtype::F32).unwrap();
        save(&parent.path().join("again"), name, Dtype::F32).unwrap();
        assert_eq!(names_in(parent.path()), ["again", "saved"]);
        let bytes =
            |dir: &str| fs::read(parent.path().join(dir).join("model.safetensors")).unwrap();
        assert!(bytes("saved") == bytes("again"), "{name}: two saves differ");

        let (config, before) = open(name);
        let saved = ModelConfig::from_dir(&target).unwrap();
        assert_eq!(saved.raw["vocab_size"], config.raw["vocab_size"]);
        assert_eq!(saved.dtype, Some(Dtype::F32));
        let after = Weights::open(&target, &saved).unwrap();
        for spec in before.specs() {
            assert_eq!(before.raw(&spec.name).unwrap(), after.raw(&spec.name).unwrap(), "{name}");
        }
        let file = TensorFile::open(&target.join("model.safetensors")).unwrap();
        assert_eq!(file.metadata()["format"], "pt");
    }
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("a/b/saved");
    save(&target, "qwen2-tied", Dtype::F32).unwrap();
    assert_eq!(
        names_in(&target),
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    );
}

#[test]
fn halves_are_rounded_to_nearest_even_and_widened_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.safetensors");
    // One bf16 step at 1.0 is 2^-7; half of it is a tie, and the even neighbour wins.
    let step = 2f32.powi(-7);
    let values =
        [1.0, 1.0 + step / 2.0, 1.0 + 1.5 * step, 1.0 + 0.6 * step, -0.0, f32::INFINITY, 1e-40];
    let rounded = [1.0, 1.0, 1.0 + 2.0 * step, 1.0 + step, -0.0, f32::INFINITY, 1e-40];
    let spec = |name: &str| TensorSpec { name: name.into(), shape: vec![values.len()] };
    let tensors = [
        StoredTensor { spec: spec("b"), dtype: Dtype::Bf16 },
        StoredTensor { spec: spec("a"), dtype: Dtype::F32 },
        StoredTensor { spec: spec("h"), dtype: Dtype::F16 },
    ];
    write_safetensors(&path, &[], &tensors, |_| Cow::Borrowed(&values)).unwrap();
    let file = TensorFile::open(&path).unwrap();
    assert_eq!(file.f32("a").unwrap(), values);
    let b = file.f32("b").unwrap();
    assert_eq!(b[..6], rounded[..6]);
    assert!((b[6] - 1e-40).abs() < 1e-40, "a subnormal keeps its magnitude");
    assert!(b[4].is_sign_negative());
    // f16 has three more bits: 1 + step / 2 is exact there.
    assert_eq!(file.f32("h").unwrap()[..3], values[..3]);
    assert_eq!(file.raw("b").unwrap().0, Dtype::Bf16);

    let target = dir.path().join("model");
    save(&target, "llama-tied", Dtype::Bf16).unwrap();
    let config = ModelConfig::from_dir(&target).unwrap();
    assert_eq!(config.dtype, Some(Dtype::Bf16));
    let (_, before) = open("llama-tied");
    let after = Weights::open(&target, &config).unwrap();
    for spec in before.specs() {
        for (x, y) in before.f32(&spec.name).unwrap().iter().zip(after.f32(&spec.name).unwrap()) {
            assert!((x - y).abs() <= x.abs() / 256.0, "{} {x} {y}", spec.name);
        }
    }
}

#[test]
fn nothing_is_overwritten_or_left_half_written() {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("saved");
    save(&target, "qwen2-tied", Dtype::F32).unwrap();
    let error = save(&target, "qwen2-tied", Dtype::F32).unwrap_err().to_string();
    assert!(error.contains("saved exists already"), "{error}");

    let (config, _) = open("qwen2-tied");
    let short = parent.path().join("short");
    let error = save_model(&short, &config, Dtype::F32, parent.path(), |_| Cow::Owned(vec![0.0]));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("model.embed_tokens.weight") && error.contains("found 1"), "{error}");
    assert_eq!(names_in(parent.path()), ["saved"], "a failed save left something behind");

    // What a killed process leaves is cleared away by the next attempt.
    let left = parent.path().join(".next.partial");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("junk"), "x").unwrap();
    let staged = StagedDir::create(&parent.path().join("next")).unwrap();
    staged.write("folder/file", b"y").unwrap();
    assert_eq!(names_in(staged.path()), ["folder"]);
    staged.commit().unwrap();
    assert_eq!(names_in(parent.path()), ["next", "saved"]);
    drop(StagedDir::create(&parent.path().join("dropped")).unwrap());
    assert_eq!(names_in(parent.path()), ["next", "saved"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named_with_the_bytes_needed() {
    let spec = TensorSpec { name: "t".into(), shape: vec![1 << 19] };
    let values = vec![1.0; spec.len()];
    let tensors = [StoredTensor { spec, dtype: Dtype::F32 }];
    let full = Path::new("/dev/full");
    let error = write_safetensors(full, &[], &tensors, |_| Cow::Borrowed(&values)).unwrap_err();
    match &error {
        FilesError::Write { path, bytes, source } => {
            assert_eq!(path, full);
            assert!((2_097_152..2_098_000).contains(bytes), "{bytes}");
            assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
        }
        other => panic!("{other}"),
    }
    assert!(error.to_string().contains("No space left"), "{error}");
}

#[test]
fn every_wrong_tensor_is_listed() {
    let dir = copy("qwen2-tied");
    let (_, weights) = open("qwen2-tied");
    let mut tensors = Vec::new();
    for mut spec in weights.specs().to_vec() {
        match spec.name.as_str() {
            "model.norm.weight" | "model.layers.1.self_attn.q_proj.bias" => continue,
            "model.layers.0.mlp.up_proj.weight" => spec.shape.reverse(),
            "model.layers.0.mlp.down_proj.weight" => spec.name.push_str(".old"),
            _ => {}
        }
        tensors.push(StoredTensor { spec, dtype: Dtype::F32 });
    }
    // Tolerated: what other software stores although it follows from the rest.
    for name in ["lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"] {
        let spec = TensorSpec { name: name.into(), shape: vec![2] };
        tensors.push(StoredTensor { spec, dtype: Dtype::F32 });
    }
    let path = dir.path().join("model.safetensors");
    write_safetensors(&path, &[], &tensors, |spec| Cow::Owned(vec![0.5; spec.len()])).unwrap();
    let config = ModelConfig::from_dir(dir.path()).unwrap();
    let Err(FilesError::Tensors { problems, .. }) = Weights::open(dir.path(), &config) else {
        panic!("accepted");
    };
    assert_eq!(
        problems,
        [
            "`model.layers.0.mlp.up_proj.weight` has the wrong shape, expected [48, 32], found [32, 48]",
            "`model.layers.0.mlp.down_proj.weight` is missing, expected [32, 48]",
            "`model.layers.1.self_attn.q_proj.bias` is missing, expected [32]",
            "`model.norm.weight` is missing, expected [32]",
            "`model.layers.0.mlp.down_proj.weight.old` is unexpected",
        ]
    );
}

#[test]
fn damaged_files_are_refused_by_name() {
    let dir = copy("qwen2-tied");
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in [0, 4, 8, 100, 5000, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = refusal(dir.path());
        assert!(error.contains("model.safetensors") && error.contains("damaged"), "{error}");
        assert!(error.contains(&format!("found {length}")), "{length}: {error}");
        if length >= 5000 {
            assert!(error.contains(&format!("expected {} bytes", whole.len())), "{error}");
        }
    }
    let mut longer = whole.clone();
    longer.push(0);
    fs::write(&path, &longer).unwrap();
    assert!(refusal(dir.path()).contains(&format!("found {}", longer.len())));
    let mut garbage = whole.clone();
    garbage[8..16].fill(b'x');
    fs::write(&path, &garbage).unwrap();
    assert!(refusal(dir.path()).contains("expected a safetensors file"));
    fs::remove_file(&path).unwrap();
    let error = refusal(dir.path());
    assert!(error.contains("has no weights") && error.contains("index.json"), "{error}");
}

#[test]
fn damaged_shards_and_indices_are_refused_by_name() {
    let dir = copy("qwen2-untied-sharded");
    let index = dir.path().join("model.safetensors.index.json");
    let text = fs::read_to_string(&index).unwrap();
    let shard = "model-00002-of-00003.safetensors";
    for (content, part) in [
        ("{".to_owned(), "expected JSON"),
        ("{}".to_owned(), "weight_map"),
        (text.replace(shard, "../outside.safetensors"), "../outside.safetensors"),
        (text.replace(shard, "absent.safetensors"), "absent.safetensors"),
        (text.replace("lm_head.weight", "lm_tail.weight"), "`lm_tail.weight` is in model.safe"),
    ] {
        fs::write(&index, content).unwrap();
        let error = refusal(dir.path());
        assert!(error.contains(part), "{part}: {error}");
    }
    fs::write(&index, &text).unwrap();
    fs::copy(dir.path().join(shard), dir.path().join("model-00001-of-00003.safetensors")).unwrap();
    let error = refusal(dir.path());
    assert!(error.contains("is in two shards") && error.contains("is missing"), "{error}");
}

#[test]
fn config_files_are_refused_by_name() {
    let dir = copy("qwen2-tied");
    let path = dir.path().join("config.json");
    fs::write(&path, "{\"model_type\": \"qwen2\",").unwrap();
    let error = ModelConfig::from_dir(dir.path()).unwrap_err().to_string();
    assert!(error.contains("config.json") && error.contains("line 1"), "{error}");
    fs::write(&path, "[1]").unwrap();
    let error = ModelConfig::from_dir(dir.path()).unwrap_err().to_string();
    assert!(error.contains("expected a JSON object, found [1]"), "{error}");
    fs::remove_file(&path).unwrap();
    let error = ModelConfig::from_dir(dir.path()).unwrap_err().to_string();
    assert!(error.contains("cannot read") && error.contains("config.json"), "{error}");
}

#[test]
fn generation_config_adds_end_tokens() {
    let dir = copy("qwen2-tied");
    fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": [0, 2]}"#).unwrap();
    assert_eq!(ModelConfig::from_dir(dir.path()).unwrap().eos_token_ids, [0, 2]);
    fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": 9999}"#).unwrap();
    let error = ModelConfig::from_dir(dir.path()).unwrap_err().to_string();
    assert!(error.contains("generation_config.json") && error.contains("9999"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_opening_panic(
        header in "\\PC{0,80}", length in any::<u64>(), honest in any::<bool>(),
        tail in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let length = if honest { header.len() as u64 } else { length };
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(header.bytes());
        bytes.extend(tail);
        fs::write(&path, &bytes).unwrap();
        if let Ok(file) = TensorFile::open(&path) {
            for name in file.names() {
                let _ = file.f32(name);
            }
        }
    }

    #[test]
    fn a_flipped_header_byte_is_an_error_or_readable(at in 0usize..3000, byte in any::<u8>()) {
        let mut bytes = fs::read(model("llama-tied").join("model.safetensors")).unwrap();
        bytes[at] = byte;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, &bytes).unwrap();
        if let Ok(file) = TensorFile::open(&path) {
            for name in file.names() {
                let _ = file.f32(name);
            }
        }
    }
}
