//! The coordinator's contract with whoever runs a run: rewards, swapped while it goes on.

use crate::auth::Line;
use crate::generated::coordinator_admin_service_client;
use crate::transport::MAX_MESSAGE_BYTES;

pub use crate::generated::coordinator_admin_service_server::{
    CoordinatorAdminService, CoordinatorAdminServiceServer,
};
pub use crate::generated::{
    GetRewardsRequest, GetRewardsResponse, RollbackRewardRequest, SwapRewardRequest,
    SwapRewardResponse,
};

/// A client of the coordinator's administration. Clones share one connection.
pub type AdminClient = coordinator_admin_service_client::CoordinatorAdminServiceClient<Line>;

/// A client over a channel or a [`Line`], with the message limits set.
pub fn admin_client(line: impl Into<Line>) -> AdminClient {
    AdminClient::new(line.into())
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The service for a router, with the message limits set.
pub fn admin_server<S: CoordinatorAdminService>(service: S) -> CoordinatorAdminServiceServer<S> {
    CoordinatorAdminServiceServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}
