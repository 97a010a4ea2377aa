//! Gives out the weights of published versions: a manifest, and chunks from any offset.
//!
//! Invariant: a version that is given out is committed. Asking for one that is not there is an error
//! in at most the time that the caller allowed, and says whether it is too old or not made yet.

mod broadcast;
mod published;
mod stored;

pub(crate) use broadcast::Outbox;
pub use published::{Publication, Published, manifest};
pub use stored::Stored;

use octet_proto::PolicyVersion;
use octet_proto::error::{ServiceError, to_status};
use octet_proto::transport::CHUNK_BYTES;
use octet_proto::weights::{
    GetChunksRequest, GetManifestRequest, WeightsChunk, WeightsManifest, WeightsService,
};
use octet_runtime::CancellationToken;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status};

/// The longest that a request for a manifest is held; below every client's request timeout.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Why there are no weights to give.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// It was published and is not kept any more.
    #[error(
        "policy version {found} is no longer kept: expected one of {oldest} to {newest}; ask the coordinator for a lease and fetch the version that it names"
    )]
    Retired {
        /// The version asked for.
        found: PolicyVersion,
        /// The oldest that is kept.
        oldest: PolicyVersion,
        /// The newest.
        newest: PolicyVersion,
    },
    /// It is not there yet.
    #[error(
        "policy version {found} is not published yet, the newest is {newest}: ask again, its step is being sampled or learned"
    )]
    Unpublished {
        /// The version asked for.
        found: PolicyVersion,
        /// The newest.
        newest: PolicyVersion,
    },
    /// There will be none such.
    #[error(
        "the run has policy versions up to {last}, found {found}; fetch weights from the learner of your own run"
    )]
    Unknown {
        /// The version asked for.
        found: PolicyVersion,
        /// The run's last.
        last: PolicyVersion,
    },
    /// The files of a version cannot be read any more.
    #[error(
        "policy version {version} cannot be given out: {reason}; its checkpoint was changed or removed while the run goes on"
    )]
    Unreadable {
        /// The version.
        version: PolicyVersion,
        /// The file, and what the system says.
        reason: String,
    },
    /// A place outside of the weights.
    #[error(
        "expected an offset of at most {total} bytes into policy version {version}, found {found}; begin again at 0"
    )]
    Offset {
        /// The version.
        version: PolicyVersion,
        /// Its size.
        total: u64,
        /// The offset asked for.
        found: u64,
    },
}

impl ServiceError for WeightsError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Retired { .. } => "version-retired",
            Self::Unpublished { .. } => "version-unpublished",
            Self::Unknown { .. } => "unknown-version",
            Self::Offset { .. } => "bad-offset",
            Self::Unreadable { .. } => "version-unreadable",
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Retired { .. } | Self::Unpublished { .. } | Self::Unknown { .. } => {
                Code::NotFound
            }
            Self::Offset { .. } => Code::OutOfRange,
            Self::Unreadable { .. } => Code::DataLoss,
        }
    }
}

impl From<WeightsError> for Status {
    fn from(error: WeightsError) -> Self {
        to_status(&error)
    }
}

/// The service, as tonic calls it.
#[derive(Clone, Debug)]
pub struct Weights {
    publication: Publication,
    last: PolicyVersion,
    stop: CancellationToken,
}

impl Weights {
    /// Serves what is published; `last` is the version that the run's last step makes. Requests that
    /// wait are answered when `stop` is cancelled.
    pub fn new(publication: Publication, last: PolicyVersion, stop: CancellationToken) -> Self {
        Self { publication, last, stop }
    }

    fn check(&self, version: PolicyVersion) -> Result<(), WeightsError> {
        if version > self.last {
            return Err(WeightsError::Unknown { found: version, last: self.last });
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl WeightsService for Weights {
    type GetChunksStream = Pin<Box<dyn Stream<Item = Result<WeightsChunk, Status>> + Send>>;

    async fn get_manifest(
        &self,
        request: Request<GetManifestRequest>,
    ) -> Result<Response<WeightsManifest>, Status> {
        let GetManifestRequest { version, wait_ms } = request.into_inner();
        let version = PolicyVersion(version);
        self.check(version)?;
        let within = Duration::from_millis(wait_ms.into()).min(LONGEST_WAIT);
        let waited = tokio::select! {
            () = self.stop.cancelled() => self.publication.get(version),
            waited = self.publication.wait(version, within) => waited,
        };
        Ok(Response::new(waited?.manifest().clone()))
    }

    async fn get_chunks(
        &self,
        request: Request<GetChunksRequest>,
    ) -> Result<Response<Self::GetChunksStream>, Status> {
        let GetChunksRequest { version, offset } = request.into_inner();
        self.check(PolicyVersion(version))?;
        let published = self.publication.get(PolicyVersion(version))?;
        let total = published.manifest().total_bytes;
        if offset > total {
            let version = PolicyVersion(version);
            return Err(WeightsError::Offset { version, total, found: offset }.into());
        }
        // The version lives until its last reader is done, also when it is retired meanwhile.
        let offsets = (offset..total).step_by(CHUNK_BYTES);
        let publication = self.publication.clone();
        let chunks = tokio_stream::iter(offsets).then(move |offset| {
            let (published, publication) = (Arc::clone(&published), publication.clone());
            async move {
                let data = published.chunk_aside(offset, CHUNK_BYTES).await?;
                publication.sent(data.len());
                Ok(WeightsChunk { offset, data })
            }
        });
        Ok(Response::new(Box::pin(chunks)))
    }
}

#[cfg(test)]
mod tests;
