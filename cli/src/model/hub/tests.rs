//! Where the hub and its cache are, and what of a repository a model is made of.

#![allow(clippy::unwrap_used)]

use super::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn hub(variables: &[(&str, &str)]) -> Hub {
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    Hub::from(|name| variables.get(name).map(|value| (*value).to_owned())).unwrap()
}

#[test]
fn the_environment_is_read_as_hugging_face_reads_it() {
    assert_eq!(hub(&[("HOME", "/h")]).cache, Path::new("/h/.cache/huggingface/hub"));
    assert_eq!(
        hub(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")]).cache,
        Path::new("/c/huggingface/hub")
    );
    assert_eq!(hub(&[("HOME", "/h"), ("HF_HOME", "/f")]).cache, Path::new("/f/hub"));
    assert_eq!(hub(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]).cache, Path::new("/c"));
    assert_eq!(hub(&[("HOME", "/h")]).endpoint, "https://huggingface.co");
    assert_eq!(hub(&[("HOME", "/h"), ("HF_ENDPOINT", "http://m/")]).endpoint, "http://m");
    for (value, offline) in [("1", true), ("true", true), ("0", false), ("no", false)] {
        assert_eq!(hub(&[("HOME", "/h"), ("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
    }
    assert!(Hub::from(|_| None).is_err());
}

#[test]
fn the_token_comes_from_the_variable_or_the_usual_file() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path().to_str().unwrap();
    assert_eq!(hub(&[("HF_HOME", at)]).token, None);
    std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
    assert_eq!(hub(&[("HF_HOME", at)]).token.unwrap(), "hf_file");
    assert_eq!(hub(&[("HF_HOME", at), ("HF_TOKEN", "hf_set")]).token.unwrap(), "hf_set");
    let elsewhere = home.path().join("other");
    std::fs::write(&elsewhere, "hf_other").unwrap();
    let set = [("HF_HOME", at), ("HF_TOKEN_PATH", elsewhere.to_str().unwrap())];
    assert_eq!(hub(&set).token.unwrap(), "hf_other");
}

fn listing(names: &[&str]) -> Listing {
    let files: Vec<Value> =
        names.iter().map(|name| json!({"rfilename": name, "size": 7, "blobId": "b"})).collect();
    serde_json::from_value(json!({"sha": "0123456789abcdef", "siblings": files})).unwrap()
}

fn named(file: Option<&str>) -> HubName {
    HubName { id: "a/b".into(), file: file.map(str::to_owned), revision: "main".into() }
}

fn wanted(names: &[&str]) -> Result<Vec<String>> {
    let wanted = listing(names).wanted(&named(None))?;
    Ok(wanted.into_iter().map(|file| file.name).collect())
}

#[test]
fn a_model_is_its_configuration_tokenizer_and_safetensors() {
    let all = [
        "model.safetensors",
        "README.md",
        "config.json",
        "tokenizer.json",
        "pytorch_model.bin",
        "onnx/model.onnx",
        "../model-1.safetensors",
        "original/model-1.safetensors",
    ];
    assert_eq!(wanted(&all).unwrap(), ["config.json", "tokenizer.json", "model.safetensors"]);
    let sharded = [
        "model-00002-of-00002.safetensors",
        "model-00001-of-00002.safetensors",
        "config.json",
        "model.safetensors.index.json",
    ];
    assert_eq!(
        wanted(&sharded).unwrap(),
        [
            "config.json",
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ]
    );
    let error = wanted(&["config.json", "pytorch_model.bin"]).unwrap_err().to_string();
    assert!(error.contains("pytorch_model.bin"), "{error}");
    let error = wanted(&["b-q4_0.gguf"]).unwrap_err().to_string();
    assert!(error.contains("a/b/FILE.gguf: b-q4_0.gguf"), "{error}");
    let error = listing(&["x.gguf"]).wanted(&named(Some("y.gguf"))).unwrap_err().to_string();
    assert!(error.contains("y.gguf") && error.contains("x.gguf"), "{error}");
    let strange = json!({"sha": "../..", "siblings": [{"rfilename": "config.json"}]});
    let strange: Listing = serde_json::from_value(strange).unwrap();
    assert!(strange.wanted(&named(None)).is_err());
}
