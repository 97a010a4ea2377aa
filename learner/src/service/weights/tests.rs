#![allow(clippy::unwrap_used)]
use super::*;
use candle_core::{DType, Device};
use octet_policy::config::{Dtype, ModelConfig, TensorSpec};
use octet_policy::files::save_model;
use octet_policy::model::Params;
use octet_policy::source::Source;
use octet_proto::error::error_kind;
use serde_json::json;
use std::borrow::Cow;
use std::path::Path;
use tokio_stream::StreamExt;

/// Weights of 1.3 chunks or so, another one for each version.
fn params(version: u64) -> (ModelConfig, Params) {
    let config = json!({
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 5000,
        "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 16,
        "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        "tie_word_embeddings": true, "eos_token_id": 2,
    });
    let config = ModelConfig::from_value(config, Path::new("config.json")).unwrap();
    let values = config.tensor_specs().into_iter().enumerate().map(|(at, spec)| {
        (0..spec.len()).map(|i| (version * 1000 + at as u64 * 7 + i as u64) as f32).collect()
    });
    let params = Params::from_vecs(&config, values.collect(), DType::F32, &Device::Cpu).unwrap();
    (config, params)
}

fn published(version: u64) -> Published {
    Published::new(PolicyVersion(version), &params(version).1).unwrap()
}

fn service(lag: u64, versions: impl IntoIterator<Item = u64>) -> Weights {
    let publication = Publication::new(lag, versions.into_iter().map(published));
    Weights::new(publication, PolicyVersion(9), CancellationToken::new())
}

async fn manifest(
    service: &Weights,
    version: u64,
    wait_ms: u32,
) -> Result<WeightsManifest, Status> {
    let request = Request::new(GetManifestRequest { version, wait_ms });
    service.get_manifest(request).await.map(Response::into_inner)
}

async fn fetch(service: &Weights, version: u64, offset: u64) -> Vec<WeightsChunk> {
    let request = Request::new(GetChunksRequest { version, offset });
    let stream = service.get_chunks(request).await.unwrap().into_inner();
    stream.map(Result::unwrap).collect().await
}

#[test]
fn the_manifest_is_that_of_the_weights() {
    let (config, params) = params(3);
    let published = Published::new(PolicyVersion(3), &params).unwrap();
    let digests = params.tensor_digests().unwrap();
    assert_eq!(published.digest(), params.digest().unwrap().to_hex().as_str());
    for ((entry, spec), digest) in
        published.manifest().tensors.iter().zip(config.tensor_specs()).zip(digests)
    {
        assert_eq!((entry.name.as_str(), entry.dtype.as_str()), (spec.name.as_str(), "F32"));
        assert_eq!(entry.shape, spec.shape.iter().map(|s| *s as u64).collect::<Vec<_>>());
        assert_eq!(
            (entry.bytes, entry.blake3.as_str()),
            (4 * spec.len() as u64, digest.to_hex().as_str())
        );
    }
    // And back: the model that was sampled with is made from the published bytes.
    let again = published.params(&params).unwrap();
    assert_eq!(again.digest().unwrap(), params.digest().unwrap());
}

#[test]
fn what_was_published_does_not_follow_the_weights() {
    let (_, params) = params(1);
    let published = Published::new(PolicyVersion(1), &params).unwrap();
    let before = published.chunk(0, 64).unwrap();
    params.write(0, |values| values.fill(-1.0)).unwrap();
    assert_eq!(published.chunk(0, 64).unwrap(), before);
}

/// Weights as a checkpoint has them, with a file's element type.
fn checkpoint(version: u64, dtype: Dtype) -> (tempfile::TempDir, ModelConfig, Params) {
    let (config, params) = params(version);
    let values = |spec: &TensorSpec| {
        let at = params.specs().iter().position(|s| s.name == spec.name).unwrap();
        Cow::Owned(params.read(at, <[f32]>::to_vec).unwrap())
    };
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("model");
    save_model(&directory, &config, dtype, home.path(), values).unwrap();
    let weights = Source::Directory(directory).weights(&config).unwrap();
    let params = Params::from_vecs(&config, weights, DType::F32, &Device::Cpu).unwrap();
    (home, config, params)
}

fn stored(version: u64, home: &Path, config: &ModelConfig, params: &Params) -> Published {
    let manifest = super::manifest(PolicyVersion(version), params).unwrap();
    Published::stored(manifest, Stored::open(&home.join("model"), config).unwrap())
}

