//! The contract of published weights: a manifest, and chunks from any offset.

use crate::auth::Line;
use crate::generated::weights_service_client;
use crate::transport::{MAX_MESSAGE_BYTES, MAX_QUESTION_BYTES};

pub use crate::generated::weights_service_server::{WeightsService, WeightsServiceServer};
pub use crate::generated::{
    GetChunksRequest, GetManifestRequest, TensorEntry, WeightsChunk, WeightsManifest,
};

/// A client of a node that holds weights. Clones share one connection.
pub type WeightsClient = weights_service_client::WeightsServiceClient<Line>;

/// A client over a channel or a [`Line`], with the message limits set.
pub fn weights_client(line: impl Into<Line>) -> WeightsClient {
    WeightsClient::new(line.into())
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The service for a router, with the message limits set.
pub fn weights_server<S: WeightsService>(service: S) -> WeightsServiceServer<S> {
    WeightsServiceServer::new(service)
        .max_decoding_message_size(MAX_QUESTION_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}
