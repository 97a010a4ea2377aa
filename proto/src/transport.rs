//! One way to open a connection on each side: windows, limits, keep-alive and deadlines.
//!
//! Invariant: no channel and no server is made without them. Without HTTP/2 keep-alive and a connect
//! deadline a channel never recovers from a partition; with tonic's default windows weights travel
//! at a third of the speed.

use std::net::IpAddr;
use std::time::Duration;

use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint, Server};

/// The largest message that anybody sends or takes.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// The largest request that a coordinator or a reward service takes: whoever may call either can make
/// it hold one of these for each open call.
pub const MAX_REQUEST_BYTES: usize = 8 << 20;
/// The largest request for weights: two numbers.
pub const MAX_QUESTION_BYTES: usize = 4 << 10;
/// How many bytes of weights one chunk carries. Larger messages are slower.
pub const CHUNK_BYTES: usize = 1 << 20;
/// What one stream may have under way to a client, unread: weights travel in this direction.
pub const STREAM_WINDOW_BYTES: u32 = 16 << 20;
/// What one connection may have under way to a client, unread.
pub const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// What one stream may have under way to a server, unread.
pub const SERVER_STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// What one connection may have under way to a server, unread: all that a caller can make it hold
/// without being read.
pub const SERVER_CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// The largest HTTP/2 frame that either side takes.
pub const MAX_FRAME_BYTES: u32 = 4 << 20;
/// How many calls one peer may have open on one connection.
pub const MAX_STREAMS_PER_CONNECTION: u32 = 64;
/// The most bytes of headers that one call may have.
pub const MAX_HEADER_BYTES: u32 = 16 << 10;

/// HTTP/2 pings that find out that a peer is gone, though nothing is being said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// How long the connection may be silent before a ping.
    pub interval: Duration,
    /// How long the answer may take before the connection is given up.
    pub timeout: Duration,
}

impl Default for KeepAlive {
    fn default() -> Self {
        // A peer that vanished without a word is given up after six seconds, so that with a pause and a
        // new connection a node moves again within ten of the other's return.
        Self { interval: Duration::from_secs(2), timeout: Duration::from_secs(4) }
    }
}

/// How a client behaves towards its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a call may take until its answer begins; a stream may go on after that. Calls that
    /// wait on the server for their answer must ask it to wait for less than this.
    pub request_timeout: Option<Duration>,
    /// `None` only for a peer that takes pings for abuse: gRPC servers of other languages close
    /// connections that ping more often than every five minutes, unless told not to. Then every
    /// call needs a deadline of its own.
    pub keep_alive: Option<KeepAlive>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            request_timeout: Some(Duration::from_secs(30)),
            keep_alive: Some(KeepAlive::default()),
        }
    }
}

/// An address that no connection can be opened to.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AddressError {
    /// It is not of the form `http://host:port` or `https://host:port`.
    #[error("address `{address}`: expected http://host:port or https://host:port, found {found}")]
    Malformed {
        /// The address as it was given.
        address: String,
        /// What is wrong with it.
        found: String,
    },
    /// It asks for TLS, and this node has no certificate.
    #[error(
        "address `{address}`: speaks TLS, and this node has no certificate: give it one with --tls-dir (`octet certs` makes them)"
    )]
    NoCertificate {
        /// The address as it was given.
        address: String,
    },
    /// It would be spoken to in plain text over the network.
    #[error(
        "address `{address}`: will not speak to another machine unencrypted: give the nodes certificates with --tls-dir and dial https:// (`octet certs` makes them), or allow it with --insecure-network"
    )]
    Unencrypted {
        /// The address as it was given.
        address: String,
    },
}

/// An address that was taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Whether it asks for TLS.
    pub tls: bool,
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Address {
    /// Takes `http://host:port` or `https://host:port`.
    ///
    /// # Errors
    /// It is not of that form.
    pub fn parse(address: &str) -> Result<Self, AddressError> {
        let uri = parse(address)?;
        let host = uri.host().unwrap_or_default();
        Ok(Self {
            tls: uri.scheme_str() == Some("https"),
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or_default(),
        })
    }

    /// Whether it is this machine: a loopback address, or `localhost`. Other names may be anywhere.
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            Err(_name) => self.host == "localhost",
        }
    }
}

