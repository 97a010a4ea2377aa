//! Where a policy comes from: a Hugging Face directory, or a GGUF file.
//!
//! Invariant: whoever reads a part of a policy (its configuration, tokenizer, template or weights) reads it
//! through here, so every command takes what every other takes.

use std::path::{Path, PathBuf};

use crate::config::{CONFIG_FILE, ModelConfig};
use crate::files::{FilesError, Weights};
use crate::gguf::Gguf;
use crate::policy::PolicyError;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;

/// A policy's files.
#[derive(Debug)]
pub enum Source {
    /// A Hugging Face directory.
    Directory(PathBuf),
    /// A GGUF file.
    Gguf(Box<Gguf>),
}

impl Source {
    /// Finds out what `path` is. A directory is not looked into yet.
    ///
    /// # Errors
    /// A file that is not GGUF or is damaged, or a directory that only holds GGUF files.
    pub fn open(path: &Path) -> Result<Self, PolicyError> {
        if path.is_file() {
            return match Gguf::is_one(path) {
                true => Ok(Self::Gguf(Box::new(Gguf::open(path)?))),
                false => Err(neither(path).into()),
            };
        }
        if !path.join(CONFIG_FILE).is_file() {
            let inside = gguf_files(path);
            if !inside.is_empty() {
                return Err(PolicyError::Files(FilesError::Format {
                    path: path.into(),
                    expected: CONFIG_FILE.into(),
                    found: format!(
                        "{}; name such a file instead of the directory",
                        inside.join(", ")
                    ),
                }));
            }
        }
        Ok(Self::Directory(path.into()))
    }

    /// The model's configuration.
    ///
    /// # Errors
    /// Names the file and key, what was expected and what was found.
    pub fn config(&self) -> Result<ModelConfig, PolicyError> {
        match self {
            Self::Directory(directory) => Ok(ModelConfig::from_dir(directory)?),
            Self::Gguf(file) => Ok(file.config()?),
        }
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn tokenizer(&self) -> Result<Tokenizer, PolicyError> {
        match self {
            Self::Directory(directory) => Ok(Tokenizer::from_dir(directory)?),
            Self::Gguf(file) => file.tokenizer(),
        }
    }

    /// The chat template.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn template(&self) -> Result<ChatTemplate, PolicyError> {
        match self {
            Self::Directory(directory) => Ok(ChatTemplate::from_dir(directory)?),
            Self::Gguf(file) => file.template(),
        }
    }

    /// All weights as 32-bit floats, in the order of [`ModelConfig::tensor_specs`].
    ///
    /// # Errors
    /// Names every tensor that is not as the configuration says.
    pub fn weights(&self, config: &ModelConfig) -> Result<Vec<Vec<f32>>, PolicyError> {
        match self {
            Self::Directory(directory) => {
                let weights = Weights::open(directory, config)?;
                let values = weights.specs().iter().map(|spec| weights.f32(&spec.name));
                Ok(values.collect::<Result<_, _>>()?)
            }
            Self::Gguf(file) => Ok(file.weights(config)?),
        }
    }
}

/// What a file is that is no GGUF file, and what to give instead.
fn neither(path: &Path) -> FilesError {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let found = match extension.as_str() {
        "safetensors" | "json" => "one file of such a directory; give the directory it lies in",
        "bin" | "pt" | "pth" | "ckpt" => {
            "a file that may hold pickled code, which octet does not read; save the model as safetensors"
        }
        _ => "neither; check the path, or copy or download the file again",
    };
    FilesError::Format {
        path: path.into(),
        expected: "a Hugging Face directory or a GGUF file".into(),
        found: found.into(),
    }
}

/// Names of the GGUF files in a directory, ascending.
fn gguf_files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".gguf")).collect();
    names.sort();
    names
}