#[test]
fn files_give_out_the_bytes_that_memory_would() {
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
        let (home, config, params) = checkpoint(1, dtype);
        let held = Published::new(PolicyVersion(1), &params).unwrap();
        let stored = stored(1, home.path(), &config, &params);
        assert_eq!(stored.manifest(), held.manifest());
        // The name is gone, the version is not.
        std::fs::remove_dir_all(home.path().join("model")).unwrap();
        let total = held.manifest().total_bytes;
        for (offset, len) in [
            (0, usize::MAX),
            (0, 1),
            (3, 6),
            (4 * 64 * 5000 - 5, 11),
            (777_777, CHUNK_BYTES),
            (total - 3, 100),
            (total, 1),
        ] {
            let (found, wanted) = (stored.chunk(offset, len), held.chunk(offset, len));
            assert!(found.unwrap() == wanted.unwrap(), "{dtype:?}: {len} bytes from {offset} on");
        }
        let again = stored.params(&params).unwrap();
        assert_eq!(again.digest().unwrap(), params.digest().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_file_that_became_shorter_is_an_error_with_its_name() {
    let (home, config, params) = checkpoint(1, Dtype::F32);
    let publication = Publication::new(0, [stored(1, home.path(), &config, &params)]);
    let service = Weights::new(publication, PolicyVersion(9), CancellationToken::new());
    assert_eq!(fetch(&service, 1, 0).await.len(), 2);
    let file =
        std::fs::File::options().write(true).open(home.path().join("model/model.safetensors"));
    file.unwrap().set_len(500_000).unwrap();
    let request = Request::new(GetChunksRequest { version: 1, offset: 0 });
    let mut stream = service.get_chunks(request).await.unwrap().into_inner();
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!((status.code(), error_kind(&status)), (Code::DataLoss, Some("version-unreadable")));
    assert!(status.message().contains("model.safetensors"), "{status}");
}

#[tokio::test]
async fn a_fetch_that_was_cut_goes_on_where_it_stopped() {
    let service = service(0, [2]);
    let manifest = manifest(&service, 2, 0).await.unwrap();
    let whole = fetch(&service, 2, 0).await;
    assert!(whole.len() > 1 && whole.iter().all(|chunk| chunk.data.len() <= CHUNK_BYTES));
    let bytes: Vec<u8> = whole.iter().flat_map(|chunk| chunk.data.to_vec()).collect();
    assert_eq!(bytes.len() as u64, manifest.total_bytes);
    let mut at = 0;
    for tensor in &manifest.tensors {
        let end = at + tensor.bytes as usize;
        assert_eq!(
            blake3::hash(&bytes[at..end]).to_hex().as_str(),
            tensor.blake3,
            "{}",
            tensor.name
        );
        at = end;
    }
    for offset in [1, 777_777, CHUNK_BYTES as u64, manifest.total_bytes] {
        let rest = fetch(&service, 2, offset).await;
        let rest: Vec<u8> = rest.iter().flat_map(|chunk| chunk.data.to_vec()).collect();
        assert_eq!(rest, bytes[offset as usize..]);
    }
    let request = GetChunksRequest { version: 2, offset: manifest.total_bytes + 1 };
    let status = service.get_chunks(Request::new(request)).await.err().unwrap();
    assert_eq!((status.code(), error_kind(&status)), (Code::OutOfRange, Some("bad-offset")));
}

#[tokio::test]
async fn only_what_the_lag_samples_with_is_kept() {
    let service = service(1, [3, 4, 5]);
    for (version, kind) in [
        (3, "version-retired"),
        (0, "version-retired"),
        (6, "version-unpublished"),
        (10, "unknown-version"),
    ] {
        let status = manifest(&service, version, 0).await.unwrap_err();
        assert_eq!((status.code(), error_kind(&status)), (Code::NotFound, Some(kind)));
    }
    assert_eq!(manifest(&service, 4, 0).await.unwrap().version, 4);
    assert_eq!(manifest(&service, 5, 0).await.unwrap().version, 5);
}

#[tokio::test]
async fn a_manifest_is_waited_for_and_no_longer_than_asked() {
    let service = service(0, [0]);
    let waiting = tokio::spawn({
        let service = service.clone();
        async move { manifest(&service, 1, 10_000).await }
    });
    tokio::task::yield_now().await;
    service.publication.publish(published(1));
    assert_eq!(waiting.await.unwrap().unwrap().version, 1);
    let started = std::time::Instant::now();
    let status = manifest(&service, 2, 50).await.unwrap_err();
    assert_eq!(error_kind(&status), Some("version-unpublished"));
    assert!((50..5_000).contains(&started.elapsed().as_millis()));
}
