//! Weight files and model directories: reading, checking and writing them.
//!
//! Invariant: a directory written here appears under its name whole or not at all, and weights are
//! handed out only after every tensor's presence and shape was checked. Of these, only safetensors are
//! read; `gguf` reads its own.

mod adapter;
mod checkpoint;
mod staged;
mod tensors;
mod weights;
mod write;

use std::path::{Path, PathBuf};

use crate::config::ConfigError;

pub use self::adapter::{
    ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, AdapterBase, AdapterFiles, write_adapter,
};
pub use self::checkpoint::{COMPANION_FILES, copy_companions, save_model, write_model};
pub use self::staged::StagedDir;
pub use self::tensors::{Place, TensorFile, to_f32};
pub use self::weights::Weights;
pub use self::write::{StoredTensor, write_safetensors};

/// File name of unsharded weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// File name of the index of sharded weights.
pub const WEIGHTS_INDEX_FILE: &str = "model.safetensors.index.json";

/// Why a file or directory is refused, or cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file cannot be written; a full disk is the usual cause.
    #[error("cannot write {} ({bytes} bytes needed): {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Bytes that the whole file takes.
        bytes: u64,
        /// The cause.
        source: std::io::Error,
    },
    /// A directory cannot be made or renamed.
    #[error("cannot {action} {}: {source}", path.display())]
    Directory {
        /// What was tried.
        action: &'static str,
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A directory is there already and is not overwritten.
    #[error("{} exists already: choose another name or remove it", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// There are no weights.
    #[error("{} has no weights: expected {WEIGHTS_FILE} or {WEIGHTS_INDEX_FILE}", dir.display())]
    NoWeights {
        /// The model directory.
        dir: PathBuf,
    },
    /// A file ends too early, or goes on too long.
    #[error(
        "{} is damaged: expected {expected} bytes, found {found}; copy or download it again",
        path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes that the header promises.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// A file is not safetensors, or its index is not an index.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What would be accepted.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// The tensors are not those of the configuration.
    #[error("{} does not hold the model that it describes: {}", dir.display(), problems.join("; "))]
    Tensors {
        /// The model directory.
        dir: PathBuf,
        /// Every missing, unexpected and mis-shaped tensor.
        problems: Vec<String>,
    },
    /// An adapter without the model that it belongs to.
    #[error(
        "{} is an adapter of `{base}`, and there is no such directory or GGUF file here: download the model, and write where it is into base_model_name_or_path of {ADAPTER_CONFIG_FILE}",
        dir.display()
    )]
    NoBase {
        /// The adapter's directory.
        dir: PathBuf,
        /// What it names.
        base: String,
    },
    /// An adapter with a model that it does not belong to.
    #[error(
        "{} was trained on a base whose weights have the digest {expected}, and those of {} have {found}; write where the right one is into base_model_name_or_path of {ADAPTER_CONFIG_FILE}",
        dir.display(), base.display()
    )]
    OtherBase {
        /// The adapter's directory.
        dir: PathBuf,
        /// The model that was tried.
        base: PathBuf,
        /// The digest of the one that it was trained on.
        expected: String,
        /// The digest of that model.
        found: String,
    },
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

fn read_error(path: &Path) -> impl FnOnce(std::io::Error) -> FilesError {
    move |source| FilesError::Read { path: path.into(), source }
}
