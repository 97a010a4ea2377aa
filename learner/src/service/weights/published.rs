//! Versions as they are given out: bytes once, a manifest, and which versions are kept.
//!
//! Invariants: a version's bytes are in memory once, however many workers read them, or in the files of its checkpoint
//! and not in memory at all. The digest in the manifest is [`Params::digest`] of the same weights. Kept are the newest
//! version and as many older ones as the lag samples with.

use super::{Stored, WeightsError};
use bytes::Bytes;
use candle_core::{DType, Device};
use octet_broadcast::parcel;
use octet_policy::model::{Params, bytes, from_bytes};
use octet_proto::PolicyVersion;
use octet_proto::coordinator::PublishedVersion;
use octet_proto::weights::{TensorEntry, WeightsManifest};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;

/// The weights of one version, ready to be sent.
#[derive(Clone, Debug)]
pub struct Published {
    manifest: WeightsManifest,
    dtype: DType,
    data: Data,
}

/// Where a version's bytes are.
#[derive(Clone, Debug)]
enum Data {
    Memory(Bytes),
    Files(Arc<Stored>),
}

/// The versions that are given out. Clones share them.
#[derive(Clone, Debug)]
pub struct Publication {
    versions: watch::Sender<BTreeMap<PolicyVersion, Arc<Published>>>,
    lag: u64,
    sent: Arc<AtomicU64>,
}

/// What a version of these weights is checked against. Computed from the tensors themselves, without a copy.
///
/// # Errors
/// The weights are of a type that has no byte form.
pub fn manifest(version: PolicyVersion, params: &Params) -> candle_core::Result<WeightsManifest> {
    let dtype = dtype(params);
    let name = match dtype {
        DType::BF16 => "BF16",
        DType::F16 => "F16",
        DType::F32 => "F32",
        other => candle_core::bail!("expected weights as F32, BF16 or F16, found {other:?}"),
    };
    let mut all = blake3::Hasher::new();
    let digests = params.tensor_digests()?.into_iter();
    let tensors: Vec<TensorEntry> = params
        .specs()
        .iter()
        .zip(digests)
        .map(|(spec, hash)| {
            all.update(hash.as_bytes());
            TensorEntry {
                name: spec.name.clone(),
                dtype: name.to_owned(),
                shape: spec.shape.iter().map(|size| *size as u64).collect(),
                bytes: (spec.len() * dtype.size_in_bytes()) as u64,
                blake3: hash.to_hex().to_string(),
            }
        })
        .collect();
    Ok(WeightsManifest {
        version: version.get(),
        total_bytes: tensors.iter().map(|tensor| tensor.bytes).sum(),
        digest: all.finalize().to_hex().to_string(),
        tensors,
    })
}

fn dtype(params: &Params) -> DType {
    params.tensors().first().map_or(DType::F32, |tensor| tensor.dtype())
}

impl Published {
    /// Takes the weights as they are now; later updates do not change what was taken.
    ///
    /// # Errors
    /// The weights are of a type that has no byte form.
    pub fn new(version: PolicyVersion, params: &Params) -> candle_core::Result<Self> {
        let manifest = manifest(version, params)?;
        let dtype = dtype(params);
        let mut data = Vec::with_capacity(params.count() * dtype.size_in_bytes());
        for tensor in params.tensors() {
            data.extend_from_slice(&bytes(tensor)?);
        }
        Ok(Self { manifest, dtype, data: Data::Memory(data.into()) })
    }

    /// Weights that lie in files and are read from there whenever somebody wants them, as `f32`. The manifest is that of
    /// the same weights.
    pub fn stored(manifest: WeightsManifest, stored: Stored) -> Self {
        Self { manifest, dtype: DType::F32, data: Data::Files(Arc::new(stored)) }
    }

    /// What a worker checks the bytes against.
    pub fn manifest(&self) -> &WeightsManifest {
        &self.manifest
    }

    /// The digest of the weights, hex.
    pub fn digest(&self) -> &str {
        &self.manifest.digest
    }

    /// All bytes; without a copy where they are in memory.
    pub(crate) fn data(&self) -> Result<Bytes, WeightsError> {
        self.chunk(0, usize::MAX)
    }

