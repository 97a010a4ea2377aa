//! Real calls over loopback: limits hold on both sides, errors keep their kind, and a peer that goes
//! away is told from a peer that refuses.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use octet_proto::error::{ServiceError, error_kind, is_transport_failure, to_status};
use octet_proto::transport::{
    CHUNK_BYTES, ClientOptions, KeepAlive, MAX_MESSAGE_BYTES, channel, server,
};
use octet_proto::weights::{
    GetChunksRequest, GetManifestRequest, TensorEntry, WeightsChunk, WeightsManifest,
    WeightsService, weights_client, weights_server,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status};

#[derive(Debug, thiserror::Error)]
#[error("version {0} is not published: the newest is 3")]
struct NotPublished(u64);

impl ServiceError for NotPublished {
    fn kind(&self) -> &'static str {
        "not-published"
    }
    fn code(&self) -> Code {
        Code::NotFound
    }
}

/// Publishes versions up to 3. A version's weights are as many chunks, and then a stall if asked.
struct Holder {
    stall_after_chunks: bool,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<WeightsChunk, Status>> + Send>>;

#[tonic::async_trait]
impl WeightsService for Holder {
    async fn get_manifest(
        &self,
        request: Request<GetManifestRequest>,
    ) -> Result<Response<WeightsManifest>, Status> {
        let GetManifestRequest { version, wait_ms } = request.into_inner();
        tokio::time::sleep(Duration::from_millis(wait_ms.into())).await;
        let manifest = |name_bytes: usize| WeightsManifest {
            version,
            tensors: vec![TensorEntry { name: "x".repeat(name_bytes), ..Default::default() }],
            ..Default::default()
        };
        match version {
            0..=3 => Ok(Response::new(manifest(8 << 20))),
            // A faulty server: more than any message may hold.
            4 => Ok(Response::new(manifest(MAX_MESSAGE_BYTES + 1))),
            _ => Err(to_status(&NotPublished(version))),
        }
    }

    type GetChunksStream = Chunks;

    async fn get_chunks(
        &self,
        request: Request<GetChunksRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let chunks = (0..request.into_inner().version).map(|i| {
            let data = Bytes::from(vec![i as u8; CHUNK_BYTES]);
            Ok(WeightsChunk { offset: i * CHUNK_BYTES as u64, data })
        });
        let chunks = tokio_stream::iter(chunks.collect::<Vec<_>>());
        Ok(Response::new(if self.stall_after_chunks {
            Box::pin(chunks.chain(tokio_stream::pending()))
        } else {
            Box::pin(chunks)
        }))
    }
}

/// Serves until the sender is used or dropped.
async fn serve(listener: TcpListener, holder: Holder) -> oneshot::Sender<()> {
    let (stop, stopped) = oneshot::channel();
    let router = server(KeepAlive::default()).add_service(weights_server(holder));
    tokio::spawn(async move {
        // Dropping the future closes the listener.
        tokio::select! {
            served = router.serve_with_incoming(TcpListenerStream::new(listener)) => served.unwrap(),
            _ = stopped => {}
        }
    });
    stop
}

async fn bind() -> (TcpListener, String) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    (listener, address)
}

#[tokio::test]
async fn a_message_over_four_mebibytes_passes_and_one_over_the_limit_is_refused() {
    let (listener, address) = bind().await;
    let _serving = serve(listener, Holder { stall_after_chunks: false }).await;
    let mut client = weights_client(channel(&address, &ClientOptions::default()).unwrap());

    let manifest = client.get_manifest(GetManifestRequest { version: 3, wait_ms: 0 }).await;
    assert_eq!(manifest.unwrap().into_inner().tensors[0].name.len(), 8 << 20);

    let refused = client.get_manifest(GetManifestRequest { version: 4, wait_ms: 0 }).await;
    let status = refused.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert!(status.message().contains(&MAX_MESSAGE_BYTES.to_string()), "{status:?}");
    assert!(!is_transport_failure(&status), "sending it again would not help");
}