/// The configured endpoint of a peer. Connect it with a connector of its own where plain TCP is
/// replaced, by TLS or by a simulated network; otherwise see [`channel`].
///
/// # Errors
/// The address is not `http://host:port` or `https://host:port`.
pub fn endpoint(address: &str, options: &ClientOptions) -> Result<Endpoint, AddressError> {
    let mut endpoint = Endpoint::from(parse(address)?)
        .connect_timeout(options.connect_timeout)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .tcp_nodelay(true);
    if let Some(timeout) = options.request_timeout {
        endpoint = endpoint.timeout(timeout);
    }
    if let Some(keep_alive) = options.keep_alive {
        endpoint = endpoint
            .http2_keep_alive_interval(keep_alive.interval)
            .keep_alive_timeout(keep_alive.timeout)
            .keep_alive_while_idle(true);
    }
    Ok(endpoint)
}

/// A channel over plain TCP that connects at its first call, and again by itself whenever it was
/// cut. Needs a running Tokio runtime.
///
/// # Errors
/// The address is not `http://host:port`.
pub fn channel(address: &str, options: &ClientOptions) -> Result<Channel, AddressError> {
    let endpoint = endpoint(address, options)?;
    if endpoint.uri().scheme_str() == Some("https") {
        return Err(AddressError::NoCertificate { address: address.to_owned() });
    }
    Ok(endpoint.connect_lazy())
}

/// A server with limits and keep-alive; add services to it.
pub fn server(keep_alive: KeepAlive) -> Server {
    Server::builder()
        .initial_stream_window_size(SERVER_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(SERVER_CONNECTION_WINDOW_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_keepalive_interval(Some(keep_alive.interval))
        .http2_keepalive_timeout(Some(keep_alive.timeout))
}

fn parse(address: &str) -> Result<Uri, AddressError> {
    let malformed = |found: &str| AddressError::Malformed {
        address: address.to_owned(),
        found: found.to_owned(),
    };
    let uri: Uri = address.parse().map_err(|_| malformed("something that is not a URI"))?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        Some(other) => return Err(malformed(&format!("the scheme `{other}`"))),
        None => return Err(malformed("no scheme")),
    }
    if uri.port_u16().is_none() {
        return Err(malformed("no port number"));
    }
    if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
        return Err(malformed("a path after the port"));
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_http_host_and_port() {
        for (good, tls, host, port, loopback) in [
            ("http://127.0.0.1:5000", false, "127.0.0.1", 5000, true),
            ("http://learner:5000/", false, "learner", 5000, false),
            ("https://[::1]:80", true, "::1", 80, true),
            ("https://localhost:80", true, "localhost", 80, true),
            ("http://[::ffff:127.0.0.1]:80", false, "::ffff:127.0.0.1", 80, true),
            ("http://10.0.0.1:1", false, "10.0.0.1", 1, false),
            ("http://127.0.0.1.example.org:1", false, "127.0.0.1.example.org", 1, false),
        ] {
            assert!(endpoint(good, &ClientOptions::default()).is_ok(), "{good}");
            let address = Address::parse(good).unwrap();
            assert_eq!(address, Address { tls, host: host.to_owned(), port }, "{good}");
            assert_eq!(address.is_loopback(), loopback, "{good}");
        }
        let tls = channel("https://learner:5000", &ClientOptions::default()).unwrap_err();
        assert!(tls.to_string().contains("--tls-dir"), "{tls}");
        for (bad, found) in [
            ("127.0.0.1:5000", "no"),
            ("learner:5000", "no"),
            ("ftp://learner:5000", "the scheme `ftp`"),
            ("http://learner", "no port number"),
            ("http://learner:5000/score", "a path"),
            ("http://learner:port", "no port number"),
            ("", "something that is not a URI"),
        ] {
            let text = match endpoint(bad, &ClientOptions::default()) {
                Ok(_) => panic!("`{bad}` was taken"),
                Err(error) => error.to_string(),
            };
            assert!(text.contains(&format!("`{bad}`")), "{text}");
            assert!(text.contains("expected http://host:port"), "{text}");
            assert!(text.contains(&format!("found {found}")), "{text}");
        }
    }
}
