//! Dialling with TLS.
//!
//! Invariant: a connection is up within the connect deadline or is a named failure, and a peer that
//! turns this node away is quoted in words, also when it does so after the handshake.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use octet_proto::transport::{Address, AddressError, ClientOptions, endpoint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Uri};

use super::tls::{Tls, explain};

/// A channel that shows this node's certificate and checks the peer's.
pub(super) fn encrypted(
    tls: &Tls,
    address: &str,
    peer: Address,
    options: &ClientOptions,
) -> Result<Channel, AddressError> {
    let name = ServerName::try_from(peer.host.clone()).map_err(|_| AddressError::Malformed {
        address: address.to_owned(),
        found: format!("the host `{}`, which no certificate can name", peer.host),
    })?;
    let connector = TlsConnector::from(Arc::clone(&tls.client));
    let (within, shown) = (options.connect_timeout, address.trim_end_matches('/').to_owned());
    let connect = tower::service_fn(move |_uri: Uri| {
        let (connector, peer, name) = (connector.clone(), peer.clone(), name.clone());
        let shown: Arc<str> = shown.as_str().into();
        async move {
            let late = || {
                let why = format!("{shown} did not answer within {within:?}");
                io::Error::new(io::ErrorKind::TimedOut, why)
            };
            let up = timeout(within, connect(&connector, &peer, name, &shown)).await;
            let stream = up.map_err(|_| late())??;
            Ok::<_, io::Error>(TokioIo::new(Outgoing { stream, peer: shown }))
        }
    });
    // The endpoint's own deadline names nobody: were it as early, it would at times come first.
    let endpoint = endpoint(address, options)?.connect_timeout(2 * within);
    Ok(endpoint.connect_with_connector_lazy(connect))
}

async fn connect(
    connector: &TlsConnector,
    peer: &Address,
    name: ServerName<'static>,
    shown: &str,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect((peer.host.as_str(), peer.port)).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot connect to {shown}: {error}"))
    })?;
    stream.set_nodelay(true)?;
    connector.connect(name, stream).await.map_err(|error| told(error, shown))
}

/// The failure with what TLS says about it.
fn told(error: io::Error, peer: &str) -> io::Error {
    match explain(&error, peer) {
        Some(words) => io::Error::new(error.kind(), words),
        None if error.kind() == io::ErrorKind::UnexpectedEof => io::Error::new(
            error.kind(),
            format!(
                "{peer} hung up during the TLS handshake: it may not speak TLS, or be stopping"
            ),
        ),
        None => error,
    }
}

/// A connection to a peer.
struct Outgoing {
    stream: TlsStream<TcpStream>,
    peer: Arc<str>,
}

impl AsyncRead for Outgoing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // In TLS 1.3 a server refuses a client's certificate after the client's own handshake.
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        read.map_err(|error| match explain(&error, &self.peer) {
            Some(words) => io::Error::new(error.kind(), words),
            None => error,
        })
    }
}

impl AsyncWrite for Outgoing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
