//! A manifest that was checked against the model that it shall become.
//!
//! Invariant: a [`Manifest`] lists exactly the tensors that are trained, the model's or its adapter's, in its order, in a type that can be
//! read, with lengths that add up and digests that make the digest of the weights.

use candle_core::DType;
use octet_policy::config::TensorSpec;
use octet_proto::PolicyVersion;
use octet_proto::weights::{TensorEntry, WeightsManifest};

use super::error::{Damage, WeightsError};

/// One tensor of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The Hugging Face name.
    pub name: String,
    /// Element type of the published bytes.
    pub dtype: DType,
    /// Rows first.
    pub shape: Vec<usize>,
    /// Where its bytes begin.
    pub start: u64,
    /// How many there are.
    pub bytes: u64,
    /// Their digest.
    pub digest: blake3::Hash,
}

/// A checked manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    version: PolicyVersion,
    entries: Vec<Entry>,
    total: u64,
    digest: blake3::Hash,
    message: WeightsManifest,
}

/// A manifest that is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// For now: it may come right when it is fetched again.
    #[error(transparent)]
    Damaged(Damage),
    /// For good.
    #[error(transparent)]
    Never(WeightsError),
}

impl Manifest {
    /// Checks what was answered when `version` was asked for.
    ///
    /// # Errors
    /// It is not the manifest of that version of a model of which these tensors are trained.
    pub fn check(
        message: WeightsManifest,
        version: PolicyVersion,
        specs: &[TensorSpec],
    ) -> Result<Self, Refused> {
        if message.version != version.get() {
            let found = PolicyVersion(message.version);
            return Err(Refused::Damaged(Damage::Version { expected: version, found }));
        }
        let other = |what: &str, expected: String, found: String| {
            Refused::Never(WeightsError::OtherModel { version, what: what.into(), expected, found })
        };
        let count = |n: usize| format!("{n} tensors");
        if specs.len() != message.tensors.len() {
            return Err(other("manifest", count(specs.len()), count(message.tensors.len())));
        }
        let mut entries = Vec::with_capacity(specs.len());
        let (mut total, mut all) = (0u64, blake3::Hasher::new());
        for (spec, tensor) in specs.iter().zip(&message.tensors) {
            let shape: Vec<u64> = spec.shape.iter().map(|n| *n as u64).collect();
            if tensor.name != spec.name || tensor.shape != shape {
                let expected = format!("{} {:?}", spec.name, shape);
                let found = format!("{} {:?}", tensor.name, tensor.shape);
                return Err(other("manifest", expected, found));
            }
            let Some(dtype) = dtype(&tensor.dtype) else {
                let expected = "F32, BF16 or F16".to_owned();
                return Err(other(&spec.name, expected, tensor.dtype.clone()));
            };
            let bytes = (spec.len() * dtype.size_in_bytes()) as u64;
            if tensor.bytes != bytes {
                let (expected, found) =
                    (format!("{bytes} bytes"), format!("{} bytes", tensor.bytes));
                return Err(other(&spec.name, expected, found));
            }
            let digest = hash(&tensor.name, &tensor.blake3).map_err(Refused::Damaged)?;
            all.update(digest.as_bytes());
            entries.push(entry(tensor, dtype, &spec.shape, total, digest));
            total += bytes;
        }
        if message.total_bytes != total {
            let (expected, found) =
                (format!("{total} bytes"), format!("{} bytes", message.total_bytes));
            return Err(other("total", expected, found));
        }
        let digest = hash("the weights", &message.digest).map_err(Refused::Damaged)?;
        let found = all.finalize();
        if found != digest {
            let (expected, found) = (digest.to_string(), found.to_string());
            return Err(Refused::Damaged(Damage::ManifestDigest { version, expected, found }));
        }
        Ok(Self { version, entries, total, digest, message })
    }

    /// The version.
    pub const fn version(&self) -> PolicyVersion {
        self.version
    }

    /// Its tensors, in the model's order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Bytes of all tensors.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The digest of the weights.
    pub const fn digest(&self) -> blake3::Hash {
        self.digest
    }

    /// As it came, to be passed on.
    pub const fn message(&self) -> &WeightsManifest {
        &self.message
    }
}

fn entry(
    tensor: &TensorEntry,
    dtype: DType,
    shape: &[usize],
    start: u64,
    digest: blake3::Hash,
) -> Entry {
    let (name, bytes) = (tensor.name.clone(), tensor.bytes);
    Entry { name, dtype, shape: shape.to_vec(), start, bytes, digest }
}

/// Safetensors' names.
fn dtype(name: &str) -> Option<DType> {
    match name {
        "F32" => Some(DType::F32),
        "BF16" => Some(DType::BF16),
        "F16" => Some(DType::F16),
        _ => None,
    }
}

fn hash(of: &str, hex: &str) -> Result<blake3::Hash, Damage> {
    blake3::Hash::from_hex(hex)
        .map_err(|_| Damage::NoDigest { of: of.to_owned(), found: hex.chars().take(80).collect() })
}
