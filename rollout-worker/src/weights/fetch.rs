//! Fetches one version: the manifest, then chunks from where it was interrupted.
//!
//! Invariants: a broken stream is resumed at the byte that is missing; damage is counted, named, and
//! an error after so many times; a silent peer is given up after a deadline and called again.

use std::sync::Arc;
use std::time::Duration;

use candle_core::{DType, Device};
use octet_policy::config::ModelConfig;
use octet_policy::model::{Model, Params, from_bytes};
use octet_proto::PolicyVersion;
use octet_proto::weights::{GetChunksRequest, GetManifestRequest, WeightsClient, weights_client};
use octet_runtime::backoff::{Attempts, Backoff};
use octet_runtime::wait::{WaitGuard, Waits};
use tokio::time::sleep;
use tonic::{Code, Status};

use super::error::{Damage, WeightsError};
use super::intake::Intake;
use super::manifest::{Manifest, Refused};
use super::shelf::Held;
use crate::config::Limits;
use crate::error::WorkerError;
use crate::peer::Learner;
use crate::stats::Handle;

/// How long a call may take beyond what it asked to wait for.
const CALL: Duration = Duration::from_secs(10);

/// Fetches versions. Clones fetch independently.
#[derive(Clone)]
pub(crate) struct Fetcher {
    pub learner: Learner,
    pub limits: Limits,
    pub waits: Waits,
    pub handle: Handle,
    pub dtype: DType,
    pub device: Device,
    /// The model directory's own weights, which need not travel.
    pub local: Arc<Local>,
}

/// The model directory's weights and their digest.
pub(crate) struct Local {
    pub model: Model,
    pub digest: blake3::Hash,
}

/// A version on its way.
struct Transfer<'a> {
    fetcher: &'a mut Fetcher,
    version: PolicyVersion,
    wait: WaitGuard,
    attempts: Attempts,
    damaged: u32,
}

/// Why the stream of chunks ended before all was there.
enum Interrupted {
    /// The peer does not have the version any more: ask for the manifest anew.
    Gone(Status),
    /// What came is not what was published: look at the manifest anew.
    Damaged(Damage),
    Worker(WorkerError),
}

impl Fetcher {
    /// A version, verified and packed for sampling; waits for as long as it takes to be published.
    pub(crate) async fn fetch(mut self, version: PolicyVersion) -> Result<Held, WorkerError> {
        let wait = self.waits.enter("weights", format!("version {version}"), CALL);
        let attempts = Backoff::quick(version.get()).attempts();
        let mut transfer = Transfer { fetcher: &mut self, version, wait, attempts, damaged: 0 };
        let (manifest, tensors) = transfer.run().await?;
        transfer.wait.detail(format!("version {version}: building the model"));
        let (local, dtype, device) = (Arc::clone(&self.local), self.dtype, self.device.clone());
        let of = Arc::clone(&manifest);
        let built = tokio::task::spawn_blocking(move || match tensors {
            Some(tensors) => build(local.model.config(), &of, tensors, dtype, &device),
            None => frozen(local.model.clone()),
        });
        let built = built.await.map_err(|lost| candle_core::Error::Msg(lost.to_string()));
        let model = built
            .and_then(|built| built)
            .map_err(|source| WeightsError::Build { version, source })?;
        self.handle.counters.transferred();
        Ok(Held { model: Arc::new(model), manifest })
    }
}

