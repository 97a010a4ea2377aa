//! What a node says to anybody: bounded, whoever asks, and true also while it stops.
#![allow(clippy::unwrap_used)]

mod echo;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use octet_proto::reward::{DescribeRequest, reward_client};
use octet_proto::transport::ClientOptions;
use octet_runtime::CancellationToken;
use octet_runtime::net::{Dial, Exposure, MOST_ASKED, Served, Tcp, bind, serve_public};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const SERVICE: &str = "octet.v1.RewardService";

fn channel(endpoint: &str) -> Channel {
    Tcp.dial(endpoint, &ClientOptions::default()).unwrap()
}

async fn watch(channel: &Channel) -> Result<Streaming<HealthCheckResponse>, Status> {
    let request = HealthCheckRequest { service: SERVICE.to_owned() };
    Ok(HealthClient::new(channel.clone()).watch(request).await?.into_inner())
}

#[tokio::test]
async fn those_who_watch_are_counted_and_told() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = bind(any, Exposure::Loopback).await.unwrap();
    let endpoint = listener.endpoint();
    let stop = CancellationToken::new();
    let router = echo::router(Duration::ZERO);
    let (stopping, drain) = (stop.clone(), Duration::from_secs(20));
    let serving = tokio::spawn(async move {
        serve_public("echo", &[SERVICE], router, listener.incoming(), stopping, drain).await
    });

    // Each connection may have 64 calls open, so several are needed to be too many.
    let mut watching = Vec::new();
    for at in 0..MOST_ASKED {
        if at % 60 == 0 {
            watching.push((channel(&endpoint), Vec::new()));
        }
        let (channel, streams) = watching.last_mut().unwrap();
        let mut stream = watch(channel).await.unwrap();
        assert_eq!(stream.message().await.unwrap().unwrap().status().as_str_name(), "SERVING");
        streams.push(stream);
    }
    let late = channel(&endpoint);
    assert_eq!(watch(&late).await.unwrap_err().code(), Code::ResourceExhausted);
    // Whoever belongs is served all the same, and one who leaves makes room.
    reward_client(late.clone()).describe(DescribeRequest {}).await.unwrap();
    drop(watching.pop());
    let begin = Instant::now();
    let mut stream = loop {
        match watch(&late).await {
            Ok(stream) => break stream,
            Err(_) if begin.elapsed() < Duration::from_secs(5) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(status) => panic!("{status}"),
        }
    };
    assert_eq!(stream.message().await.unwrap().unwrap().status().as_str_name(), "SERVING");

    stop.cancel();
    let told = stream.message().await.unwrap().unwrap();
    assert_eq!(told.status().as_str_name(), "NOT_SERVING");
    let begin = Instant::now();
    assert_eq!(serving.await.unwrap().unwrap(), Served { cut: 0 });
    assert!(begin.elapsed() < Duration::from_secs(5), "watchers held up the end");
}
