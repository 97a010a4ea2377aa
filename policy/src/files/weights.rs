//! The weights of a model directory, single or sharded, checked against its configuration.
//!
//! Invariant: after [`Weights::open`] every tensor of [`ModelConfig::tensor_specs`] is present with
//! its shape, and nothing is there that the model would silently ignore.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{FilesError, Place, TensorFile, WEIGHTS_FILE, WEIGHTS_INDEX_FILE, read_error};
use crate::config::{Dtype, ModelConfig, TensorSpec};

/// The weights of one model.
#[derive(Debug)]
pub struct Weights {
    files: Vec<TensorFile>,
    places: BTreeMap<String, usize>,
    specs: Vec<TensorSpec>,
}

impl Weights {
    /// Opens the weights of `dir` and checks all of them against `config`.
    pub fn open(dir: &Path, config: &ModelConfig) -> Result<Self, FilesError> {
        let (files, indexed) = open_files(dir)?;
        let mut places = BTreeMap::new();
        let mut problems = Vec::new();
        for (index, file) in files.iter().enumerate() {
            for name in file.names() {
                if places.insert(name.to_owned(), index).is_some() {
                    problems.push(format!("`{name}` is in two shards"));
                }
            }
        }
        for name in indexed.iter().filter(|name| !places.contains_key(*name)) {
            problems.push(format!("`{name}` is in {WEIGHTS_INDEX_FILE} but in no shard"));
        }
        let specs = config.tensor_specs();
        let mut expected = BTreeSet::new();
        for spec in &specs {
            expected.insert(spec.name.as_str());
            let Some(index) = places.get(&spec.name) else {
                problems.push(format!("`{}` is missing, expected {:?}", spec.name, spec.shape));
                continue;
            };
            let found = files[*index].shape(&spec.name).unwrap_or_default();
            if found != spec.shape {
                let (name, shape) = (&spec.name, &spec.shape);
                problems.push(format!(
                    "`{name}` has the wrong shape, expected {shape:?}, found {found:?}"
                ));
            }
            if let Err(error) = files[*index].raw(&spec.name) {
                problems.push(error.to_string());
            }
        }
        for name in places.keys().filter(|name| !expected.contains(name.as_str())) {
            if !is_redundant(name, config) {
                problems.push(format!("`{name}` is unexpected"));
            }
        }
        if !problems.is_empty() {
            return Err(FilesError::Tensors { dir: dir.into(), problems });
        }
        Ok(Self { files, places, specs })
    }

    /// The tensors, in the order of the configuration.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// A tensor as 32-bit floats.
    pub fn f32(&self, name: &str) -> Result<Vec<f32>, FilesError> {
        self.file(name).f32(name)
    }

    /// Element type and bytes (little-endian) of a tensor, as stored.
    pub fn raw(&self, name: &str) -> Result<(Dtype, &[u8]), FilesError> {
        self.file(name).raw(name)
    }

    /// Where each tensor lies, in the order of the configuration.
    pub fn places(&self) -> Result<Vec<Place>, FilesError> {
        self.specs.iter().map(|spec| self.file(&spec.name).place(&spec.name)).collect()
    }

    fn file(&self, name: &str) -> &TensorFile {
        // An unknown name goes to the first file, whose error names it.
        &self.files[self.places.get(name).copied().unwrap_or(0)]
    }
}

/// Tensors that other software stores although they follow from the rest.
fn is_redundant(name: &str, config: &ModelConfig) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
        || (config.tie_word_embeddings && name == "lm_head.weight")
}

/// The weight files, and the tensor names that an index promises.
fn open_files(dir: &Path) -> Result<(Vec<TensorFile>, Vec<String>), FilesError> {
    let single = dir.join(WEIGHTS_FILE);
    if single.is_file() {
        return Ok((vec![TensorFile::open(&single)?], Vec::new()));
    }
    let path = dir.join(WEIGHTS_INDEX_FILE);
    if !path.is_file() {
        return Err(FilesError::NoWeights { dir: dir.into() });
    }
    let bytes = std::fs::read(&path).map_err(read_error(&path))?;
    let index: Value = serde_json::from_slice(&bytes).map_err(|error| FilesError::Format {
        path: path.clone(),
        expected: "JSON".into(),
        found: error.to_string(),
    })?;
    let mut names = Vec::new();
    let mut shards = BTreeSet::new();
    for (name, shard) in index["weight_map"].as_object().into_iter().flatten() {
        let shard = shard.as_str().filter(|shard| is_plain_name(shard));
        let shard = shard.ok_or_else(|| FilesError::Format {
            path: path.clone(),
            expected: format!("the name of a file in the same directory for `{name}`"),
            found: index["weight_map"][name].to_string(),
        })?;
        names.push(name.clone());
        shards.insert(dir.join(shard));
    }
    if shards.is_empty() {
        return Err(FilesError::Format {
            path,
            expected: "`weight_map` with a file for each tensor".into(),
            found: "none".into(),
        });
    }
    let files = shards.iter().map(|shard: &PathBuf| TensorFile::open(shard));
    Ok((files.collect::<Result<_, _>>()?, names))
}

/// No way out of the model directory through an index from elsewhere.
fn is_plain_name(name: &str) -> bool {
    Path::new(name).file_name().is_some_and(|file| file == name)
}
