//! The example service in Python, made from the contract alone, against the real client: what the page
//! `docs/reward-service-in-python.md` tells people to do.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use octet_dataset::Example;
use octet_proto::reward::{ScoreRequest, reward_client};
use octet_proto::transport::{ClientOptions, KeepAlive};
use octet_reward_service::service::client::{Ask, Replica, probe};
use octet_runtime::net::{Dial, Dialer, Tcp};
use serde_json::json;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

/// Killed when the test ends, however it ends.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// As a rollout worker dials, but in more of a hurry to find out that a peer is gone.
#[derive(Debug)]
struct Hasty;

impl Dial for Hasty {
    fn dial(
        &self,
        address: &str,
        options: &ClientOptions,
    ) -> Result<tonic::transport::Channel, octet_proto::transport::AddressError> {
        let often = KeepAlive { interval: Duration::from_secs(1), timeout: Duration::from_secs(5) };
        Tcp.dial(address, &ClientOptions { keep_alive: Some(often), ..options.clone() })
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().last().unwrap_or("no reason given").to_owned())
}

/// A Python with grpcio and the contract's modules, kept between runs.
fn prepare(contract: &Path) -> Result<(PathBuf, PathBuf), String> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-grpc");
    let (python, made) = (home.join("bin/python"), home.join("contract"));
    let has = |module: &str| run(Command::new(&python).args(["-c", &format!("import {module}")]));
    if has("grpc").and_then(|()| has("grpc_tools")).is_err() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
        let pip = ["-m", "pip", "install", "--quiet", "grpcio", "grpcio-tools"];
        run(Command::new(&python).args(pip))?;
    }
    std::fs::create_dir_all(&made).map_err(|error| error.to_string())?;
    let tools = Command::new(&python)
        .args(["-m", "grpc_tools.protoc", "-I"])
        .arg(contract)
        .arg(format!("--python_out={}", made.display()))
        .arg(format!("--grpc_python_out={}", made.display()))
        .arg("octet/v1/reward.proto")
        .output();
    match tools {
        Ok(output) if output.status.success() => Ok((python, made)),
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => Err(error.to_string()),
    }
}

fn row(truth: serde_json::Value) -> Example {
    let tool = json!({"function": {"name": "weather", "parameters": {"properties": {"city": {}}}}});
    let prompt = [json!({"role": "user", "content": "Weather in Lyon?"})];
    let row = json!({"prompt": prompt, "tools": [tool], "reward_model": {"ground_truth": truth}});
    Example::from_value(row).unwrap()
}

#[tokio::test]
async fn the_example_in_python_passes_the_probe_and_keeps_its_connection() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (python, made) = match prepare(&root.join("../proto")) {
        Ok(ready) => ready,
        Err(reason) => {
            eprintln!("SKIPPED: the reward service in Python was not run: no grpcio: {reason}");
            return;
        }
    };
    let mut command = Command::new(python);
    command.arg(root.join("examples/python/reward_service.py")).arg("0");
    command.env("PYTHONPATH", &made).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut server = Guarded(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let endpoint = line.trim().rsplit(' ').next().unwrap();

    let dialer: Dialer = Arc::new(Hasty);
    let call = json!({"tool_call": {"name": "weather", "parameters": {"city": "Lyon"}}});
    let rows = [row(call), row(json!({"behavior": "refuse"}))];
    let mut replicas = [Replica::meet(endpoint, &dialer).await.unwrap()];
    let probed = probe(&mut replicas, &rows, Duration::from_secs(20)).await.unwrap();
    assert_eq!((probed.name.as_str(), probed.scored), ("short-calls", 12));
    assert!(probed.seen.min == 0.0 && probed.seen.max == 1.0, "{probed:?}");

    let ask = |example_json: String| Ask { example_json, completion: "weather".to_owned() };
    let asks = [ask(rows[0].to_json()), ask("{}".to_owned())];
    let outcomes = replicas[0].score(&asks, Duration::from_secs(20)).await.unwrap();
    let scored = outcomes[0].as_ref().unwrap();
    assert!((scored.reward - 1.0 / 1.007).abs() < 1e-12 && scored.verdict == "call", "{scored:?}");
    assert!(outcomes[1].as_ref().unwrap_err().starts_with("bad-example"), "{outcomes:?}");

    // A worker's stream is open for as long as the run lasts, and pinged while nothing is asked: gRPC's own
    // limits would have ended it by now.
    let mut client = reward_client(dialer.dial(endpoint, &ClientOptions::default()).unwrap());
    let (send, questions) = tokio::sync::mpsc::channel(1);
    let question = |id| ScoreRequest { id, example_json: rows[0].to_json(), ..Default::default() };
    send.send(question(1)).await.unwrap();
    let answers = client.score(ReceiverStream::new(questions)).await.unwrap();
    let mut answers = answers.into_inner();
    assert_eq!(answers.next().await.unwrap().unwrap().id, 1);
    tokio::time::sleep(Duration::from_secs(8)).await;
    send.send(question(2)).await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap().id, 2);
}
