//! The reward's contract: `Describe` and `Score`, and nothing else.

use crate::auth::Line;
use crate::generated::reward_service_client;
use crate::transport::{MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES};

pub use crate::generated::reward_service_server::{RewardService, RewardServiceServer};
pub use crate::generated::score_response::Outcome as ScoreOutcome;
pub use crate::generated::{
    DescribeRequest, DescribeResponse, ScoreFailure, ScoreRequest, ScoreResponse, Scored,
};

/// A client of a reward service. Clones share one connection.
pub type RewardClient = reward_service_client::RewardServiceClient<Line>;

/// A client over a channel or a [`Line`], with the message limits set.
pub fn reward_client(line: impl Into<Line>) -> RewardClient {
    RewardClient::new(line.into())
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The service for a router, with the message limits set.
pub fn reward_server<S: RewardService>(service: S) -> RewardServiceServer<S> {
    RewardServiceServer::new(service)
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}