#[tokio::test]
async fn an_error_keeps_its_code_and_kind_across_the_wire() {
    let (listener, address) = bind().await;
    let _serving = serve(listener, Holder { stall_after_chunks: false }).await;
    let mut client = weights_client(channel(&address, &ClientOptions::default()).unwrap());

    let refused = client.get_manifest(GetManifestRequest { version: 9, wait_ms: 0 }).await;
    let status = refused.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(error_kind(&status), Some("not-published"));
    assert_eq!(status.message(), "version 9 is not published: the newest is 3");
    assert!(!is_transport_failure(&status));
}

#[tokio::test]
async fn chunks_arrive_whole_and_in_order() {
    let (listener, address) = bind().await;
    let _serving = serve(listener, Holder { stall_after_chunks: false }).await;
    let mut client = weights_client(channel(&address, &ClientOptions::default()).unwrap());

    let request = GetChunksRequest { version: 40, offset: 0 };
    let mut chunks = client.get_chunks(request).await.unwrap().into_inner();
    let mut count = 0u64;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.unwrap();
        assert_eq!(chunk.offset, count * CHUNK_BYTES as u64);
        assert_eq!(chunk.data.len(), CHUNK_BYTES);
        assert!(chunk.data.iter().all(|&byte| byte == count as u8));
        count += 1;
    }
    assert_eq!(count, 40);
}

#[tokio::test]
async fn a_peer_that_answers_too_late_is_a_transport_failure() {
    let (listener, address) = bind().await;
    let _serving = serve(listener, Holder { stall_after_chunks: false }).await;
    let options = ClientOptions {
        request_timeout: Some(Duration::from_millis(50)),
        ..ClientOptions::default()
    };
    let mut client = weights_client(channel(&address, &options).unwrap());
    let late = client.get_manifest(GetManifestRequest { version: 1, wait_ms: 5_000 }).await;
    let status = late.unwrap_err();
    assert!(is_transport_failure(&status), "{status:?}");
}

#[tokio::test]
async fn the_same_channel_works_again_once_the_peer_is_up() {
    let (listener, address) = bind().await;
    let local = listener.local_addr().unwrap();
    drop(listener);
    let mut client = weights_client(channel(&address, &ClientOptions::default()).unwrap());
    let request = GetManifestRequest { version: 1, wait_ms: 0 };

    let down = client.get_manifest(request).await.unwrap_err();
    assert!(is_transport_failure(&down), "{down:?}");
    assert_eq!(down.code(), Code::Unavailable);

    let listener = TcpListener::bind(local).await.unwrap();
    let _serving = serve(listener, Holder { stall_after_chunks: false }).await;
    assert!(client.get_manifest(request).await.is_ok());
}

#[test]
fn a_peer_that_dies_inside_a_stream_is_a_transport_failure() {
    // The server has a runtime of its own: dropping it closes its sockets, as a killed process does.
    let serving = tokio::runtime::Runtime::new().unwrap();
    let (listener, address) = serving.block_on(bind());
    let _stop = serving.block_on(serve(listener, Holder { stall_after_chunks: true }));

    tokio::runtime::Runtime::new().unwrap().block_on(async move {
        let mut client = weights_client(channel(&address, &ClientOptions::default()).unwrap());
        let request = GetChunksRequest { version: 1, offset: 0 };
        let mut chunks = client.get_chunks(request).await.unwrap().into_inner();
        assert!(chunks.next().await.unwrap().is_ok());
        serving.shutdown_background();
        let status = chunks.next().await.unwrap().unwrap_err();
        assert!(is_transport_failure(&status), "{status:?}");
    });
}

#[tokio::test]
async fn keep_alive_finds_out_that_a_silent_peer_is_gone() {
    // Takes the connection and never says a word, as a host behind a cut cable does.
    let (listener, address) = bind().await;
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let ping = Duration::from_millis(100);
    let options = ClientOptions {
        request_timeout: None,
        keep_alive: Some(KeepAlive { interval: ping, timeout: ping }),
        ..ClientOptions::default()
    };
    let mut client = weights_client(channel(&address, &options).unwrap());
    let since = Instant::now();
    let call = client.get_manifest(GetManifestRequest { version: 1, wait_ms: 0 });
    let status = tokio::time::timeout(Duration::from_secs(10), call).await.unwrap().unwrap_err();
    assert!(is_transport_failure(&status), "{status:?}");
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}
