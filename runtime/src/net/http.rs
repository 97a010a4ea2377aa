//! Plain HTTP for scrapers and probes: `/metrics` and `/healthz`, and nothing else.
//!
//! Invariants: it reads a request's head and no body; whoever is slow or one too many is hung up on; a page
//! that is late is an error, so that a node which hangs is not taken for well.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Exposure, NetError, bind};

/// The most connections at once.
const MOST_CONNECTIONS: usize = 32;
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(5);
/// The most bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;
/// How long a page may take to be made.
const PAGE: Duration = Duration::from_secs(5);
/// How long one connection may last.
const CONNECTION: Duration = Duration::from_secs(300);
/// How long to pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What OpenMetrics calls itself.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A text that is being made.
pub type Text<'a> = Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>>;

/// What a node has to show.
pub trait Pages: Send + Sync + 'static {
    /// Its metrics in the OpenMetrics text format, or why there are none.
    fn metrics(&self) -> Text<'_>;

    /// That it is well, or why it is not.
    fn health(&self) -> Text<'_>;
}

/// A port for pages.
#[derive(Debug)]
pub struct PagesListener {
    inner: TcpListener,
    address: SocketAddr,
}

impl PagesListener {
    /// Binds `address`; port 0 takes a free one. Pages are plain text always: scrapers and probes rarely have
    /// a certificate of the run.
    ///
    /// # Errors
    /// The node speaks to its own machine alone and the address does not, or it cannot be bound.
    pub async fn bind(address: SocketAddr, exposure: &Exposure) -> Result<Self, NetError> {
        let exposure = match exposure {
            Exposure::Loopback => Exposure::Loopback,
            Exposure::MutualTls(_) | Exposure::InsecureNetwork => Exposure::InsecureNetwork,
        };
        let bound = bind(address, exposure).await?;
        Ok(Self { inner: bound.inner, address: bound.address })
    }

    /// The address that was bound, with the port that it got.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shows the pages until `stop`.
    pub async fn serve(self, pages: Arc<dyn Pages>, stop: CancellationToken) {
        let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                _ = connections.join_next(), if !connections.is_empty() => continue,
                accepted = self.inner.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(address = %self.address, %error, "cannot accept a connection; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
            let pages = Arc::clone(&pages);
            connections.spawn(async move {
                let _permit = permit;
                let service = service_fn(move |request| answer(Arc::clone(&pages), request));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD)
                    .max_buf_size(HEAD_BYTES)
                    .serve_connection(TokioIo::new(stream), service);
                // Who goes away or talks nonsense is no news.
                let _ended = timeout(CONNECTION, connection).await;
            });
        }
    }
}

async fn answer(
    pages: Arc<dyn Pages>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(page(StatusCode::METHOD_NOT_ALLOWED, "expected GET\n".to_owned()));
    }
    let late = |_| Err(format!("it did not answer within {PAGE:?}"));
    Ok(match request.uri().path() {
        "/metrics" => match timeout(PAGE, pages.metrics()).await.unwrap_or_else(late) {
            Ok(text) => {
                let mut response = page(StatusCode::OK, text);
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
                response
            }
            Err(why) => page(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
        },
        "/healthz" => match timeout(PAGE, pages.health()).await.unwrap_or_else(late) {
            Ok(text) => page(StatusCode::OK, text + "\n"),
            Err(why) => page(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
        },
        _ => page(StatusCode::NOT_FOUND, "there are /metrics and /healthz\n".to_owned()),
    })
}

fn page(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    struct Fixed;

    impl Pages for Fixed {
        fn metrics(&self) -> Text<'_> {
            Box::pin(async { Ok("# EOF\n".to_owned()) })
        }
        fn health(&self) -> Text<'_> {
            Box::pin(async { Err("stopping".to_owned()) })
        }
    }

    async fn said(at: SocketAddr, words: &str) -> String {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(words.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn pages_are_shown_and_nothing_else_is() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = PagesListener::bind(any, &Exposure::Loopback).await.unwrap();
        let at = listener.address();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(listener.serve(Arc::new(Fixed), stop.clone()));
        let get =
            |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let metrics = said(at, &get("/metrics")).await;
        assert!(
            metrics.starts_with("HTTP/1.1 200") && metrics.contains("openmetrics"),
            "{metrics}"
        );
        assert!(metrics.ends_with("# EOF\n"));
        let health = said(at, &get("/healthz")).await;
        assert!(health.starts_with("HTTP/1.1 503") && health.ends_with("stopping\n"), "{health}");
        assert!(said(at, &get("/etc/passwd")).await.starts_with("HTTP/1.1 404"));
        let post =
            "POST /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        assert!(said(at, post).await.starts_with("HTTP/1.1 405"));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(HEAD_BYTES));
        assert!(said(at, &long).await.starts_with("HTTP/1.1 4"));
        stop.cancel();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn pages_are_for_this_machine_unless_the_node_was_told_otherwise() {
        let everybody = SocketAddr::from(([0, 0, 0, 0], 0));
        let error = PagesListener::bind(everybody, &Exposure::Loopback).await.unwrap_err();
        assert!(matches!(error, NetError::Exposed(_)), "{error}");
        assert!(PagesListener::bind(everybody, &Exposure::InsecureNetwork).await.is_ok());
    }
}
