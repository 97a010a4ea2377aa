//! Writing one safetensors file as a stream, tensor by tensor.
//!
//! Invariant: the file is on disk (fsync) when the call returns, and its bytes depend on the
//! arguments alone.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use half::bf16;
use half::f16;
use serde_json::{Map, Value, json};

use super::FilesError;
use crate::config::{Dtype, TensorSpec};
use crate::model::le_bytes;

/// A tensor to be stored: its name and shape, and the type to store it as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// Name and shape.
    pub spec: TensorSpec,
    /// Element type in the file; f32 values are rounded to nearest, ties to even.
    pub dtype: Dtype,
}

/// Writes tensors to `path` in the given order. `metadata` are texts for the header; `data` gives
/// the values of a tensor when its turn comes, so that one tensor is in memory at a time.
pub fn write_safetensors<'d>(
    path: &Path,
    metadata: &[(&str, &str)],
    tensors: &[StoredTensor],
    mut data: impl FnMut(&TensorSpec) -> Cow<'d, [f32]>,
) -> Result<(), FilesError> {
    let header = header(metadata, tensors);
    let body: usize = tensors.iter().map(|t| t.spec.len() * t.dtype.size()).sum();
    let bytes = (8 + header.len() + body) as u64;
    let failed = |source| FilesError::Write { path: path.into(), bytes, source };
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
    out.write_all(&header).map_err(failed)?;
    for tensor in tensors {
        let values = data(&tensor.spec);
        if values.len() != tensor.spec.len() {
            return Err(FilesError::Format {
                path: path.into(),
                expected: format!("{} values for `{}`", tensor.spec.len(), tensor.spec.name),
                found: values.len().to_string(),
            });
        }
        write_values(&mut out, &values, tensor.dtype).map_err(failed)?;
    }
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)
}

fn header(metadata: &[(&str, &str)], tensors: &[StoredTensor]) -> Vec<u8> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        let texts: Map<String, Value> =
            metadata.iter().map(|(key, text)| ((*key).into(), (*text).into())).collect();
        header.insert("__metadata__".into(), texts.into());
    }
    let mut start = 0;
    for tensor in tensors {
        let end = start + tensor.spec.len() * tensor.dtype.size();
        let name = match tensor.dtype {
            Dtype::F32 => "F32",
            Dtype::Bf16 => "BF16",
            Dtype::F16 => "F16",
        };
        header.insert(
            tensor.spec.name.clone(),
            json!({"dtype": name, "shape": tensor.spec.shape, "data_offsets": [start, end]}),
        );
        start = end;
    }
    let mut bytes = Value::Object(header).to_string().into_bytes();
    // The data begins at a multiple of eight, so that readers may map it as numbers.
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    bytes
}

fn write_values(out: &mut impl Write, values: &[f32], dtype: Dtype) -> io::Result<()> {
    if dtype == Dtype::F32 {
        return out.write_all(&le_bytes(values));
    }
    const CHUNK: usize = 4096;
    let mut bytes = Vec::with_capacity(CHUNK * dtype.size());
    for chunk in values.chunks(CHUNK) {
        bytes.clear();
        match dtype {
            Dtype::F32 => bytes.extend_from_slice(&le_bytes(chunk)),
            Dtype::Bf16 => {
                bytes.extend(chunk.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()))
            }
            Dtype::F16 => bytes.extend(chunk.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes())),
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}
