//! Sockets at the edge: where to listen, whom to call, and how to stop.
//!
//! Invariants: nothing listens outside the machine unless that is asked for in so many words; a
//! server that was told to stop has no connection left when it returns. TCP is one choice: a server
//! takes any stream of connections, and callers go through [`Dial`].

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use octet_proto::transport::{AddressError, ClientOptions, channel};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Channel;

mod serve;

pub use serve::{Served, serve};

/// How long to pause after a failed accept: most causes, such as too many open files, last a while.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Whom a listener may be reached by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exposure {
    /// This machine only.
    #[default]
    Loopback,
    /// Everybody who can reach the address, unencrypted (`--insecure-network`).
    InsecureNetwork,
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Another process has the port.
    #[error(
        "cannot listen on {0}: the port is in use; stop the process that has it, or choose another \
         port (port 0 takes a free one)"
    )]
    Occupied(SocketAddr),
    /// The address would open the service to the network.
    #[error(
        "will not listen on {0}: it can be reached from other machines, unencrypted; listen on \
         127.0.0.1, or allow it with --insecure-network"
    )]
    Exposed(SocketAddr),
    /// The operating system refuses for another reason.
    #[error("cannot listen on {address}: {source}{}", advice(source))]
    Refused {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// Serving ended by itself.
    #[error("the service `{service}` on its listener ended: {problem}")]
    Ended {
        /// Its name.
        service: &'static str,
        /// Why.
        problem: String,
    },
}

/// A bound TCP socket.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    address: SocketAddr,
}

/// Opens channels to peers. The network that a role speaks through is given to it as one of these.
pub trait Dial: fmt::Debug + Send + Sync + 'static {
    /// A channel to `http://host:port` that connects when it is used, and again after it was cut.
    ///
    /// # Errors
    /// The address is not of that form.
    fn dial(&self, address: &str, options: &ClientOptions) -> Result<Channel, AddressError>;
}

/// A way to open channels, shared.
pub type Dialer = Arc<dyn Dial>;

/// Opens channels over TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Dial for Tcp {
    fn dial(&self, address: &str, options: &ClientOptions) -> Result<Channel, AddressError> {
        channel(address, options)
    }
}

/// Binds `address`; port 0 takes a free one.
///
/// # Errors
/// The address would expose the service against `exposure`, or cannot be bound.
pub async fn bind(address: SocketAddr, exposure: Exposure) -> Result<Listener, NetError> {
    if exposure == Exposure::Loopback && !address.ip().to_canonical().is_loopback() {
        return Err(NetError::Exposed(address));
    }
    let refused = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => NetError::Occupied(address),
        _ => NetError::Refused { address, source },
    };
    let inner = TcpListener::bind(address).await.map_err(refused)?;
    let address = inner.local_addr().map_err(refused)?;
    Ok(Listener { inner, address })
}

impl Listener {
    /// The address that was bound, with the port that it got.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a client on this machine dials.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The connections as they come, for [`serve`].
    pub fn incoming(self) -> impl Stream<Item = io::Result<TcpStream>> + Send {
        futures::stream::unfold(self, |listener| async move {
            loop {
                match listener.inner.accept().await {
                    Ok((stream, _peer)) => {
                        // Small answers must not wait for more to send.
                        let stream = stream.set_nodelay(true).map(|()| stream);
                        return Some((stream, listener));
                    }
                    Err(error) => {
                        let address = listener.address;
                        tracing::warn!(%address, %error, "cannot accept a connection; trying again");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        })
    }
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "; choose a port above 1023",
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        _ => "",
    }
}
