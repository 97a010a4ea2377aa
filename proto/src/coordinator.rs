//! The coordinator's contract: membership, leases, progress and status.

use crate::auth::Line;
use crate::generated::coordinator_service_client;
use crate::transport::{MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES};

pub use crate::generated::coordinator_service_server::{
    CoordinatorService, CoordinatorServiceServer,
};
pub use crate::generated::{
    GetStatusRequest, GetStatusResponse, HeartbeatRequest, HeartbeatResponse, LearnerStatus, Lease,
    LeaseRef, LeaseRequest, LeaseResponse, PublishedVersion, Queue, RegisterLearnerRequest,
    RegisterLearnerResponse, RegisterWorkerRequest, RegisterWorkerResponse, ReleaseRequest,
    ReleaseResponse, ReportProgressRequest, ReportProgressResponse, RewardBinding, RewardRevision,
    RewardState, VersionSources, Wait, WeightsSpread, WorkerStatus,
};

/// A client of the coordinator. Clones share one connection.
pub type CoordinatorClient = coordinator_service_client::CoordinatorServiceClient<Line>;

/// A client over a channel or a [`Line`], with the message limits set.
pub fn coordinator_client(line: impl Into<Line>) -> CoordinatorClient {
    CoordinatorClient::new(line.into())
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The service for a router, with the message limits set.
pub fn coordinator_server<S: CoordinatorService>(service: S) -> CoordinatorServiceServer<S> {
    CoordinatorServiceServer::new(service)
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}
