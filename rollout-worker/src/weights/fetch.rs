//! Fetches one version and makes the model of it.
//!
//! Invariant: what comes out is, tensor by tensor, what the learner published.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use candle_core::{DType, Device};
use octet_policy::model::{Model, Params, from_bytes};
use octet_proto::PolicyVersion;
use octet_runtime::wait::Waits;
use tokio::sync::watch;

use super::broadcast::Arrival;
use super::error::WeightsError;
use super::manifest::Manifest;
use super::route::Sources;
use super::shelf::{Held, Shelf};
use super::transfer::Transfer;
use crate::config::Limits;
use crate::error::WorkerError;
use crate::peer::{Learner, Peers};
use crate::stats::Handle;

/// How long building a model may take, as `status` shows it.
const BUILD: Duration = Duration::from_secs(60);

/// Fetches versions. Clones fetch independently.
#[derive(Clone)]
pub(crate) struct Fetcher {
    pub learner: Learner,
    /// How other workers are called.
    pub peers: Peers,
    /// Where versions can be had.
    pub sources: watch::Receiver<Sources>,
    /// Where versions that arrive are offered to others.
    pub shelf: Shelf,
    pub limits: Limits,
    pub waits: Waits,
    pub handle: Handle,
    pub dtype: DType,
    pub device: Device,
    /// The model directory's own weights, which need not travel.
    pub local: Arc<Local>,
    /// Whether one thread does everything, in a simulation.
    pub simulated: bool,
}

/// Version 0 as this worker has it, and the digest of what is trained of it.
pub(crate) struct Local {
    /// The model directory's weights, with a fresh adapter where one is trained: then the weights of every version.
    pub model: Model,
    pub digest: blake3::Hash,
}

impl Fetcher {
    /// A version, verified and packed for sampling; waits for as long as it takes to be published.
    pub(crate) async fn fetch(mut self, version: PolicyVersion) -> Result<Held, WorkerError> {
        let builder = self.builder();
        let mut transfer = Transfer::new(&mut self, version);
        let (manifest, tensors) = transfer.run().await?;
        transfer.wait.detail(format!("version {version}: building the model"));
        builder.build(manifest, tensors).await
    }

    /// Makes the model of a version that was broadcast.
    pub(crate) async fn take(self, arrival: Arrival) -> Result<Held, WorkerError> {
        let Arrival { manifest, tensors } = arrival;
        // It is here and whole: others may have it from now on.
        let (_whole, verified) = watch::channel(tensors.clone());
        self.shelf.begin(Arc::clone(&manifest), verified);
        let detail = format!("version {}: building the model", manifest.version());
        let _wait = self.waits.enter("weights", detail, BUILD);
        self.builder().build(manifest, Some(tensors)).await
    }

    fn builder(&self) -> Builder {
        Builder {
            local: Arc::clone(&self.local),
            dtype: self.dtype,
            device: self.device.clone(),
            handle: self.handle.clone(),
            simulated: self.simulated,
        }
    }
}

/// Makes models of verified bytes.
struct Builder {
    local: Arc<Local>,
    dtype: DType,
    device: Device,
    handle: Handle,
    simulated: bool,
}

impl Builder {
    async fn build(
        self,
        manifest: Arc<Manifest>,
        tensors: Option<Vec<Bytes>>,
    ) -> Result<Held, WorkerError> {
        let Self { local, dtype, device, handle, simulated } = self;
        let (of, version) = (Arc::clone(&manifest), manifest.version());
        let build = move || match tensors {
            Some(tensors) => build(&local.model, &of, tensors, dtype, &device),
            None => frozen(local.model.clone()),
        };
        let built = match simulated {
            true => Ok(build()),
            false => tokio::task::spawn_blocking(build).await,
        };
        let built = built.map_err(|lost| candle_core::Error::Msg(lost.to_string()));
        let model = built
            .and_then(|built| built)
            .map_err(|source| WeightsError::Build { version, source })?;
        handle.counters.transferred();
        Ok(Held { model: Arc::new(model), manifest })
    }
}

/// The model of a version's verified bytes, one entry a tensor, packed for sampling. What is not trained is that of
/// `local`, not copied.
///
/// # Errors
/// The bytes do not fit the manifest's shapes.
pub fn build(
    local: &Model,
    manifest: &Manifest,
    tensors: Vec<Bytes>,
    dtype: DType,
    device: &Device,
) -> candle_core::Result<Model> {
    let tensors = manifest.entries().iter().zip(tensors).map(|(entry, bytes)| {
        from_bytes(&bytes, entry.dtype, &entry.shape, device)?.to_dtype(dtype)
    });
    let tensors = tensors.collect::<candle_core::Result<_>>()?;
    frozen(local.with_trained(Params::of(local.trained().specs().to_vec(), tensors)?))
}

fn frozen(mut model: Model) -> candle_core::Result<Model> {
    model.freeze()?;
    Ok(model)
}
