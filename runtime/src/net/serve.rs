//! Serves a router until it shall stop, and then really stops.
//!
//! Invariants: at most [`MOST_CONNECTIONS`] are served at once, one more is hung up on; when [`serve`]
//! returns, also because its future was dropped, every connection that it accepted is closed or closing. tonic alone would wait for open streams without end, and would
//! leave connections behind when it is dropped.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt};
use octet_proto::error::with_causes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, Router};

use super::NetError;

/// The most connections that one server has at once. Each may make it hold what
/// [`octet_proto::transport`] allows one connection.
pub const MOST_CONNECTIONS: usize = 1024;

/// How a server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// How many connections still had calls open at the end of the drain, and were cut.
    pub cut: usize,
}

/// Serves `router` on `incoming` until `shutdown`; then takes no new connection, lets open calls
/// finish for at most `drain`, and cuts what is left.
///
/// # Errors
/// Serving failed, or there will be no more connections though nobody asked to stop.
pub async fn serve<S, C, E>(
    service: &'static str,
    router: Router,
    incoming: S,
    shutdown: CancellationToken,
    drain: Duration,
) -> Result<Served, NetError>
where
    S: Stream<Item = Result<C, E>>,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let cut = CancellationToken::new();
    let _cut_when_dropped = cut.clone().drop_guard();
    let open = Arc::new(());
    let incoming = incoming.filter_map(|connection| {
        let full = connection.is_ok() && Arc::strong_count(&open) > MOST_CONNECTIONS;
        if full {
            tracing::warn!(service, limit = MOST_CONNECTIONS, "hung up on a connection too many");
        }
        let taken = connection.map(|inner| Cuttable {
            inner,
            cut: Box::pin(cut.clone().cancelled_owned()),
            _open: Arc::clone(&open),
        });
        std::future::ready((!full).then_some(taken))
    });
    let serving = router.serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
    let deadline = async {
        shutdown.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    let ended = |problem: String| NetError::Ended { service, problem };
    tokio::select! {
        served = serving => {
            served.map_err(|error| ended(with_causes(&error)))?;
            if !shutdown.is_cancelled() {
                return Err(ended("there will be no more connections".to_owned()));
            }
            Ok(Served { cut: 0 })
        }
        () = deadline => {
            let left = Arc::strong_count(&open) - 1;
            tracing::warn!(service, connections = left, ?drain, "cut connections that did not end");
            Ok(Served { cut: left })
        }
    }
}

/// A connection that breaks when it is cut.
struct Cuttable<C> {
    inner: C,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Counted while the connection lives.
    _open: Arc<()>,
}

impl<C> Cuttable<C> {
    /// Whether the connection is cut; if not, the task is woken when it will be.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<C: Connected> Connected for Cuttable<C> {
    type ConnectInfo = C::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner.connect_info()
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Cuttable<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_cut(cx)?;
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Cuttable<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_cut(cx)?;
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(cx)?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_cut(cx)?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
