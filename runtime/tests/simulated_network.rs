//! The same server and the same channel over simulated TCP: a partition is noticed, and healed
//! without help, because keep-alive and the connect deadline are on by default.
#![allow(clippy::unwrap_used)]

mod echo;

use std::io;
use std::time::Duration;

use futures::Stream;
use hyper_util::rt::TokioIo;
use octet_proto::error::is_transport_failure;
use octet_proto::reward::{DescribeRequest, reward_client};
use octet_proto::transport::{AddressError, ClientOptions, endpoint};
use octet_runtime::CancellationToken;
use octet_runtime::net::{Dial, serve};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Uri};

const PORT: u16 = 5000;
const SECOND: Duration = Duration::from_secs(1);

/// Opens channels over turmoil's network instead of TCP.
#[derive(Debug)]
struct Simulated;

impl Dial for Simulated {
    fn dial(&self, address: &str, options: &ClientOptions) -> Result<Channel, AddressError> {
        let connector = tower::service_fn(|uri: Uri| async move {
            let peer = (uri.host().unwrap_or_default().to_owned(), uri.port_u16().unwrap_or(PORT));
            turmoil::net::TcpStream::connect(peer).await.map(TokioIo::new)
        });
        Ok(endpoint(address, options)?.connect_with_connector_lazy(connector))
    }
}

struct Connection(turmoil::net::TcpStream);

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, bytes)
    }
    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn incoming(listener: turmoil::net::TcpListener) -> impl Stream<Item = io::Result<Connection>> {
    futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _peer)| Connection(stream));
        Some((accepted, listener))
    })
}

#[test]
fn a_partition_is_noticed_and_heals_on_the_same_channel() {
    let mut simulation = turmoil::Builder::new()
        .rng_seed(7)
        .simulation_duration(120 * SECOND)
        .tick_duration(Duration::from_millis(10))
        .build();
    simulation.host("reward", || async {
        let listener = turmoil::net::TcpListener::bind(("0.0.0.0", PORT)).await?;
        let router = echo::router(Duration::ZERO);
        serve("echo", router, incoming(listener), CancellationToken::new(), SECOND).await?;
        Ok(())
    });
    simulation.client("worker", async {
        let channel = Simulated.dial("http://reward:5000", &ClientOptions::default())?;
        let mut client = reward_client(channel);
        client.describe(DescribeRequest {}).await?;

        turmoil::partition("worker", "reward");
        let since = tokio::time::Instant::now();
        let cut = client.describe(DescribeRequest {}).await.unwrap_err();
        assert!(is_transport_failure(&cut), "{cut:?}");
        assert!(since.elapsed() < 15 * SECOND, "noticed after {:?}", since.elapsed());

        turmoil::repair("worker", "reward");
        let since = tokio::time::Instant::now();
        while client.describe(DescribeRequest {}).await.is_err() {
            assert!(since.elapsed() < 15 * SECOND, "not healed after {:?}", since.elapsed());
            tokio::time::sleep(SECOND / 10).await;
        }
        Ok(())
    });
    simulation.run().unwrap();
}
