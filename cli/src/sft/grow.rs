//! A deeper model from a shallower one: further layers that change nothing yet.
//!
//! Invariant: the grown model computes what the model computed. Behind each layer stand copies of it whose
//! projections back into the residual stream are zero (as in Net2Net's deeper nets, Chen et al. 2016,
//! <https://arxiv.org/abs/1511.05641>); those two matrices have gradients from the first step.

use anyhow::{Context, Result, ensure};
use octet_policy::config::{Dtype, ModelConfig};
use octet_policy::files::save_model;
use octet_policy::source::Source;
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

/// Writes the model in `from` with `layers` layers as a directory at `target`.
///
/// # Errors
/// `layers` is no multiple of the layers that there are; a file cannot be read or written.
pub fn make(from: &Path, layers: usize, target: &Path) -> Result<()> {
    let source = Source::open(from)?;
    let old = source.config()?;
    let found = old.num_hidden_layers;
    ensure!(
        layers > found && layers.is_multiple_of(found),
        "key `layers`: expected a multiple of the {found} layers of {}, found {layers}",
        from.display()
    );
    let names = old.tensor_specs().into_iter().map(|spec| spec.name);
    let weights: HashMap<String, Vec<f32>> = names.zip(source.weights(&old)?).collect();
    let mut config = old.to_json(Dtype::F32);
    config["num_hidden_layers"] = layers.into();
    let config = ModelConfig::from_value(config, &target.join("config.json"))?;
    let specs = config.tensor_specs();
    let origins: Vec<(String, bool)> =
        specs.iter().map(|spec| origin(&spec.name, layers / found)).collect();
    for (name, _) in &origins {
        weights.get(name).with_context(|| format!("{} has no tensor {name}", from.display()))?;
    }
    let mut origins = origins.into_iter();
    save_model(target, &config, Dtype::F32, from, |spec| match origins.next() {
        Some((name, false)) => Cow::Borrowed(weights[&name].as_slice()),
        _ => Cow::Owned(vec![0.0; spec.len()]),
    })?;
    Ok(())
}

/// The tensor that one of the grown model begins as, and whether it begins as zeros instead.
fn origin(name: &str, ratio: usize) -> (String, bool) {
    let layer = name.strip_prefix("model.layers.").and_then(|rest| {
        let (layer, rest) = rest.split_once('.')?;
        Some((layer.parse::<usize>().ok()?, rest))
    });
    let Some((layer, rest)) = layer else { return (name.to_owned(), false) };
    let back = rest.starts_with("self_attn.o_proj") || rest.starts_with("mlp.down_proj");
    (format!("model.layers.{}.{rest}", layer / ratio), back && !layer.is_multiple_of(ratio))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::{DType, Device};
    use octet_policy::kernel::head::Shaping;
    use octet_policy::layout::GroupTokens;
    use octet_policy::model::{Model, Params};

    fn load(path: &Path) -> Model {
        let source = Source::open(path).unwrap();
        let config = source.config().unwrap();
        let values = source.weights(&config).unwrap();
        let params = Params::from_vecs(&config, values, DType::F32, &Device::Cpu).unwrap();
        Model::new(config, params).unwrap()
    }

    #[test]
    fn a_grown_model_computes_the_same() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/tests/fixtures/models");
        let folder = tempfile::tempdir().unwrap();
        for name in ["qwen2-tied", "qwen3-tied", "llama3-untied-biased"] {
            let from = root.join(name);
            let before = load(&from);
            let found = before.config().num_hidden_layers;
            let target = folder.path().join(name);
            make(&from, 3 * found, &target).unwrap();
            let after = load(&target);
            assert_eq!(after.config().num_hidden_layers, 3 * found);
            let group = GroupTokens { prefix: vec![1, 5, 2], suffixes: vec![vec![7, 3], vec![4]] };
            let logprobs = |model: &Model| {
                let groups = std::slice::from_ref(&group);
                model.log_probs(groups, Shaping::default()).unwrap().logprobs
            };
            assert_eq!(logprobs(&before), logprobs(&after), "{name}");
            assert!(make(&from, 3 * found + 1, &folder.path().join("odd")).is_err());
        }
    }
}
