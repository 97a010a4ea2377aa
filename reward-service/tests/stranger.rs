//! What anybody can send to the port of a reward service: it is answered once, by name, or refused, and the
//! service goes on.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use octet_proto::reward::{DescribeRequest, ScoreOutcome, ScoreRequest, reward_client};
use octet_proto::transport::{ClientOptions, channel};
use octet_reward_service::{ServiceSettings, ToolCall, serve};
use octet_runtime::CancellationToken;
use octet_runtime::net::{Exposure, bind};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_stream::StreamExt;

const PATIENCE: Duration = Duration::from_secs(20);

/// Rows that are right, nearly right, and not rows at all.
fn row() -> impl Strategy<Value = String> {
    let right = r#"{"prompt":[{"role":"user","content":"hi"}],"reward_model":{"ground_truth":[{"name":"f","arguments":{}}]}}"#;
    let cut = (0usize..right.len()).prop_map(|at| right[..at].to_owned());
    let deep = (1usize..2000).prop_map(|depth| "[".repeat(depth));
    prop_oneof![
        3 => Just(right.to_owned()),
        2 => cut,
        1 => deep,
        2 => "\\PC{0,60}",
        1 => Just("null".to_owned()),
        1 => Just(r#"{"prompt":{},"reward_model":[]}"#.to_owned()),
    ]
}

fn completion() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,80}",
        "[<>{}\\[\\]\"a-z_/ ]{0,120}",
        Just("<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>".to_owned()),
        (0usize..200_000).prop_map(|n| "{".repeat(n)),
    ]
}

#[test]
fn whatever_is_sent_the_service_answers_once_by_name_and_goes_on() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stop = CancellationToken::new();
    let listener =
        runtime.block_on(bind("127.0.0.1:0".parse().unwrap(), Exposure::Loopback)).unwrap();
    let (address, endpoint) = (listener.address(), listener.endpoint());
    let serving = serve(listener, Arc::new(ToolCall), ServiceSettings::default(), stop.clone());
    let served = runtime.spawn(serving);
    let client = runtime
        .block_on(async { reward_client(channel(&endpoint, &ClientOptions::default()).unwrap()) });

    let request = (any::<u64>(), any::<u64>(), any::<u32>(), completion(), row());
    let config = ProptestConfig::with_cases(48);
    proptest!(config, |(requests in prop::collection::vec(request, 0..12))| {
        let mut ids: Vec<u64> = requests.iter().map(|request| request.0).collect();
        ids.sort_unstable();
        let requests: Vec<ScoreRequest> = requests
            .into_iter()
            .map(|(id, group, sample, completion, example_json)| ScoreRequest {
                id, group, sample, completion, example_json,
            })
            .collect();
        let mut client = client.clone();
        let answers = runtime.block_on(async {
            let answers = client.score(tokio_stream::iter(requests)).await.unwrap().into_inner();
            timeout(PATIENCE, answers.collect::<Vec<_>>()).await.unwrap()
        });
        let mut answered = BTreeMap::new();
        for answer in answers {
            let answer = answer.unwrap();
            *answered.entry(answer.id).or_insert(0usize) += 1;
            match answer.outcome.unwrap() {
                ScoreOutcome::Scored(scored) => prop_assert!((0.0..=1.0).contains(&scored.reward)),
                ScoreOutcome::Failure(failure) => {
                    prop_assert_eq!(failure.kind, "bad-example");
                    prop_assert!(!failure.message.is_empty() && !failure.retryable);
                }
            }
        }
        let all: Vec<u64> = answered.iter().flat_map(|(id, n)| vec![*id; *n]).collect();
        prop_assert_eq!(all, ids, "each request once");
    });

    // Bytes that are no HTTP/2, and frames that are no gRPC.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    proptest!(ProptestConfig::with_cases(48), |(polite: bool, junk: Vec<u8>)| {
        runtime.block_on(async {
            let mut socket = TcpStream::connect(address).await.unwrap();
            let bytes = if polite { [preface.clone(), junk].concat() } else { junk };
            drop(socket.write_all(&bytes).await);
            drop(socket.shutdown().await);
            let mut answer = Vec::new();
            // It hangs up by itself; what it says before does not matter.
            drop(timeout(PATIENCE, socket.read_to_end(&mut answer)).await.unwrap());
        });
    });
    let mut client = client;
    let described = runtime.block_on(client.describe(DescribeRequest {})).unwrap();
    assert_eq!(described.into_inner().name, "tool-call");
    stop.cancel();
    runtime.block_on(served).unwrap().unwrap();
}
