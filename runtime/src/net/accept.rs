//! Takes connections in: certificate checked, first words read, within a deadline.
//!
//! Invariants: a stranger gets no further than this file. Whoever is silent, speaks something else or
//! has no certificate is gone after [`GREETING`] at the latest, is told why where it can understand
//! it, and costs a few kilobytes until then. At most [`MOST_GREETINGS`] are in the door at once; one
//! more pushes out the one that has stood there longest, so that silent ones cannot lock the others out.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::Listener;
use super::tls::{Tls, explain};

/// How long a connection may take until it has said what every gRPC client says first.
const GREETING: Duration = Duration::from_secs(5);
/// The most connections that may be on their way in at once.
pub const MOST_GREETINGS: usize = 256;
/// How long to pause after a failed accept: most causes, such as too many open files, last a while.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long one that is turned away may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);
/// What every HTTP/2 client says first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;
/// How many refusals are told at the level of warnings; a stranger must not be able to fill the log.
const TOLD: u64 = 100;

static REFUSED: AtomicU64 = AtomicU64::new(0);

impl Listener {
    /// The connections as they come, for [`serve`](super::serve): each has shown a certificate where
    /// there is TLS, and speaks HTTP/2.
    pub fn incoming(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        let door =
            Door { listener: self, greetings: JoinSet::new(), standing: VecDeque::default() };
        futures::stream::unfold(door, |mut door| async move {
            let connection = door.next().await;
            Some((Ok(connection), door))
        })
    }
}

/// A listener with the connections that are on their way in.
struct Door {
    listener: Listener,
    greetings: JoinSet<Option<Connection>>,
    standing: VecDeque<AbortHandle>,
}

impl Door {
    async fn next(&mut self) -> Connection {
        loop {
            tokio::select! {
                Some(greeted) = self.greetings.join_next() => {
                    if let Ok(Some(connection)) = greeted {
                        return connection;
                    }
                }
                accepted = self.listener.inner.accept() => match accepted {
                    Ok((stream, peer)) => self.let_in(stream, peer),
                    Err(error) => {
                        let address = self.listener.address;
                        tracing::warn!(%address, %error, "cannot accept a connection; trying again");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    fn let_in(&mut self, stream: TcpStream, peer: SocketAddr) {
        if self.standing.len() >= MOST_GREETINGS {
            self.standing.retain(|greeting| !greeting.is_finished());
        }
        if self.standing.len() >= MOST_GREETINGS
            && let Some(oldest) = self.standing.pop_front()
        {
            oldest.abort();
        }
        let tls = self.listener.tls.clone();
        let greeting = async move {
            match timeout(GREETING, greet(stream, tls)).await {
                Ok(Ok(connection)) => Some(connection),
                Ok(Err(why)) => refused(peer, &why),
                Err(_late) => {
                    refused(peer, &format!("nothing that begins a call within {GREETING:?}"))
                }
            }
        };
        self.standing.push_back(self.greetings.spawn(greeting));
    }
}

fn refused(peer: SocketAddr, why: &str) -> Option<Connection> {
    match REFUSED.fetch_add(1, Ordering::Relaxed) {
        seen if seen < TOLD => tracing::warn!(%peer, why, "turned a connection away"),
        TOLD => {
            tracing::warn!("turned {TOLD} connections away; the next ones are told at debug level")
        }
        _ => tracing::debug!(%peer, why, "turned a connection away"),
    }
    None
}

/// Lets a connection in, or says why not.
async fn greet(stream: TcpStream, tls: Option<Tls>) -> Result<Connection, String> {
    let text = |error: io::Error| error.to_string();
    // Small answers must not wait for more to send.
    stream.set_nodelay(true).map_err(text)?;
    let mut first = [0; 1];
    if stream.peek(&mut first).await.map_err(text)? == 0 {
        return Err("it hung up without a word".to_owned());
    }
    let mut io = match tls {
        Some(tls) if first[0] == HANDSHAKE => {
            let accepted = TlsAcceptor::from(tls.server).accept(stream).await;
            let accepted = accepted.map_err(|error| {
                explain(&error, "the caller").unwrap_or_else(|| error.to_string())
            });
            Io::Tls(Box::new(accepted?))
        }
        Some(_) => {
            let words = "this port speaks TLS: dial https:// and give the caller --tls-dir";
            farewell(stream, &goodbye(words)).await;
            return Err("it speaks plain text, and this port speaks TLS".to_owned());
        }
        None if first[0] == HANDSHAKE => {
            // Not TLS, so that the caller finds out.
            farewell(stream, &goodbye("this port speaks plain text: dial http://")).await;
            return Err("it speaks TLS, and this port does not: start this node with --tls-dir, or dial http://".to_owned());
        }
        None => Io::Plain(stream),
    };
    let mut head = [0; PREFACE.len()];
    io.read_exact(&mut head).await.map_err(text)?;
    if head != *PREFACE {
        farewell(io, WRONG_PROTOCOL).await;
        return Err("it does not speak HTTP/2, as gRPC does".to_owned());
    }
    Ok(Connection { unread: PREFACE, io })
}

const WRONG_PROTOCOL: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\nconnection: close\r\n\
    content-type: text/plain\r\n\r\nThis port speaks gRPC over HTTP/2.\n";

/// An HTTP/2 server's SETTINGS, and a GOAWAY that says why.
fn goodbye(words: &str) -> Vec<u8> {
    const FRAME: usize = 9;
    const NO_STREAM_AND_HTTP_1_1_REQUIRED: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 0xd];
    let mut bytes = vec![0; FRAME];
    bytes[3] = 4;
    let length = (NO_STREAM_AND_HTTP_1_1_REQUIRED.len() + words.len()) as u32;
    bytes.extend_from_slice(&length.to_be_bytes()[1..]);
    bytes.extend_from_slice(&[7, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&NO_STREAM_AND_HTTP_1_1_REQUIRED);
    bytes.extend_from_slice(words.as_bytes());
    bytes
}

/// Says something last, and gives the caller a moment to read it: a socket that is closed with bytes
/// unread is reset, and takes what was said with it.
async fn farewell(mut io: impl AsyncRead + AsyncWrite + Unpin, words: &[u8]) {
    let saying = async {
        io.write_all(words).await?;
        io.shutdown().await?;
        let mut rest = [0; 1024];
        for _ in 0..64 {
            if io.read(&mut rest).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    // One that does not listen is gone without it.
    let _gone = timeout(FAREWELL, saying).await;
}

/// A connection that was let in.
#[derive(Debug)]
pub struct Connection {
    /// What was read of it already, to be read again.
    unread: &'static [u8],
    io: Io,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        match &self.io {
            Io::Plain(stream) => stream.connect_info(),
            Io::Tls(stream) => stream.get_ref().0.connect_info(),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let (now, later) = self.unread.split_at(self.unread.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.unread = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        // Both kinds are.
        true
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
