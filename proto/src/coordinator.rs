//! The coordinator's contract: membership, leases, progress and status.

use tonic::transport::Channel;

use crate::generated::coordinator_service_client;
use crate::transport::MAX_MESSAGE_BYTES;

pub use crate::generated::coordinator_service_server::{
    CoordinatorService, CoordinatorServiceServer,
};
pub use crate::generated::{
    GetStatusRequest, GetStatusResponse, HeartbeatRequest, HeartbeatResponse, LearnerStatus, Lease,
    LeaseRef, LeaseRequest, LeaseResponse, RegisterLearnerRequest, RegisterLearnerResponse,
    RegisterWorkerRequest, RegisterWorkerResponse, ReleaseRequest, ReleaseResponse,
    ReportProgressRequest, ReportProgressResponse, RewardRevision, Wait, WorkerStatus,
};

/// A client of the coordinator. Clones share one connection.
pub type CoordinatorClient = coordinator_service_client::CoordinatorServiceClient<Channel>;

/// A client over `channel`, with the message limits set.
pub fn coordinator_client(channel: Channel) -> CoordinatorClient {
    CoordinatorClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The service for a router, with the message limits set.
pub fn coordinator_server<S: CoordinatorService>(service: S) -> CoordinatorServiceServer<S> {
    CoordinatorServiceServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}
