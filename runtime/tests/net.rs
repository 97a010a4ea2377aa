//! Listening and serving over real sockets: what is refused, what a drain lets finish, what it cuts.
#![allow(clippy::unwrap_used)]

mod echo;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use octet_proto::error::is_transport_failure;
use octet_proto::reward::{DescribeRequest, RewardClient, reward_client};
use octet_proto::transport::ClientOptions;
use octet_runtime::CancellationToken;
use octet_runtime::net::{Dial, Exposure, NetError, Served, Tcp, bind, serve};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;

const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const SECOND: Duration = Duration::from_secs(1);

struct Serving {
    address: SocketAddr,
    client: RewardClient,
    stop: CancellationToken,
    task: JoinHandle<Result<Served, NetError>>,
}

async fn start(pause: Duration, drain: Duration) -> Serving {
    let listener = bind(ANY_PORT, Exposure::Loopback).await.unwrap();
    let (address, endpoint) = (listener.address(), listener.endpoint());
    let stop = CancellationToken::new();
    let router = echo::router(pause);
    let task = tokio::spawn(serve("echo", router, listener.incoming(), stop.clone(), drain));
    let client = reward_client(Tcp.dial(&endpoint, &ClientOptions::default()).unwrap());
    Serving { address, client, stop, task }
}

#[tokio::test]
async fn a_port_in_use_and_an_address_off_this_machine_are_refused_with_advice() {
    let listener = bind(ANY_PORT, Exposure::Loopback).await.unwrap();
    assert_ne!(listener.address().port(), 0);
    let error = bind(listener.address(), Exposure::Loopback).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {}", listener.address())), "{error}");
    assert!(error.contains("in use") && error.contains("port 0"), "{error}");

    for address in ["0.0.0.0:0", "[::]:0", "10.0.0.1:0"] {
        let address: SocketAddr = address.parse().unwrap();
        let error = bind(address, Exposure::Loopback).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("will not listen on {address}")), "{error}");
        assert!(error.contains("--insecure-network"), "{error}");
    }
    assert!(bind(([0, 0, 0, 0], 0).into(), Exposure::InsecureNetwork).await.is_ok());
    // 192.0.2.0/24 is kept for documentation: no machine has such an address.
    let error = bind(([192, 0, 2, 1], 0).into(), Exposure::InsecureNetwork).await.unwrap_err();
    assert!(error.to_string().contains("does not have that address"), "{error}");
}

#[tokio::test]
async fn a_call_under_way_is_finished_and_no_other_is_taken() {
    let mut serving = start(Duration::from_millis(300), 10 * SECOND).await;
    let mut client = serving.client.clone();
    let call = tokio::spawn(async move { client.describe(DescribeRequest {}).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    serving.stop.cancel();
    assert_eq!(call.await.unwrap().unwrap().into_inner().name, "echo");
    assert_eq!(serving.task.await.unwrap().unwrap(), Served { cut: 0 });
    let refused = serving.client.describe(DescribeRequest {}).await.unwrap_err();
    assert!(is_transport_failure(&refused), "{refused:?}");
}

#[tokio::test]
async fn a_stream_that_does_not_end_is_cut_after_the_drain() {
    let mut serving = start(Duration::ZERO, Duration::from_millis(200)).await;
    let endless = tokio_stream::iter([echo::request(7)]).chain(tokio_stream::pending());
    let mut scores = serving.client.score(endless).await.unwrap().into_inner();
    assert_eq!(scores.next().await.unwrap().unwrap().id, 7);

    let since = Instant::now();
    serving.stop.cancel();
    assert_eq!(serving.task.await.unwrap().unwrap(), Served { cut: 1 });
    let status = scores.next().await.unwrap().unwrap_err();
    assert!(is_transport_failure(&status), "{status:?}");
    assert!(since.elapsed() < 5 * SECOND, "{:?}", since.elapsed());
    bind(serving.address, Exposure::Loopback).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_dropped_leaves_no_connection_and_its_port_can_be_taken_again() {
    let mut serving = start(Duration::ZERO, 10 * SECOND).await;
    let endless = tokio_stream::iter([echo::request(7)]).chain(tokio_stream::pending());
    let mut scores = serving.client.score(endless).await.unwrap().into_inner();
    assert_eq!(scores.next().await.unwrap().unwrap().id, 7);

    serving.task.abort();
    let status = tokio::time::timeout(5 * SECOND, scores.next()).await.unwrap();
    assert!(is_transport_failure(&status.unwrap().unwrap_err()));

    // The same channel finds the next incarnation by itself.
    let listener = bind(serving.address, Exposure::Loopback).await.unwrap();
    let router = echo::router(Duration::ZERO);
    tokio::spawn(serve("echo", router, listener.incoming(), serving.stop.clone(), SECOND));
    assert!(serving.client.describe(DescribeRequest {}).await.is_ok());
}

#[tokio::test]
async fn connections_that_run_out_are_an_error_when_nobody_asked_to_stop() {
    let nothing = tokio_stream::empty::<std::io::Result<tokio::net::TcpStream>>();
    let router = echo::router(Duration::ZERO);
    let error = serve("echo", router, nothing, CancellationToken::new(), SECOND).await.unwrap_err();
    assert!(error.to_string().contains("`echo`"), "{error}");
}
