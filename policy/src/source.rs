//! Where a policy comes from: a Hugging Face directory, a GGUF file, or a PEFT adapter of one of these.
//!
//! Invariant: whoever reads a part of a policy (its configuration, tokenizer, template or weights) reads it
//! through here, so every command takes what every other takes.

use std::path::{Path, PathBuf};

use crate::config::{CONFIG_FILE, ModelConfig};
use crate::files::{AdapterFiles, FilesError, Weights};
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
    /// A PEFT adapter with its base.
    Adapter(Box<Adapted>),
}

/// An adapter and the model that it belongs to.
#[derive(Debug)]
pub struct Adapted {
    /// The adapter.
    pub files: AdapterFiles,
    /// Where its base is.
    pub path: PathBuf,
    /// Its base, which is no adapter.
    pub base: Source,
}

impl Source {
    /// Finds out what `path` is. A directory is not looked into yet.
    ///
    /// # Errors
    /// A file that is not GGUF or is damaged, a directory that only holds GGUF files, or an adapter whose base is not
    /// here.
    pub fn open(path: &Path) -> Result<Self, PolicyError> {
        Self::open_with(path, None)
    }

    /// As [`Source::open`]; an adapter is taken with the base at `base` instead of the one that it names.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn open_with(path: &Path, base: Option<&Path>) -> Result<Self, PolicyError> {
        if path.is_file() {
            return match Gguf::is_one(path) {
                true => Ok(Self::Gguf(Box::new(Gguf::open(path)?))),
                false => Err(neither(path).into()),
            };
        }
        if AdapterFiles::is_one(path) {
            let files = AdapterFiles::open(path)?;
            let at = base.map_or_else(|| files.base_path(), |base| Ok(base.to_owned()))?;
            if at.is_dir() && AdapterFiles::is_one(&at) {
                return Err(PolicyError::Files(FilesError::Format {
                    path: path.into(),
                    expected: "an adapter of a whole model".into(),
                    found: format!("one of the adapter {}; merge that one first", at.display()),
                }));
            }
            let base = Self::open(&at)?;
            return Ok(Self::Adapter(Box::new(Adapted { files, path: at, base })));
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
            Self::Adapter(adapted) => adapted.base.config(),
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
            Self::Adapter(adapted) => adapted.base.tokenizer(),
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
            Self::Adapter(adapted) => adapted.base.template(),
        }
    }

    /// All weights as 32-bit floats, in the order of [`ModelConfig::tensor_specs`]; those of an adapter's base, without
    /// the adapter.
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
            Self::Adapter(adapted) => {
                let weights = adapted.base.weights(config)?;
                adapted.files.check_base(&adapted.path, &weights)?;
                Ok(weights)
            }
        }
    }

    /// The adapter, where there is one.
    pub fn adapter(&self) -> Option<&AdapterFiles> {
        match self {
            Self::Adapter(adapted) => Some(&adapted.files),
            _ => None,
        }
    }

    /// Where tokenizer and template are: `path`, or an adapter's base.
    pub fn companions<'a>(&'a self, path: &'a Path) -> &'a Path {
        match self {
            Self::Adapter(adapted) => &adapted.path,
            _ => path,
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