    /// At most `len` bytes from an offset on; without a copy where they are in memory.
    ///
    /// # Errors
    /// They are in files that cannot be read any more.
    pub fn chunk(&self, offset: u64, len: usize) -> Result<Bytes, WeightsError> {
        match &self.data {
            Data::Memory(data) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
                Ok(data.slice(from..from.saturating_add(len).min(data.len())))
            }
            Data::Files(stored) => stored.read(offset, len).map_err(|reason| {
                WeightsError::Unreadable { version: PolicyVersion(self.manifest.version), reason }
            }),
        }
    }

    /// The same, where the disk keeps nobody else waiting: a runtime of several threads reads on one that is meant to
    /// block. One of a single thread reads at once, so that a simulated run stays one sequence of events.
    ///
    /// # Errors
    /// They are in files that cannot be read any more.
    pub async fn chunk_aside(
        self: Arc<Self>,
        offset: u64,
        len: usize,
    ) -> Result<Bytes, WeightsError> {
        let several = |handle: Handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread;
        let aside = matches!(self.data, Data::Files(_)) && Handle::try_current().is_ok_and(several);
        if !aside {
            return self.chunk(offset, len);
        }
        let version = PolicyVersion(self.manifest.version);
        let read = tokio::task::spawn_blocking(move || self.chunk(offset, len));
        read.await.unwrap_or_else(|error| {
            Err(WeightsError::Unreadable { version, reason: error.to_string() })
        })
    }

    /// The weights on the CPU again; `like` has their names and shapes.
    pub(crate) fn params(&self, like: &Params) -> candle_core::Result<Params> {
        let mut at = 0;
        let tensors = like.specs().iter().map(|spec| {
            let from = at;
            at += spec.len() * self.dtype.size_in_bytes();
            let bytes = self.chunk(from as u64, at - from).map_err(candle_core::Error::wrap)?;
            from_bytes(&bytes, self.dtype, &spec.shape, &Device::Cpu)
        });
        let tensors = tensors.collect::<candle_core::Result<Vec<_>>>()?;
        Params::of(like.specs().to_vec(), tensors)
    }
}

impl Publication {
    /// Versions to begin with; `lag` says how many older ones are kept beside the newest.
    pub fn new(lag: u64, versions: impl IntoIterator<Item = Published>) -> Self {
        let publication = Self { versions: watch::Sender::default(), lag, sent: Arc::default() };
        versions.into_iter().for_each(|version| publication.publish(version));
        publication
    }

    /// Gives out a version from now on, and retires those that the lag does not reach any more.
    pub fn publish(&self, published: Published) {
        let version = PolicyVersion(published.manifest.version);
        self.versions.send_modify(|versions| {
            versions.insert(version, Arc::new(published));
            if let Some(newest) = versions.keys().next_back().copied() {
                let oldest = PolicyVersion(newest.get().saturating_sub(self.lag));
                *versions = versions.split_off(&oldest);
            }
        });
    }

    /// The version, if it is there now.
    ///
    /// # Errors
    /// It is too old or not made yet.
    pub fn get(&self, version: PolicyVersion) -> Result<Arc<Published>, WeightsError> {
        find(&self.versions.borrow(), version)
    }

    /// The version, waiting for it to be published.
    ///
    /// # Errors
    /// It is too old, or was not made in time.
    pub async fn wait(
        &self,
        version: PolicyVersion,
        within: Duration,
    ) -> Result<Arc<Published>, WeightsError> {
        let mut changes = self.versions.subscribe();
        let settled = |found: &Result<_, WeightsError>| {
            !matches!(found, Err(WeightsError::Unpublished { .. }))
        };
        let published = changes.wait_for(|versions| settled(&find(versions, version)));
        // In time or not: what is there then is the answer.
        let _in_time = tokio::time::timeout(within, published).await.is_ok();
        self.get(version)
    }

    /// What is given out now, as it goes on the wire.
    pub fn to_proto(&self) -> Vec<PublishedVersion> {
        let versions = self.versions.borrow();
        let published = versions.values().map(|published| PublishedVersion {
            version: published.manifest.version,
            digest: published.manifest.digest.clone(),
            bytes: published.manifest.total_bytes,
        });
        published.collect()
    }

    /// The newest version, and how many bytes a broadcast of it carries.
    pub(crate) fn newest_parcel(&self) -> Option<(u64, u64)> {
        let versions = self.versions.borrow();
        let (version, newest) = versions.iter().next_back()?;
        Some((version.get(), parcel::packed_bytes(&newest.manifest)))
    }

    /// Counts bytes that go out.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of weights that went out so far.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The digest of the newest version, hex; empty before the first.
    pub fn newest_digest(&self) -> String {
        let versions = self.versions.borrow();
        versions.values().next_back().map(|newest| newest.digest().to_owned()).unwrap_or_default()
    }
}

fn find(
    versions: &BTreeMap<PolicyVersion, Arc<Published>>,
    found: PolicyVersion,
) -> Result<Arc<Published>, WeightsError> {
    if let Some(published) = versions.get(&found) {
        return Ok(Arc::clone(published));
    }
    let newest = versions.keys().next_back().copied().unwrap_or_default();
    let oldest = versions.keys().next().copied().unwrap_or_default();
    if found > newest || versions.is_empty() {
        return Err(WeightsError::Unpublished { found, newest });
    }
    Err(WeightsError::Retired { found, oldest, newest })
}
