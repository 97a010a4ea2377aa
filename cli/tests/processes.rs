//! The roles as processes of their own: the same weights as in one process, and what they show of themselves.

#![allow(clippy::unwrap_used)]

mod common;

use common::cluster::{Cluster, Node, PATIENCE, TOKEN, in_one_process, short_keys};
use common::{octet, output};
use octet_proto::transport::{ClientOptions, channel};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

/// A run that goes on for long enough to be looked at.
fn long_keys() -> Vec<String> {
    short_keys(&["run.steps=40"])
}

#[test]
fn five_processes_make_the_weights_of_one() {
    let home = tempfile::tempdir().unwrap();
    let keys = short_keys(&[]);
    let expected = in_one_process(home.path(), &keys);
    let mut cluster = Cluster::start(home.path(), &keys, 2);
    cluster.learner.succeeds();
    let printed = cluster.learner.story();
    assert!(printed.contains(&expected), "the digest is printed: {printed}");
    assert_eq!(cluster.finish(), expected);
    rollouts_are_shown(&home.path().join("learner"));
}

/// What a run sampled, after it or while it goes on.
fn rollouts_are_shown(run: &Path) {
    let run = run.to_str().unwrap();
    let shown = |more: &[&str]| {
        let output = output(&[&["rollouts", run], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let lines = shown(&["--step", "1", "--json"]);
    let groups: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(
        groups.iter().map(|g| g["group"].as_u64().unwrap()).collect::<Vec<_>>(),
        [4, 5, 6, 7]
    );
    for group in &groups {
        assert_eq!((group["step"].as_u64(), group["policy_version"].as_u64()), (Some(1), Some(1)));
        assert_eq!(group["reward_revision"], 1);
        assert!(group["prompt"].as_str().unwrap().contains(group["request"].as_str().unwrap()));
        let completions = group["completions"].as_array().unwrap();
        assert_eq!(completions.len(), 8);
        let advantages = completions.iter().map(|c| c["advantage"].as_f64().unwrap());
        assert!(advantages.sum::<f64>().abs() < 1e-9, "advantages are relative to their group");
        for completion in completions {
            let tokens = completion["logprobs"].as_array().unwrap();
            assert!(
                (1..=32).contains(&tokens.len()) && completion["logprob"].as_f64() <= Some(0.0)
            );
            assert!(!completion["text"].as_str().unwrap().is_empty());
        }
    }
    let text = shown(&["--group", "2"]);
    assert!(text.contains("group 2 of step 0") && text.contains("advantage"), "{text}");
    assert!(shown(&[]).contains("of step 3"), "without a choice the newest step");
    let missing = output(&["rollouts", run, "--group", "99"]);
    let error = String::from_utf8(missing.stderr).unwrap();
    assert!(error.contains("found groups 0 to 15"), "{error}");
}

/// A page of plain HTTP: its first line and all of it.
fn page(node: &Node, path: &str) -> String {
    let at = node.metrics.trim_start_matches("http://").trim_end_matches("/metrics");
    let mut stream = TcpStream::connect(at).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: octet\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// What a node answers to whoever shows no token.
async fn introduces_itself(node: &Node, service: &str) {
    let channel = channel(&node.endpoint, &ClientOptions::default()).unwrap();
    for service in [service, ""] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let health = HealthClient::new(channel.clone()).check(request).await.unwrap();
        assert_eq!(health.into_inner().status().as_str_name(), "SERVING", "{service}");
    }
    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(channel);
    let answers = client.server_reflection_info(tokio_stream::iter([question])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("expected services, found {answer:?}");
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&service), "{names:?}");
}

#[test]
fn every_role_shows_its_health_its_contracts_and_its_metrics() {
    let home = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(home.path(), &long_keys(), 1);
    cluster.until("the second step", |status| status["committed_steps"].as_u64() >= Some(2));
    let worker = &cluster.workers[0];
    let roles = [
        (&cluster.coordinator, "octet.v1.CoordinatorService"),
        (&cluster.learner, "octet.v1.LearnerService"),
        (worker, "octet.v1.WeightsService"),
        (&cluster.reward, "octet.v1.RewardService"),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (node, service) in roles {
        runtime.block_on(introduces_itself(node, service));
        let health = page(node, "/healthz");
        assert!(health.starts_with("HTTP/1.1 200") && health.ends_with("ok\n"), "{health}");
        let metrics = page(node, "/metrics");
        assert!(metrics.contains("octet_build_info") && metrics.ends_with("# EOF\n"), "{metrics}");
    }
    let expected = [
        (
            &cluster.coordinator,
            &[
                "octet_steps_committed ",
                "octet_groups{state=\"leased\"}",
                "octet_leases{worker=",
                "octet_workers 1",
                "octet_sampled_tokens_total{worker=",
                "octet_learned_tokens_total ",
                "octet_queue_depth{node=\"learner\",queue=\"spool\"}",
                "octet_queue_depth{node=\"coordinator\",queue=\"coordinator\"}",
                "octet_weights_bytes{version=",
                "octet_weights_spreads_total ",
                "octet_weights_spread_seconds_total ",
                "octet_waits{node=\"run\",wait=",
                "octet_reward_leased_groups{revision=\"1\"",
            ][..],
        ),
        (
            &cluster.learner,
            &[
                "octet_steps_taken_total ",
                "octet_logprob_gap_max 0.0",
                "octet_step_reward_mean ",
                "octet_waits{wait=",
                "octet_weight_bytes_sent_total ",
            ][..],
        ),
        (
            worker,
            &[
                "octet_sampled_tokens_total ",
                "octet_reward_calls_total ",
                "octet_reward_seconds_total ",
                "octet_reward_failures_total 0",
                "octet_queue_depth{queue=\"engine\"}",
                "octet_queue_depth{queue=\"rewards of revision 1\"}",
                "octet_weight_bytes_received_total{source=\"learner\"}",
            ][..],
        ),
        (
            &cluster.reward,
            &[
                "octet_reward_scored_total ",
                "octet_reward_latency_seconds_bucket{le=\"+Inf\"}",
                "octet_reward_latency_seconds_count ",
                "octet_reward_open ",
            ][..],
        ),
    ];
    for (node, names) in expected {
        let metrics = page(node, "/metrics");
        for name in names {
            assert!(metrics.contains(name), "expected {name} in:\n{metrics}");
        }
    }
}

#[test]
fn a_reward_service_that_is_away_is_a_wait_with_a_name() {
    let home = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(home.path(), &long_keys(), 1);
    cluster.until("the first step", |status| status["committed_steps"].as_u64() >= Some(1));
    cluster.reward.kill();
    let waits = |status: &Value| {
        let all = status["waits"].as_array().unwrap().clone();
        all.into_iter().find(|wait| wait["wait"] == "reward replica")
    };
    cluster.until("the wait for a reward", |status| waits(status).is_some());
    let status = cluster.status().unwrap();
    let wait = waits(&status).unwrap();
    let detail = wait["detail"].as_str().unwrap();
    assert!(detail.contains("tool-call") && detail.contains(&cluster.reward.endpoint), "{wait}");
    assert_eq!(wait["node"], status["workers"][0]["name"]);
    assert!(wait["since"].as_f64().is_some() && wait["until"].as_f64().is_some(), "{wait}");
    assert!(status["rewards"][0]["unanswered"].as_u64() > Some(0), "{status}");
    let screen = |more: &[&str]| {
        let asked = ["status", "--coordinator", &cluster.coordinator.endpoint];
        let mut command = octet(&[&asked[..], more].concat());
        let output = command.env("OCTET_JOIN_TOKEN", TOKEN).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = screen(&[]);
    assert!(text.contains("reward replica") && text.contains("tokens/s sampled"), "{text}");
    let run = cluster.home.join("coordinator");
    let by_directory = output(&["status", "--interval", "0", "--run", run.to_str().unwrap()]);
    assert!(by_directory.status.success(), "{}", String::from_utf8_lossy(&by_directory.stderr));
    // It comes back, and the run goes on by itself.
    cluster.reward.again(home.path());
    let committed = status["committed_steps"].as_u64();
    cluster.until("another step", |status| status["committed_steps"].as_u64() > committed);
}

/// Ends a node with SIGTERM; it has to be gone within its own deadline.
fn drains(node: &mut Node, within: Duration) {
    let begin = Instant::now();
    node.terminate();
    let status = node.end(within);
    assert!(status.success(), "{status}: {}", node.story());
    eprintln!("drained in {:.2} s: {}", begin.elapsed().as_secs_f64(), node.name());
}

#[test]
fn a_signal_drains_every_role() {
    let home = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(home.path(), &long_keys(), 2);
    cluster.until("the first step", |status| status["committed_steps"].as_u64() >= Some(1));
    let mut worker = cluster.workers.remove(0);
    drains(&mut worker, Duration::from_secs(25));
    // What it gave back is sampled by the other one, at once.
    let committed = cluster.status().unwrap()["committed_steps"].as_u64();
    cluster.until("the next step", |status| status["committed_steps"].as_u64() > committed);
    drains(&mut cluster.workers[0], Duration::from_secs(25));
    drains(&mut cluster.learner, Duration::from_secs(60));
    assert!(cluster.learner.story().contains("stopped after"), "{}", cluster.learner.story());
    drains(&mut cluster.reward, Duration::from_secs(15));
    drains(&mut cluster.coordinator, Duration::from_secs(10));
}

#[test]
fn an_occupied_port_is_one_line_that_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let run = home.path().join("run");
    let run = run.to_str().unwrap();
    let nobody = ["--coordinator", "http://127.0.0.1:9", "--join-token", "x"];
    let roles = [
        [&["coordinator", "--run-dir", run, "--reward", "http://127.0.0.1:9"][..], &[]].concat(),
        [&["learner", "--run-dir", run][..], &nobody].concat(),
        [&["rollout-worker"][..], &nobody].concat(),
        vec!["reward-service"],
    ];
    for role in roles {
        for (flag, other) in [("--listen", "--metrics-listen"), ("--metrics-listen", "--listen")] {
            let ports = [flag, taken.as_str(), other, "127.0.0.1:0"];
            let output = output(&[&role[..], &ports].concat());
            let error = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success(), "{role:?}");
            assert_eq!(error.lines().count(), 1, "{role:?}: {error}");
            let expected =
                format!("error: {flag}: cannot listen on {taken}: the port is in use; stop");
            assert!(error.starts_with(&expected), "{role:?}: {error}");
        }
        assert!(!Path::new(run).exists(), "a refused role must not leave a directory");
    }
}

#[test]
fn a_node_of_another_recipe_is_refused_with_both_digests() {
    let home = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(home.path(), &short_keys(&["run.seed=7"]), 0);
    let mut worker = cluster.worker(&short_keys(&["run.seed=8"]));
    let status = worker.end(PATIENCE);
    let story = worker.story();
    assert!(!status.success() && story.contains("digest"), "{story}");
    let digests = story.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| word.len() == 64);
    assert!(digests.collect::<std::collections::BTreeSet<_>>().len() >= 2, "{story}");
}

#[test]
fn flags_come_from_a_file_and_the_environment_too() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("node.toml");
    std::fs::write(
        &file,
        "function = \"aws-compat\"\nlisten = \"127.0.0.1:0\"\nmetrics-listen = \"off\"\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let said = |more: &[&str], variable: Option<(&str, &str)>| {
        let mut command = octet(&[&["reward-service", "--node-config", file], more].concat());
        command.envs(variable).stdout(std::process::Stdio::piped());
        let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        line
    };
    let line = said(&[], None);
    assert!(line.contains("serves aws-compat") && !line.contains("metrics at"), "{line}");
    let line = said(&[], Some(("OCTET_FUNCTION", "tool-call")));
    assert!(line.contains("serves tool-call"), "the environment wins over the file: {line}");
    let line = said(&["--function", "aws-compat"], Some(("OCTET_FUNCTION", "tool-call")));
    assert!(line.contains("serves aws-compat"), "the command line wins over both: {line}");
    std::fs::write(home.path().join("node.toml"), "fuction = \"aws-compat\"\n").unwrap();
    let output = output(&["reward-service", "--node-config", file]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("did you mean `function`?"), "{error}");
    assert!(error.contains("node.toml:1"), "{error}");
}
