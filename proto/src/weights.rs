//! The contract of published weights: a manifest, and chunks from any offset.

use tonic::transport::Channel;

use crate::generated::weights_service_client;
use crate::transport::MAX_MESSAGE_BYTES;

pub use crate::generated::weights_service_server::{WeightsService, WeightsServiceServer};
pub use crate::generated::{
    GetChunksRequest, GetManifestRequest, TensorEntry, WeightsChunk, WeightsManifest,
};

/// A client of a node that holds weights. Clones share one connection.
pub type WeightsClient = weights_service_client::WeightsServiceClient<Channel>;

/// A client over `channel`, with the message limits set.
pub fn weights_client(channel: Channel) -> WeightsClient {
    WeightsClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The service for a router, with the message limits set.
pub fn weights_server<S: WeightsService>(service: S) -> WeightsServiceServer<S> {
    WeightsServiceServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}
