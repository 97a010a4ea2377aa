//! The optimiser's state as safetensors: `exp_avg.NAME` and `exp_avg_sq.NAME`, and the number of
//! updates in the header.
//!
//! Invariants: what is read is bit for bit what was written; a file of another model, a truncated
//! file or anything that is not such a file is refused with its path. Tensors are read and written
//! one at a time, so the state is never in memory twice.

use super::{AdamW, AdamWError, Hyperparameters, TensorSpec, Trained};
use crate::disk::DiskError;
use octet_policy::model::le_bytes;
use safetensors::tensor::{Metadata, View};
use safetensors::{Dtype, SafeTensorError, serialize_to_file};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const HEADER_KEY: &str = "octet.adamw";
const FORMAT: u32 = 1;
/// The limit of the safetensors format.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Why the optimiser's state could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Not a file that this module wrote.
    #[error("expected the optimiser's state (safetensors) in {}, found something else: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Shorter or longer than its header says.
    #[error("expected {expected} bytes in {}, found {found}; the file is truncated or damaged, resume from an older checkpoint", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Bytes that the header promises.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A tensor that is missing, or of another shape.
    #[error("expected tensor \"{name}\" as f32 {expected:?} in {}, found {found}; the state belongs to another model", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The model's shape.
        expected: Vec<usize>,
        /// What there is instead.
        found: String,
    },
    /// More tensors than the model has.
    #[error("expected {expected} tensors in {}, found {found}; the state belongs to another model", path.display())]
    Count {
        /// The file.
        path: PathBuf,
        /// Two for each of the model's.
        expected: usize,
        /// As many as there are.
        found: usize,
    },
    /// The model's own list of tensors is not usable.
    #[error(transparent)]
    Optimiser(#[from] AdamWError),
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    steps: u64,
}

/// A slice of f32 as safetensors wants it.
struct Values<'a> {
    shape: &'a [usize],
    values: &'a [f32],
}

impl View for Values<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        le_bytes(self.values)
    }

    fn data_len(&self) -> usize {
        4 * self.values.len()
    }
}

impl AdamW {
    /// Writes the state. The caller makes it durable.
    pub fn write(&self, path: &Path) -> Result<(), StateError> {
        let bytes = self.state_bytes();
        let header = Header { format: FORMAT, steps: self.steps };
        let header = serde_json::to_string(&header).map_err(|error| StateError::Format {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        let tensors = self.by_tensor().flat_map(|(Trained { spec, .. }, [first, second])| {
            let shape = &spec.shape;
            let means = [
                (first_name(spec), Values { shape, values: first }),
                (second_name(spec), Values { shape, values: second }),
            ];
            means.into_iter().filter(|(_, means)| !means.values.is_empty())
        });
        let metadata = HashMap::from([(HEADER_KEY.to_owned(), header)]);
        serialize_to_file(tensors, Some(metadata), path).map_err(|error| match error {
            SafeTensorError::IoError(source) => DiskError::new("write", path, bytes, source).into(),
            other => StateError::Format { path: path.to_owned(), reason: other.to_string() },
        })
    }

    /// Reads the state of the optimiser of a model with these tensors.
    pub fn read(
        path: &Path,
        hyperparameters: Hyperparameters,
        specs: Vec<TensorSpec>,
    ) -> Result<Self, StateError> {
        let mut optimiser = Self::new(hyperparameters, specs)?;
        let mut source = Source::open(path)?;
        let kept = optimiser.tensors.iter().flat_map(Trained::moments);
        let expected = kept.filter(|len| *len > 0).count();
        let found = source.metadata.tensors().len();
        for (Trained { spec, .. }, [first, second]) in optimiser.by_tensor_mut() {
            source.read(first_name(spec), &spec.shape, first)?;
            if !second.is_empty() {
                source.read(second_name(spec), &spec.shape, second)?;
            }
        }
        if found != expected {
            return Err(StateError::Count { path: path.to_owned(), expected, found });
        }
        optimiser.steps = source.steps;
        Ok(optimiser)
    }
}

fn first_name(spec: &TensorSpec) -> String {
    format!("exp_avg.{}", spec.name)
}

fn second_name(spec: &TensorSpec) -> String {
    format!("exp_avg_sq.{}", spec.name)
}

/// An opened state file whose header was checked against its size.
struct Source<'a> {
    path: &'a Path,
    file: BufReader<File>,
    metadata: Metadata,
    data_start: u64,
    steps: u64,
}

impl<'a> Source<'a> {
    fn open(path: &'a Path) -> Result<Self, StateError> {
        let fault = |source| DiskError::new("read", path, 0, source);
        let format = |reason: String| StateError::Format { path: path.to_owned(), reason };
        let file = File::open(path).map_err(fault)?;
        let found = file.metadata().map_err(fault)?.len();
        let mut file = BufReader::new(file);
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|error| format(error.to_string()))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES || length + 8 > found {
            return Err(format(format!("a header of {length} bytes in a file of {found}")));
        }
        let mut header = Vec::new();
        file.by_ref().take(length).read_to_end(&mut header).map_err(fault)?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| format(error.to_string()))?;
        let expected = 8 + length + metadata.data_len() as u64;
        if found != expected {
            return Err(StateError::Size { path: path.to_owned(), expected, found });
        }
        let header = metadata.metadata().as_ref().and_then(|texts| texts.get(HEADER_KEY));
        let header = header.ok_or_else(|| format(format!("no \"{HEADER_KEY}\" in its header")))?;
        let header: Header =
            serde_json::from_str(header).map_err(|error| format(error.to_string()))?;
        if header.format != FORMAT {
            return Err(format(format!("format {} where this build has {FORMAT}", header.format)));
        }
        Ok(Self { path, file, metadata, data_start: 8 + length, steps: header.steps })
    }

    fn read(
        &mut self,
        name: String,
        shape: &[usize],
        values: &mut [f32],
    ) -> Result<(), StateError> {
        let mismatch = |name: String, found: String| StateError::Tensor {
            path: self.path.to_owned(),
            name,
            expected: shape.to_vec(),
            found,
        };
        let Some(info) = self.metadata.info(&name) else {
            return Err(mismatch(name, "no such tensor".to_owned()));
        };
        if info.dtype != Dtype::F32 || info.shape != shape {
            let found = format!("{:?} {:?}", info.dtype, info.shape);
            return Err(mismatch(name, found));
        }
        let fault = |source| DiskError::new("read", self.path, 0, source);
        let start = self.data_start + info.data_offsets.0 as u64;
        self.file.seek(SeekFrom::Start(start)).map_err(fault)?;
        let mut word = [0; 4];
        for value in values {
            self.file.read_exact(&mut word).map_err(fault)?;
            *value = f32::from_le_bytes(word);
        }
        Ok(())
    }
}
