//! Mutual TLS over real sockets: who is let in, and what each of the others reads, on one line and
//! within its deadline.
#![allow(clippy::unwrap_used)]

mod authority;
mod echo;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use authority::{Authority, Valid};
use octet_proto::error::{describe, is_transport_failure};
use octet_proto::reward::{DescribeRequest, reward_client};
use octet_proto::transport::{AddressError, ClientOptions};
use octet_runtime::CancellationToken;
use octet_runtime::net::{Dial, Exposure, Tls, TlsFiles, bind, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_util::sync::DropGuard;

const SECOND: Duration = Duration::from_secs(1);

struct Up {
    address: SocketAddr,
    _stop: DropGuard,
}

async fn start(exposure: Exposure) -> Up {
    let listener = bind(([127, 0, 0, 1], 0).into(), exposure).await.unwrap();
    let (address, stop) = (listener.address(), CancellationToken::new());
    let router = echo::router(Duration::ZERO);
    tokio::spawn(serve("echo", router, listener.incoming(), stop.clone(), SECOND));
    Up { address, _stop: stop.drop_guard() }
}

/// Calls once; the words of the failure, which are one line and come within the deadline.
async fn call(exposure: &Exposure, address: &str) -> Result<(), String> {
    let options = ClientOptions { connect_timeout: 2 * SECOND, ..ClientOptions::default() };
    let mut client = reward_client(exposure.dial(address, &options).unwrap());
    let since = Instant::now();
    let answer = client.describe(DescribeRequest {}).await;
    assert!(since.elapsed() < 4 * SECOND, "{address}: {:?} for {answer:?}", since.elapsed());
    answer.map(drop).map_err(|status| {
        assert!(is_transport_failure(&status), "{status:?}");
        let words = describe(&status);
        assert!(!words.contains('\n') && words.len() < 400, "{words}");
        words
    })
}

fn with(tls: Tls) -> Exposure {
    Exposure::MutualTls(tls)
}

#[tokio::test]
async fn nodes_of_one_authority_understand_each_other() {
    let authority = Authority::new();
    let server = start(with(authority.node("server"))).await;
    let client = with(authority.node("client"));
    for host in ["127.0.0.1", "localhost"] {
        call(&client, &format!("https://{host}:{}", server.address.port())).await.unwrap();
    }
    // With a certificate a node may listen on the network.
    let listener = bind(([0, 0, 0, 0], 0).into(), client).await.unwrap();
    assert!(listener.endpoint_at("learner").starts_with("https://learner:"));
}

#[tokio::test]
async fn each_wrong_certificate_is_named_on_the_side_that_reads_it() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = start(with(ours.node("server"))).await;
    let https = format!("https://{}", server.address);

    let stranger = with(theirs.node("stranger"));
    let words = call(&stranger, &https).await.unwrap_err();
    assert!(words.contains("another authority") && words.contains(&https), "{words}");

    // It trusts our authority, and shows a certificate of another one.
    let theirs = theirs.issue("spy", &["localhost"], Valid::Now);
    let ca = ours.issue("ca", &["localhost"], Valid::Now).ca;
    let spy = with(Tls::load(&TlsFiles { ca, ..theirs }).unwrap());
    let words = call(&spy, &https).await.unwrap_err();
    assert!(words.contains("refuses this node's certificate"), "{words}");

    let late = Tls::load(&ours.issue("late", &["localhost"], Valid::Past)).unwrap();
    let words = call(&with(late), &https).await.unwrap_err();
    assert!(words.contains("this node's certificate, which has expired"), "{words}");

    let good = with(ours.node("good"));
    let old = Tls::load(&ours.issue("old", &["127.0.0.1"], Valid::Past)).unwrap();
    let old = start(with(old)).await;
    let words = call(&good, &format!("https://{}", old.address)).await.unwrap_err();
    assert!(words.contains("has expired: make it anew"), "{words}");

    let named = Tls::load(&ours.issue("named", &["learner"], Valid::Now)).unwrap();
    let named = start(with(named)).await;
    let words = call(&good, &format!("https://{}", named.address)).await.unwrap_err();
    assert!(words.contains("learner") && words.contains("--san"), "{words}");

    call(&good, &https).await.unwrap();
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_told_so_and_turned_away() {
    let authority = Authority::new();
    let files = authority.issue("server", &["localhost"], Valid::Now);
    let server = start(with(Tls::load(&files).unwrap())).await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.ca).unwrap()).unwrap();
    let bare = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(bare));
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    let error = stream.read(&mut [0; 16]).await.unwrap_err().to_string();
    assert!(error.contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn plain_text_to_tls_and_tls_to_plain_text_are_told_what_is_spoken() {
    let authority = Authority::new();
    let tls = start(with(authority.node("server"))).await;
    let words = call(&Exposure::Loopback, &format!("http://{}", tls.address)).await.unwrap_err();
    assert!(words.contains("this port speaks TLS: dial https://"), "{words}");

    let plain = start(Exposure::Loopback).await;
    let client = with(authority.node("client"));
    let words = call(&client, &format!("https://{}", plain.address)).await.unwrap_err();
    assert!(words.contains("does not speak TLS"), "{words}");
    // Both are there for those who speak right; this machine may be spoken to in plain text.
    call(&client, &format!("http://{}", plain.address)).await.unwrap();
    call(&client, &format!("https://{}", tls.address)).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_says_nothing_or_is_not_there_is_an_error_in_time() {
    let client = with(Authority::new().node("client"));
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let words = call(&client, &format!("https://{address}")).await.unwrap_err();
    assert!(words.contains(&format!("https://{address} did not answer within 2s")), "{words}");
    drop(silent);
    let words = call(&client, &format!("https://{address}")).await.unwrap_err();
    assert!(words.contains(&format!("cannot connect to https://{address}")), "{words}");
}

#[tokio::test]
async fn a_browser_is_answered_in_its_own_language() {
    let server = start(Exposure::Loopback).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 505") && answer.contains("gRPC"), "{answer}");
}

#[tokio::test]
async fn other_machines_are_not_spoken_to_in_plain_text() {
    let options = ClientOptions::default();
    let tls = with(Authority::new().node("client"));
    for exposure in [&Exposure::Loopback, &tls] {
        let refused = exposure.dial("http://learner:5000", &options).unwrap_err();
        assert!(matches!(refused, AddressError::Unencrypted { .. }), "{refused}");
        let words = refused.to_string();
        assert!(words.contains("--insecure-network") && words.contains("--tls-dir"), "{words}");
    }
    assert!(Exposure::InsecureNetwork.dial("http://learner:5000", &options).is_ok());
    for exposure in [Exposure::Loopback, Exposure::InsecureNetwork] {
        let refused = exposure.dial("https://learner:5000", &options).unwrap_err();
        assert!(refused.to_string().contains("no certificate"), "{refused}");
    }
    let refused = bind(([0, 0, 0, 0], 0).into(), Exposure::Loopback).await.unwrap_err();
    assert!(refused.to_string().contains("--tls-dir"), "{refused}");
}

#[test]
fn files_that_are_no_certificate_are_named() {
    let authority = Authority::new();
    let good = authority.issue("good", &["localhost"], Valid::Now);
    let other = authority.issue("other", &["localhost"], Valid::Now);
    let garbage = authority.directory.path().join("garbage.pem");
    std::fs::write(&garbage, "garbage").unwrap();
    let missing = authority.directory.path().join("missing.pem");
    for (files, found) in [
        (TlsFiles { ca: missing.clone(), ..good.clone() }, "missing.pem"),
        (TlsFiles { cert: garbage.clone(), ..good.clone() }, "garbage.pem"),
        (TlsFiles { key: garbage, ..good.clone() }, "garbage.pem"),
        (TlsFiles { key: good.cert.clone(), ..good.clone() }, "private key"),
        (TlsFiles { key: other.key, ..good.clone() }, "its private key"),
    ] {
        let words = Tls::load(&files).unwrap_err().to_string();
        assert!(words.contains(found) && !words.contains('\n'), "{words}");
    }
    assert!(!format!("{:?}", Tls::load(&good).unwrap()).contains("PRIVATE"));
}
