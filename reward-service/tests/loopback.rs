//! The service over a real loopback connection: what a client may rely on.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use octet_dataset::Example;
use octet_proto::{
    reward::{
        DescribeRequest, RewardClient, ScoreOutcome, ScoreRequest, ScoreResponse, reward_client,
    },
    transport::{ClientOptions, channel},
};
use octet_reward_service::{
    RewardFunction, RewardRange, ScoreError, ServiceSettings, ToolCall, Verdict, serve,
};
use octet_runtime::{
    CancellationToken,
    net::{Exposure, NetError, Served, bind},
};
use serde_json::json;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::Code;

const PATIENCE: Duration = Duration::from_secs(10);

struct Running {
    address: String,
    stop: CancellationToken,
    served: JoinHandle<Result<Served, NetError>>,
}

async fn start(function: Arc<dyn RewardFunction>, settings: ServiceSettings) -> Running {
    let listener = bind("127.0.0.1:0".parse().unwrap(), Exposure::Loopback).await.unwrap();
    let address = listener.endpoint();
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(listener, function, settings, stop.clone()));
    Running { address, stop, served }
}

impl Running {
    fn client(&self) -> RewardClient {
        reward_client(channel(&self.address, &ClientOptions::default()).unwrap())
    }

    /// Stops it; it must end by itself, with no connection cut.
    async fn stop(self) {
        self.stop.cancel();
        let served = timeout(PATIENCE, self.served).await.unwrap().unwrap().unwrap();
        assert_eq!(served.cut, 0);
    }
}

fn row() -> String {
    json!({
        "prompt": [{"role": "user", "content": "Weather in Paris?"}],
        "reward_model": {"ground_truth": [{"name": "weather", "arguments": {"city": "Paris"}}]},
    })
    .to_string()
}

fn request(id: u64, completion: &str, example_json: &str) -> ScoreRequest {
    ScoreRequest {
        id,
        group: id / 8,
        sample: (id % 8) as u32,
        completion: completion.to_owned(),
        example_json: example_json.to_owned(),
    }
}

