//! turmoil's network under the roles: their channels, and their connections.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use hyper_util::rt::TokioIo;
use octet_proto::transport::{AddressError, ClientOptions, endpoint};
use octet_runtime::net::Dial;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Uri};
use turmoil::net::{TcpListener, TcpStream};

/// The port of every service.
pub const PORT: u16 = 7000;

/// Opens channels over turmoil's network instead of TCP.
#[derive(Debug)]
pub struct Simulated;

impl Dial for Simulated {
    fn dial(&self, address: &str, options: &ClientOptions) -> Result<Channel, AddressError> {
        let connector = tower::service_fn(|uri: Uri| async move {
            let peer = (uri.host().unwrap_or_default().to_owned(), uri.port_u16().unwrap_or(PORT));
            TcpStream::connect(peer).await.map(TokioIo::new)
        });
        Ok(endpoint(address, options)?.connect_with_connector_lazy(connector))
    }
}

/// Where a host's service is dialled.
pub fn at(host: &str) -> String {
    format!("http://{host}:{PORT}")
}

/// A connection as a server takes it.
pub struct Connection(TcpStream);

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The connections to this host's service.
pub async fn incoming() -> io::Result<impl Stream<Item = io::Result<Connection>> + Send + 'static> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    Ok(futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _peer)| Connection(stream));
        Some((accepted, listener))
    }))
}