impl Transfer<'_> {
    /// The manifest, and the bytes of its tensors unless the model directory has them.
    async fn run(&mut self) -> Result<(Arc<Manifest>, Option<Vec<Vec<u8>>>), WorkerError> {
        let mut begun: Option<Intake> = None;
        loop {
            let manifest = Arc::new(self.manifest().await?);
            if manifest.digest() == self.fetcher.local.digest {
                return Ok((manifest, None));
            }
            // What was verified stays, as long as it is the same version to the bit.
            let same = begun.take().filter(|begun| begun.manifest().digest() == manifest.digest());
            let mut intake = same.unwrap_or_else(|| Intake::new(Arc::clone(&manifest)));
            match self.pull(&mut intake).await {
                Ok(()) => {}
                Err(Interrupted::Worker(error)) => return Err(error),
                Err(Interrupted::Damaged(damage)) => self.damaged(damage)?,
                Err(Interrupted::Gone(status)) => self.pause("chunks", &status).await,
            }
            match intake.into_tensors() {
                Ok(tensors) => return Ok((manifest, Some(tensors))),
                Err(intake) => begun = Some(intake),
            }
        }
    }

    async fn manifest(&mut self) -> Result<Manifest, WorkerError> {
        loop {
            let mut client = self.client().await?;
            let (version, poll) = (self.version, self.fetcher.limits.poll);
            self.wait.extend(poll + CALL);
            let wait_ms = u32::try_from(poll.as_millis()).unwrap_or(u32::MAX);
            let request = GetManifestRequest { version: version.get(), wait_ms };
            let message = match self.wait.run(client.get_manifest(request)).await {
                Ok(Ok(message)) => message.into_inner(),
                Ok(Err(status)) if status.code() == Code::NotFound => {
                    self.wait.detail(format!("version {version}: not published yet"));
                    sleep(self.attempts.next_delay()).await;
                    continue;
                }
                Ok(Err(status)) => {
                    self.pause("manifest", &status).await;
                    continue;
                }
                Err(late) => {
                    self.pause("manifest", &Status::deadline_exceeded(late.to_string())).await;
                    continue;
                }
            };
            let local = Arc::clone(&self.fetcher.local);
            match Manifest::check(message, version, local.model.config()) {
                Ok(manifest) => return Ok(manifest),
                Err(Refused::Never(error)) => return Err(error.into()),
                Err(Refused::Damaged(damage)) => {
                    self.damaged(damage)?;
                    sleep(self.attempts.next_delay()).await;
                }
            }
        }
    }

    /// Fills the intake, resuming as often as the network breaks.
    async fn pull(&mut self, intake: &mut Intake) -> Result<(), Interrupted> {
        while !intake.is_whole() {
            let mut client = self.client().await.map_err(Interrupted::Worker)?;
            self.wait.extend(CALL);
            let request = GetChunksRequest { version: self.version.get(), offset: intake.offset() };
            let opened = self.wait.run(client.get_chunks(request)).await;
            let mut chunks = match opened {
                Ok(Ok(chunks)) => chunks.into_inner(),
                Ok(Err(status)) if status.code() == Code::NotFound => {
                    return Err(Interrupted::Gone(status));
                }
                Ok(Err(status)) => {
                    self.pause("chunks", &status).await;
                    continue;
                }
                Err(late) => {
                    self.pause("chunks", &Status::deadline_exceeded(late.to_string())).await;
                    continue;
                }
            };
            let broken = loop {
                let (offset, total) = (intake.offset(), intake.manifest().total());
                self.wait.detail(format!("version {}: {offset} of {total} bytes", self.version));
                self.wait.extend(self.fetcher.limits.chunk);
                match self.wait.run(chunks.message()).await {
                    Ok(Ok(Some(chunk))) => {
                        intake.take(chunk.offset, &chunk.data).map_err(Interrupted::Damaged)?;
                        self.attempts.reset();
                    }
                    Ok(Ok(None)) => break Status::unavailable("the stream of chunks ended early"),
                    Ok(Err(status)) => break status,
                    Err(late) => break Status::deadline_exceeded(late.to_string()),
                }
                if intake.is_whole() {
                    return Ok(());
                }
            };
            self.pause("chunks", &broken).await;
        }
        Ok(())
    }

    async fn client(&mut self) -> Result<WeightsClient, WorkerError> {
        Ok(weights_client(self.fetcher.learner.channel().await?))
    }

    /// Counts damage; too much of it is an error.
    fn damaged(&mut self, damage: Damage) -> Result<(), WeightsError> {
        self.damaged += 1;
        self.fetcher.handle.counters.transfer_damaged();
        let (version, times) = (self.version, self.damaged);
        if times >= self.fetcher.limits.transfer_attempts.get() {
            return Err(WeightsError::Damaged { version, times, damage });
        }
        tracing::warn!(version = version.get(), times, error = %damage, "weights arrived damaged; fetching again");
        self.wait.detail(format!("version {version}: again, for {damage}"));
        Ok(())
    }

    async fn pause(&mut self, what: &'static str, status: &Status) {
        let delay = self.attempts.next_delay();
        let (version, peer) = (self.version.get(), self.fetcher.learner.address());
        let error = status.message();
        tracing::warn!(version, what, peer, error, ?delay, "weights interrupted; going on");
        self.wait.detail(format!("version {version} from {peer}: {what}: {error}"));
        sleep(delay).await;
    }
}

fn build(
    config: &ModelConfig,
    manifest: &Manifest,
    tensors: Vec<Vec<u8>>,
    dtype: DType,
    device: &Device,
) -> candle_core::Result<Model> {
    let tensors = manifest.entries().iter().zip(tensors).map(|(entry, bytes)| {
        from_bytes(&bytes, entry.dtype, &entry.shape, device)?.to_dtype(dtype)
    });
    let params = Params::new(config, tensors.collect::<candle_core::Result<_>>()?)?;
    frozen(Model::new(config.clone(), params)?)
}

fn frozen(mut model: Model) -> candle_core::Result<Model> {
    model.freeze()?;
    Ok(model)
}