/// Sends all, closes, and collects all answers by id; an id answered twice fails.
async fn score_all(
    client: &mut RewardClient,
    requests: Vec<ScoreRequest>,
) -> BTreeMap<u64, ScoreOutcome> {
    let answers = client.score(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let answers: Vec<_> = timeout(PATIENCE, answers.collect()).await.unwrap();
    let mut by_id = BTreeMap::new();
    for answer in answers {
        let ScoreResponse { id, outcome } = answer.unwrap();
        assert!(by_id.insert(id, outcome.unwrap()).is_none(), "{id} was answered twice");
    }
    by_id
}

/// A function that does what a completion says, so that each way to fail can be asked for.
#[derive(Default)]
struct Obedient {
    running: AtomicUsize,
    most: AtomicUsize,
}

impl RewardFunction for Obedient {
    fn name(&self) -> &str {
        "obedient"
    }

    fn digest(&self) -> String {
        "00".to_owned()
    }

    fn range(&self) -> RewardRange {
        RewardRange { min: -1.0, max: 1.0 }
    }

    fn score(&self, _: &Example, completion: &str) -> Result<Verdict, ScoreError> {
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        if let Some(millis) = completion.strip_prefix("sleep ") {
            thread::sleep(Duration::from_millis(millis.parse().unwrap()));
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
        assert!(completion != "panic", "told to panic");
        let reward = completion.parse().unwrap_or(0.5);
        Ok(Verdict::new(reward, "obeyed", "as told"))
    }
}

fn failure(outcome: &ScoreOutcome) -> (&str, bool) {
    match outcome {
        ScoreOutcome::Failure(failure) => (&failure.kind, failure.retryable),
        ScoreOutcome::Scored(scored) => panic!("scored: {scored:?}"),
    }
}

fn settings(threads: usize, max_in_flight: usize) -> ServiceSettings {
    ServiceSettings {
        threads: NonZeroUsize::new(threads).unwrap(),
        max_in_flight: NonZeroUsize::new(max_in_flight).unwrap(),
        ..ServiceSettings::default()
    }
}

#[tokio::test]
async fn describe_tells_name_contract_digest_and_range() {
    let running = start(Arc::new(ToolCall), settings(2, 17)).await;
    let told = running.client().describe(DescribeRequest {}).await.unwrap().into_inner();
    assert_eq!((told.name.as_str(), told.contract_version), ("tool-call", 1));
    assert_eq!(told.digest, ToolCall.digest());
    assert_eq!((told.min_reward, told.max_reward, told.max_in_flight), (0.0, 1.0, 17));
    running.stop().await;
}

#[tokio::test]
async fn a_thousand_requests_good_and_malformed_are_each_answered_once() {
    let running = start(Arc::new(ToolCall), settings(2, 32)).await;
    let row = row();
    let call = |city: &str| {
        format!(
            "<tool_call>{{\"name\": \"weather\", \"arguments\": {{\"city\": \"{city}\"}}}}</tool_call>"
        )
    };
    let requests = (0..1000).map(|id| match id % 5 {
        0 => request(id, &call("Paris"), &row),
        1 => request(id, &call("Rome"), &row),
        2 => request(id, "<tool_call>{", &row),
        3 => request(id, &call("Paris"), "{\"prompt\": []"),
        _ => request(id, &call("Paris"), "{\"prompt\": [], \"reward_model\": 3}"),
    });
    let answers = score_all(&mut running.client(), requests.collect()).await;
    assert_eq!(answers.len(), 1000);
    for (id, outcome) in &answers {
        match (id % 5, outcome) {
            (0, ScoreOutcome::Scored(scored)) => {
                assert_eq!((scored.reward, scored.verdict.as_str()), (1.0, "right-call"));
            }
            (1, ScoreOutcome::Scored(scored)) => {
                assert_eq!((scored.reward, scored.verdict.as_str()), (0.5, "wrong-parameters"));
                assert!(scored.detail.contains("Rome"), "{}", scored.detail);
            }
            (2, ScoreOutcome::Scored(scored)) => {
                assert_eq!((scored.reward, scored.verdict.as_str()), (0.0, "malformed-call"));
            }
            (3 | 4, ScoreOutcome::Failure(_)) => {
                assert_eq!(failure(outcome), ("bad-example", false))
            }
            other => panic!("{id}: {other:?}"),
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn a_reward_that_throws_or_is_no_reward_is_a_named_failure() {
    let running = start(Arc::new(Obedient::default()), settings(1, 8)).await;
    let told = ["NaN", "inf", "3.7", "-1.5", "panic", "1.0", "-1"];
    let requests = told.iter().zip(0..).map(|(told, id)| request(id, told, &row())).collect();
    let answers = score_all(&mut running.client(), requests).await;
    let kinds = ["not-finite", "not-finite", "out-of-range", "out-of-range", "threw"];
    for (id, kind) in (0..).zip(kinds) {
        assert_eq!(failure(&answers[&id]), (kind, false));
    }
    let ScoreOutcome::Failure(thrown) = &answers[&4] else { panic!("{answers:?}") };
    assert!(thrown.message.contains("told to panic"), "{}", thrown.message);
    for (id, reward) in [(5, 1.0), (6, -1.0)] {
        let ScoreOutcome::Scored(scored) = &answers[&id] else { panic!("{answers:?}") };
        assert_eq!(scored.reward, reward);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_slow_function_runs_on_its_threads_only_and_blocks_no_describe() {
    let function = Arc::new(Obedient::default());
    let running = start(function.clone(), settings(3, 64)).await;
    let mut client = running.client();
    let requests = (0..24).map(|id| request(id, "sleep 100", &row())).collect();
    let scoring = tokio::spawn({
        let mut client = client.clone();
        async move { score_all(&mut client, requests).await }
    });
    while function.running.load(Ordering::SeqCst) < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    client.describe(DescribeRequest {}).await.unwrap();
    assert!(!scoring.is_finished(), "described only when there was nothing left to score");
    assert_eq!(scoring.await.unwrap().len(), 24);
    assert_eq!(function.most.load(Ordering::SeqCst), 3);
    running.stop().await;
}

#[tokio::test]
async fn a_fast_answer_overtakes_a_slow_one() {
    let running = start(Arc::new(Obedient::default()), settings(2, 8)).await;
    let requests = [request(0, "sleep 300", &row()), request(1, "1", &row())];
    let mut client = running.client();
    let mut answers = client.score(tokio_stream::iter(requests)).await.unwrap().into_inner();
    assert_eq!(answers.next().await.unwrap().unwrap().id, 1);
    assert_eq!(answers.next().await.unwrap().unwrap().id, 0);
    assert!(answers.next().await.is_none());
    running.stop().await;
}

#[tokio::test]
async fn a_function_that_hangs_times_out_and_so_do_those_behind_it() {
    let limit = Duration::from_millis(100);
    let hasty = ServiceSettings { score_timeout: limit, ..settings(1, 8) };
    let running = start(Arc::new(Obedient::default()), hasty).await;
    let requests = vec![request(0, "sleep 1000", &row()), request(1, "sleep 1", &row())];
    let answers = score_all(&mut running.client(), requests).await;
    assert_eq!(failure(&answers[&0]), ("timed-out", true));
    assert_eq!(failure(&answers[&1]), ("timed-out", true));
    // Once the thread is free it scores again.
    let begin = Instant::now();
    loop {
        let answers = score_all(&mut running.client(), vec![request(2, "1", &row())]).await;
        if matches!(answers[&2], ScoreOutcome::Scored(_)) {
            break;
        }
        assert_eq!(failure(&answers[&2]), ("timed-out", true));
        assert!(begin.elapsed() < PATIENCE);
    }
    running.stop().await;
}

#[tokio::test]
async fn no_more_is_read_than_may_be_in_flight() {
    let function = Arc::new(Obedient::default());
    let running = start(function.clone(), settings(64, 4)).await;
    let requests = (0..16).map(|id| request(id, "sleep 20", &row())).collect();
    assert_eq!(score_all(&mut running.client(), requests).await.len(), 16);
    assert_eq!(function.most.load(Ordering::SeqCst), 4);
    running.stop().await;
}

#[tokio::test]
async fn shutdown_answers_what_it_read_and_says_so_on_open_streams() {
    let function = Arc::new(Obedient::default());
    let running = start(function.clone(), settings(2, 8)).await;
    let mut client = running.client();
    let (send, requests) = mpsc::channel(8);
    send.send(request(7, "sleep 200", &row())).await.unwrap();
    let mut answers = client.score(ReceiverStream::new(requests)).await.unwrap().into_inner();
    while function.running.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    running.stop().await;
    assert_eq!(answers.next().await.unwrap().unwrap().id, 7);
    let last = answers.next().await.unwrap().unwrap_err();
    assert_eq!(last.code(), Code::Unavailable);
    assert!(answers.next().await.is_none());
    drop(send);
}

#[tokio::test]
async fn health_is_the_standard_one() {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };
    let running = start(Arc::new(ToolCall), ServiceSettings::default()).await;
    let mut health =
        HealthClient::new(channel(&running.address, &ClientOptions::default()).unwrap());
    for service in ["octet.v1.RewardService", ""] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let status = health.check(request).await.unwrap().into_inner().status;
        assert_eq!(status, ServingStatus::Serving as i32, "{service}");
    }
    running.stop().await;
}
