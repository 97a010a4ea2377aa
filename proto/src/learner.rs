//! The learner's contract: scored groups in, receipts out.

use crate::auth::Line;
use crate::generated::learner_service_client;
use crate::transport::MAX_MESSAGE_BYTES;

pub use crate::generated::delivery_receipt::Outcome as DeliveryOutcome;
pub use crate::generated::learner_service_server::{LearnerService, LearnerServiceServer};
pub use crate::generated::{
    Accepted, DeliveryReceipt, FinishReason, Refused, ScoredCompletion, ScoredGroup,
};

/// A client of the learner. Clones share one connection.
pub type LearnerClient = learner_service_client::LearnerServiceClient<Line>;

/// A client over a channel or a [`Line`], with the message limits set.
pub fn learner_client(line: impl Into<Line>) -> LearnerClient {
    LearnerClient::new(line.into())
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The service for a router, with the message limits set.
pub fn learner_server<S: LearnerService>(service: S) -> LearnerServiceServer<S> {
    LearnerServiceServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}
