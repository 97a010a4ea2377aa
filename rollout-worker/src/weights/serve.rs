//! Gives the versions that this worker holds, or is fetching, to other workers.
//!
//! Invariants: not a byte is given out that was not verified; a version that is still being fetched is
//! passed on tensor by tensor as it arrives, so that a chain of workers takes little longer than one.
//! At most [`MOST_STREAMS`] are served at once, so that serving cannot starve sampling.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use octet_proto::PolicyVersion;
use octet_proto::error::{ServiceError, to_status};
use octet_proto::transport::CHUNK_BYTES;
use octet_proto::weights::{
    GetChunksRequest, GetManifestRequest, WeightsChunk, WeightsManifest, WeightsService,
};
use octet_runtime::CancellationToken;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::{Code, Request, Response, Status};

use super::manifest::Manifest;
use super::shelf::{Shelf, Stock};
use crate::stats::Handle;

/// The most versions that are given out at once.
pub const MOST_STREAMS: usize = 8;
/// The longest that a request for a manifest is held; below every client's request timeout.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Why a version cannot be had from this worker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// It is not here.
    #[error("this worker does not hold policy version {0}: ask another one, or the learner")]
    NotHeld(PolicyVersion),
    /// It serves as many as it may.
    #[error("this worker gives weights to {MOST_STREAMS} others already: ask another one")]
    Busy,
    /// A place outside of the weights.
    #[error("expected an offset of at most {total} bytes, found {found}; begin again at 0")]
    Offset {
        /// The version's size.
        total: u64,
        /// The offset asked for.
        found: u64,
    },
}

impl ServiceError for ServeError {
    fn kind(&self) -> &'static str {
        match self {
            Self::NotHeld(_) => "version-not-held",
            Self::Busy => "busy",
            Self::Offset { .. } => "bad-offset",
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::NotHeld(_) => Code::NotFound,
            Self::Busy => Code::ResourceExhausted,
            Self::Offset { .. } => Code::OutOfRange,
        }
    }
}

impl From<ServeError> for Status {
    fn from(error: ServeError) -> Self {
        to_status(&error)
    }
}

/// The service, as tonic calls it.
#[derive(Clone, Debug)]
pub(crate) struct Serving {
    shelf: Shelf,
    handle: Handle,
    streams: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Serving {
    pub(crate) fn new(shelf: Shelf, handle: Handle, stop: CancellationToken) -> Self {
        Self { shelf, handle, streams: Arc::new(Semaphore::new(MOST_STREAMS)), stop }
    }
}

/// A version on its way to another worker.
struct Passing {
    manifest: Arc<Manifest>,
    verified: watch::Receiver<Vec<Bytes>>,
    tensor: usize,
    /// Bytes of that tensor that were sent.
    sent: usize,
    handle: Handle,
    _permit: OwnedSemaphorePermit,
}

impl Passing {
    fn new(stock: Stock, offset: u64, handle: Handle, permit: OwnedSemaphorePermit) -> Self {
        let Stock { manifest, verified } = stock;
        let entries = manifest.entries();
        let tensor = entries.partition_point(|entry| entry.start + entry.bytes <= offset);
        let start = entries.get(tensor).map_or(offset, |entry| entry.start);
        // Lengths were checked against a model in memory, so they fit.
        let sent = offset.saturating_sub(start) as usize;
        Self { manifest, verified, tensor, sent, handle, _permit: permit }
    }

    /// The next chunk, once it is verified; none at the end.
    async fn next(&mut self) -> Option<Result<WeightsChunk, Status>> {
        let start = self.manifest.entries().get(self.tensor)?.start;
        let at = self.tensor;
        let data = match self.verified.wait_for(|verified| verified.len() > at).await {
            Ok(verified) => verified[at].clone(),
            Err(_given_up) => {
                let why = "this worker gave the version up before it had it whole";
                return Some(Err(Status::unavailable(why)));
            }
        };
        let end = self.sent.saturating_add(CHUNK_BYTES).min(data.len());
        let chunk = data.slice(self.sent.min(end)..end);
        let offset = start + self.sent as u64;
        self.sent = end;
        if end == data.len() {
            self.tensor += 1;
            self.sent = 0;
        }
        self.handle.counters.served(chunk.len());
        Some(Ok(WeightsChunk { offset, data: chunk }))
    }
}

#[tonic::async_trait]
impl WeightsService for Serving {
    type GetChunksStream = Pin<Box<dyn Stream<Item = Result<WeightsChunk, Status>> + Send>>;

    async fn get_manifest(
        &self,
        request: Request<GetManifestRequest>,
    ) -> Result<Response<WeightsManifest>, Status> {
        let GetManifestRequest { version, wait_ms } = request.into_inner();
        let version = PolicyVersion(version);
        let within = Duration::from_millis(wait_ms.into()).min(LONGEST_WAIT);
        let found = tokio::select! {
            () = self.stop.cancelled() => None,
            // From the model directory: it did not arrive, so it cannot be passed on.
            () = std::future::ready(()), if self.shelf.get(version).is_some() => None,
            found = tokio::time::timeout(within, self.shelf.stock_soon(version)) => found.ok(),
        };
        let stock = found.or_else(|| self.shelf.stock(version));
        let stock = stock.ok_or(ServeError::NotHeld(version))?;
        Ok(Response::new(stock.manifest.message().clone()))
    }

    async fn get_chunks(
        &self,
        request: Request<GetChunksRequest>,
    ) -> Result<Response<Self::GetChunksStream>, Status> {
        let GetChunksRequest { version, offset } = request.into_inner();
        let version = PolicyVersion(version);
        let stock = self.shelf.stock(version).ok_or(ServeError::NotHeld(version))?;
        let total = stock.manifest.total();
        if offset > total {
            return Err(ServeError::Offset { total, found: offset }.into());
        }
        let permit = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| ServeError::Busy)?;
        let passing = Passing::new(stock, offset, self.handle.clone(), permit);
        let chunks = futures::stream::unfold(passing, |mut passing| async move {
            passing.next().await.map(|chunk| (chunk, passing))
        });
        Ok(Response::new(Box::pin(chunks)))
    }
}
