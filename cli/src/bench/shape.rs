//! What is measured: a model's shape with random weights, or the model of a directory.
//!
//! Invariant: a subject is a configuration until its weights are asked for, so what does not fit is refused
//! before anything is allocated. Random weights are a function of shape and seed.

use anyhow::{Context, Result};
use candle_core::{DType, Device};
use clap::ValueEnum;
use octet_policy::config::{ModelConfig, TensorSpec};
use octet_policy::model::{Model, Params};
use octet_policy::policy::Policy;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Shapes that come with octet; `recipes/shapes` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// 4.0 million parameters: 256 wide, 4 layers, vocabulary 4,096.
    Tiny,
    /// SmolLM2-135M: 576 wide, 30 layers, vocabulary 49,152.
    #[value(name = "smollm2-135m")]
    SmolLm2,
    /// Qwen2.5-0.5B: 896 wide, 24 layers, vocabulary 151,936.
    #[value(name = "qwen2.5-0.5b")]
    Qwen05,
    /// Qwen2.5-7B: 3,584 wide, 28 layers, vocabulary 152,064.
    #[value(name = "qwen2.5-7b")]
    Qwen7,
}

/// A model that is measured.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What people call it.
    pub name: String,
    /// Its shape.
    pub config: ModelConfig,
    directory: Option<PathBuf>,
}

/// The standard deviation of random weights, that of Qwen2's and Llama's initialisation.
const DEVIATION: f32 = 0.02;

impl Shape {
    /// The content of its `config.json`.
    fn json(self) -> &'static str {
        match self {
            Self::Tiny => include_str!("../../../recipes/shapes/tiny.json"),
            Self::SmolLm2 => include_str!("../../../recipes/shapes/smollm2-135m.json"),
            Self::Qwen05 => include_str!("../../../recipes/shapes/qwen2.5-0.5b.json"),
            Self::Qwen7 => include_str!("../../../recipes/shapes/qwen2.5-7b-instruct.json"),
        }
    }

    /// Its name on the command line.
    fn name(self) -> String {
        self.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
    }
}

impl Subject {
    /// A shape with random weights.
    pub fn shape(shape: Shape) -> Result<Self> {
        let name = shape.name();
        let value: Value = serde_json::from_str(shape.json())?;
        let config = ModelConfig::from_value(value, &Path::new("recipes/shapes").join(&name))?;
        Ok(Self { name, config, directory: None })
    }

    /// The model of a Hugging Face directory, whose weights are not read yet.
    pub fn directory(directory: &Path) -> Result<Self> {
        let config = ModelConfig::from_dir(directory)?;
        let name = directory.display().to_string();
        Ok(Self { name, config, directory: Some(directory.to_path_buf()) })
    }

    /// The model in f32 on the CPU.
    pub fn model(&self, seed: u64) -> Result<Model> {
        if let Some(directory) = &self.directory {
            let policy = Policy::load(directory, DType::F32, &Device::Cpu)
                .with_context(|| format!("loading {}", directory.display()))?;
            return Ok(policy.model);
        }
        let specs = self.config.tensor_specs();
        let values = specs.par_iter().enumerate();
        let values = values.map(|(i, spec)| random(spec, seed, i as u64)).collect();
        let params = Params::from_vecs(&self.config, values, DType::F32, &Device::Cpu)?;
        Ok(Model::new(self.config.clone(), params)?)
    }
}

/// Uniform numbers for matrices, ones for norms, zeros for biases.
fn random(spec: &TensorSpec, seed: u64, stream: u64) -> Vec<f32> {
    if spec.shape.len() == 1 {
        return vec![if spec.name.ends_with("bias") { 0.0 } else { 1.0 }; spec.len()];
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    let scale = DEVIATION * 3f32.sqrt() / 2f32.powi(31);
    (0..spec.len()).map(|_| random.next_u32().cast_signed() as f32 * scale).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn shapes_have_the_parameters_that_their_makers_count() {
        let count = |shape| Subject::shape(shape).unwrap().config.param_count();
        // The embedding, 4 layers (queries, keys, values and what leads back, their biases, the feed-forward
        // matrices, two norms), the last norm.
        let layer = 256 * (256 + 128 + 128 + 256) + 512 + 3 * 256 * 688 + 2 * 256;
        assert_eq!(count(Shape::Tiny), 4096 * 256 + 4 * layer + 256);
        assert_eq!(count(Shape::SmolLm2), 134_515_008);
        assert_eq!(count(Shape::Qwen05), 494_032_768);
        assert_eq!(count(Shape::Qwen7), 7_615_616_512);
    }

    #[test]
    fn random_weights_are_centred_and_as_wide_as_they_should_be() {
        let spec = TensorSpec { name: "a.weight".into(), shape: vec![100, 100] };
        let values = random(&spec, 7, 3);
        let n = values.len() as f32;
        let mean = values.iter().sum::<f32>() / n;
        let deviation = (values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n).sqrt();
        assert!(mean.abs() < 1e-3 && (deviation - DEVIATION).abs() < 1e-3, "{mean} {deviation}");
        assert_ne!(values, random(&spec, 7, 4), "each tensor has numbers of its own");
        let spec = TensorSpec { name: "a.bias".into(), shape: vec![5] };
        assert_eq!(random(&spec, 7, 3), [0.0; 5]);
    }
}
