//! One safetensors file, memory-mapped.
//!
//! Invariant: once open, every tensor's bytes lie inside the file and match its shape.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::{Metadata, SafeTensorError};

use super::{FilesError, read_error};
use crate::config::Dtype;

/// Bytes of the header's length at the beginning of a file.
const LENGTH: usize = 8;

/// An open safetensors file.
pub struct TensorFile {
    path: PathBuf,
    map: Mmap,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

/// Where a stored tensor lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// What its elements are stored as.
    pub dtype: Dtype,
    /// Bytes of the file, elements little-endian one after the other.
    pub bytes: Range<u64>,
}

struct Entry {
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

impl TensorFile {
    /// Opens and checks a file. It must not be changed by anyone while it is open.
    pub fn open(path: &Path) -> Result<Self, FilesError> {
        let file = File::open(path).map_err(read_error(path))?;
        // SAFETY: the mapping is only read. Another process that truncates the file meanwhile could
        // end this one with a signal; weight files are written once and renamed into place, and the
        // contract above asks the same of files from elsewhere.
        let map = unsafe { Mmap::map(&file) }.map_err(read_error(path))?;
        let (header, metadata) =
            SafeTensors::read_metadata(&map).map_err(|error| damaged(path, &map, error))?;
        let data = LENGTH + header;
        let entries = metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| {
                let (start, end) = info.data_offsets;
                let bytes = data + start..data + end;
                (name, Entry { dtype: info.dtype, shape: info.shape.clone(), bytes })
            })
            .collect();
        let metadata = metadata.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { path: path.into(), map, entries, metadata })
    }

    /// Names of the tensors, ascending.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The free-form texts of the header.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.entries.get(name)?.shape)
    }

    /// Element type and bytes (little-endian) of a tensor, as stored.
    pub fn raw(&self, name: &str) -> Result<(Dtype, &[u8]), FilesError> {
        let entry = self.entries.get(name).ok_or_else(|| FilesError::Format {
            path: self.path.clone(),
            expected: format!("the tensor `{name}`"),
            found: "no such tensor".into(),
        })?;
        let dtype = match entry.dtype {
            safetensors::Dtype::F32 => Dtype::F32,
            safetensors::Dtype::BF16 => Dtype::Bf16,
            safetensors::Dtype::F16 => Dtype::F16,
            other => {
                return Err(FilesError::Format {
                    path: self.path.clone(),
                    expected: format!("`{name}` as F32, BF16 or F16"),
                    found: format!("{other:?}"),
                });
            }
        };
        Ok((dtype, &self.map[entry.bytes.clone()]))
    }

    /// Where a tensor's bytes lie in the file.
    pub(super) fn place(&self, name: &str) -> Result<Place, FilesError> {
        let (dtype, _) = self.raw(name)?;
        let bytes = self.entries.get(name).map(|entry| entry.bytes.clone()).unwrap_or_default();
        Ok(Place { path: self.path.clone(), dtype, bytes: bytes.start as u64..bytes.end as u64 })
    }

    /// A tensor as 32-bit floats; every stored type converts exactly.
    pub fn f32(&self, name: &str) -> Result<Vec<f32>, FilesError> {
        let (dtype, bytes) = self.raw(name)?;
        Ok(to_f32(dtype, bytes))
    }
}

impl std::fmt::Debug for TensorFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tensors = self.entries.len();
        f.debug_struct("TensorFile").field("path", &self.path).field("tensors", &tensors).finish()
    }
}

/// Stored elements as 32-bit floats; every type converts exactly.
pub fn to_f32(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    // Mapped tensors need not be aligned: elements are put together from their bytes.
    let (halves, _) = bytes.as_chunks::<2>();
    match dtype {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::Bf16 => halves.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::F16 => halves.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
    }
}

/// Says by how much a file is too short or too long where that is the fault.
fn damaged(path: &Path, bytes: &[u8], error: SafeTensorError) -> FilesError {
    let length = |expected: usize| FilesError::Length {
        path: path.into(),
        expected: expected as u64,
        found: bytes.len() as u64,
    };
    let header = bytes.first_chunk().map(|n| u64::from_le_bytes(*n) as usize);
    match (error, header) {
        (SafeTensorError::HeaderTooSmall, _) => length(LENGTH),
        (SafeTensorError::InvalidHeaderLength, Some(header)) => {
            length(LENGTH.saturating_add(header))
        }
        (SafeTensorError::MetadataIncompleteBuffer, Some(header)) => {
            let data = serde_json::from_slice(&bytes[LENGTH..LENGTH + header])
                .map_or(0, |metadata: Metadata| metadata.data_len());
            length(LENGTH + header + data)
        }
        (error, _) => FilesError::Format {
            path: path.into(),
            expected: "a safetensors file".into(),
            found: error.to_string(),
        },
    }
}
