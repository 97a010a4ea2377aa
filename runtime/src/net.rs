//! Sockets at the edge: where to listen, whom to call, how both are protected, and how to stop.
//!
//! Invariants: nothing is listened to or dialled outside this machine but with mutual TLS, or when
//! plain text is asked for in so many words ([`Exposure`]); a server that was told to stop has no
//! connection left when it returns. TCP is one choice: a server takes any stream of connections, and
//! callers go through [`Dial`].

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use octet_proto::transport::{Address, AddressError, ClientOptions, channel};
use tokio::net::TcpListener;
use tonic::transport::Channel;

mod accept;
mod dial;
mod http;
mod public;
mod serve;
mod tls;

pub use accept::{Connection, MOST_GREETINGS};
pub use http::{Pages, PagesListener, Text};
pub use public::{MOST_ASKED, serve_public};
pub use serve::{MOST_CONNECTIONS, Served, serve};
pub use tls::{CA_FILE, CERT_FILE, KEY_FILE, Tls, TlsError, TlsFiles};

/// Whom a node can be reached by and whom it reaches; it is also the way to dial ([`Dial`]).
#[derive(Clone, Debug, Default)]
pub enum Exposure {
    /// This machine only, in plain text.
    #[default]
    Loopback,
    /// Everybody who can show a certificate of the run's authority.
    MutualTls(Tls),
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
         127.0.0.1, give the node a certificate with --tls-dir (`octet certs` makes them), or allow \
         it with --insecure-network"
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

/// A bound TCP socket. Its connections come from [`Listener::incoming`].
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
}

/// Opens channels to peers. The network that a role speaks through is given to it as one of these.
pub trait Dial: fmt::Debug + Send + Sync + 'static {
    /// A channel to `http://host:port`, or `https://host:port` where there is TLS, that connects when
    /// it is used, and again after it was cut.
    ///
    /// # Errors
    /// The address is not of that form, or may not be dialled this way.
    fn dial(&self, address: &str, options: &ClientOptions) -> Result<Channel, AddressError>;
}

/// A way to open channels, shared.
pub type Dialer = Arc<dyn Dial>;

/// Opens channels on this machine, in plain text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Dial for Tcp {
    fn dial(&self, address: &str, options: &ClientOptions) -> Result<Channel, AddressError> {
        Exposure::Loopback.dial(address, options)
    }
}

impl Dial for Exposure {
    fn dial(&self, address: &str, options: &ClientOptions) -> Result<Channel, AddressError> {
        let peer = Address::parse(address)?;
        let given = || address.to_owned();
        match self {
            Self::MutualTls(tls) if peer.tls => dial::encrypted(tls, address, peer, options),
            _ if peer.tls => Err(AddressError::NoCertificate { address: given() }),
            Self::InsecureNetwork => channel(address, options),
            Self::Loopback | Self::MutualTls(_) if peer.is_loopback() => channel(address, options),
            Self::Loopback | Self::MutualTls(_) => {
                Err(AddressError::Unencrypted { address: given() })
            }
        }
    }
}

/// Binds `address`; port 0 takes a free one.
///
/// # Errors
/// The address would expose the service against `exposure`, or cannot be bound.
pub async fn bind(address: SocketAddr, exposure: Exposure) -> Result<Listener, NetError> {
    let tls = match exposure {
        Exposure::Loopback if !address.ip().to_canonical().is_loopback() => {
            return Err(NetError::Exposed(address));
        }
        Exposure::Loopback | Exposure::InsecureNetwork => None,
        Exposure::MutualTls(tls) => Some(tls),
    };
    let refused = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => NetError::Occupied(address),
        _ => NetError::Refused { address, source },
    };
    let inner = TcpListener::bind(address).await.map_err(refused)?;
    let address = inner.local_addr().map_err(refused)?;
    Ok(Listener { inner, address, tls })
}

impl Listener {
    /// The address that was bound, with the port that it got.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a client on this machine dials.
    pub fn endpoint(&self) -> String {
        self.endpoint_at(&match self.address.ip() {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        })
    }

    /// What a client dials that knows this machine as `host`.
    pub fn endpoint_at(&self, host: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{host}:{}", self.address.port())
    }
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "; choose a port above 1023",
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        _ => "",
    }
}
