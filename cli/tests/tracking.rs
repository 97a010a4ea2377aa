//! Tracked runs: a real MLflow server that is healthy, loses answers, or is killed half-way; one that never answers;
//! and TensorBoard's own reader.

#![allow(clippy::unwrap_used)]

mod common;

use common::cluster::{Cluster, short_keys};
use common::mlflow::{Mlflow, said};
use common::{digest, octet, output, python, root, short, start, train};
use octet_tracking::journal::Journal;
use octet_tracking::{Names, flatten};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// The keys that track a run.
fn tracked(url: &str, experiment: &str, more: &[&str]) -> Vec<String> {
    let keys = [
        format!("tracking.mlflow={url}"),
        format!("tracking.experiment={experiment}"),
        "tracking.patience=120s".to_owned(),
    ];
    let more = more.iter().map(|key| (*key).to_owned());
    keys.into_iter().chain(more).flat_map(|key| ["--set".to_owned(), key]).collect()
}

fn short_with(out: &Path, more: &[String]) -> Vec<String> {
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    short(out, &more)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn send(arguments: &[&str]) -> Output {
    output(&[&["track", "send"], arguments].concat())
}

fn sent(arguments: &[&str]) -> String {
    let output = send(arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// What the run wrote for itself, by the name that a tracker has for it.
fn written(run: &Path, names: Names) -> BTreeMap<String, Vec<(u64, f64)>> {
    let lines = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for line in lines.lines() {
        let (step, values) = flatten::step(line).unwrap();
        for (name, value) in values {
            all.entry(names.of(&name)).or_default().push((step, value.0));
        }
    }
    all
}

/// The one octet run of an experiment, which has each step once.
fn whole(server: &Mlflow, experiment: &str, run: &Path, names: Names) -> Value {
    let runs = server.runs(experiment);
    let is_parent = |run: &&Value| said(run, "tags", "octet.kind").is_some();
    let parents: Vec<&Value> = runs.iter().filter(is_parent).collect();
    let children: Vec<&Value> = runs.iter().filter(|run| !is_parent(run)).collect();
    assert_eq!((parents.len(), children.len()), (1, 1), "{runs:#?}");
    let (parent, child) = (parents[0], children[0].clone());
    let id = child["info"]["run_id"].as_str().unwrap();
    assert_eq!(said(&child, "tags", "mlflow.parentRunId").unwrap(), parent["info"]["run_id"]);
    assert_eq!(
        (&child["info"]["status"], &parent["info"]["status"]),
        (&json!("FINISHED"), &json!("FINISHED"))
    );
    let written = written(run, names);
    assert!(written.len() > 15, "{written:?}");
    for (key, expected) in &written {
        assert_eq!(&server.history(id, key), expected, "{key}");
    }
    child
}

/// Waits until a run has so many steps on the disk.
fn until_steps(run: &Path, steps: usize) {
    let begin = Instant::now();
    let lines = || std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    while lines().lines().count() < steps {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for step {steps}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the server has a step of a run.
fn until_shown(server: &Mlflow, experiment: &str, step: u64) {
    let begin = Instant::now();
    let shown = || {
        let known = format!("experiments/get-by-name?experiment_name={experiment}");
        server.get(&known)["experiment"].is_object()
            && server.runs(experiment).iter().any(|run| {
                let id = run["info"]["run_id"].as_str().unwrap();
                server.history(id, "reward").iter().any(|(at, _)| *at >= step)
            })
    };
    while !shown() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for step {step} on the server");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_real_server_has_each_run_whole_and_once() {
    let home = tempfile::tempdir().unwrap();
    let Some(mut server) = Mlflow::start(home.path(), "tracked runs") else { return };
    healthy(&server, home.path());
    answers_are_lost(&server, home.path());
    never_tracked_before(&server, home.path());
    refused_and_deleted(&server, home.path());
    by_the_learner(&server, home.path());
    the_run_is_killed(&server, home.path());
    the_server_is_killed(&mut server, home.path());
}

/// Parameters, metrics, tags, files, evaluation, parent.
fn healthy(server: &Mlflow, home: &Path) {
    let held_out = home.join("held-out.jsonl");
    let rows = std::fs::read_to_string(root().join("assets/data/held-out.jsonl")).unwrap();
    let rows: Vec<&str> = rows.lines().take(4).collect();
    std::fs::write(&held_out, rows.join("\n") + "\n").unwrap();
    let rows = format!("data.held_out={}", held_out.display());
    let out = home.join("healthy");
    let more = tracked(&server.url(), "healthy", &["evaluation.enabled=true", &rows]);
    let arguments = short_with(&out, &more);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = output(&arguments);
    assert!(ended.status.success(), "{}", text(&ended.stderr));

    let run = whole(server, "healthy", &out, Names::Trl);
    let id = run["info"]["run_id"].as_str().unwrap();
    let page = format!("tracking     {}/#/experiments/", server.url());
    assert!(text(&ended.stdout).contains(&page) && text(&ended.stdout).contains(id));
    assert_eq!(run["info"]["run_name"], "healthy");
    let identity: Value =
        serde_json::from_slice(&std::fs::read(out.join("run.json")).unwrap()).unwrap();
    let summary: Value =
        serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!(said(&run, "tags", "octet.config_digest").unwrap(), identity["config_digest"]);
    assert_eq!(said(&run, "tags", "octet.weights_digest").unwrap(), summary["weights_digest"]);
    assert_eq!(said(&run, "params", "learner.batch").unwrap(), "4");
    assert_eq!(said(&run, "params", "run.steps").unwrap(), "4");
    assert_eq!(said(&run, "params", "tracking.experiment"), None);
    let (before, after) = (&summary["before"]["reward"], &summary["after"]["reward"]);
    let expected = [(0, before.as_f64().unwrap()), (4, after.as_f64().unwrap())];
    assert_eq!(server.history(id, "eval_reward"), expected);
    for file in ["config.toml", "summary.json", "evaluation.md", "curves.svg", "curves.png"] {
        let here = std::fs::read(out.join(file)).unwrap();
        assert!(server.artifact(&run, file) == here, "{file} is another one on the server");
    }
    let table = std::fs::read_to_string(out.join("evaluation.md")).unwrap();
    assert!(table.starts_with("| held out | rows |"), "{table}");
    assert_eq!(said(&run, "tags", "mlflow.note.content").unwrap(), table);

    // Again: nothing changes.
    let page = sent(&[out.to_str().unwrap()]);
    assert!(page.contains(id), "{page}");
    whole(server, "healthy", &out, Names::Trl);
    // Another run of the experiment lies below the same parent.
    let second = home.join("second");
    train(&short_with(&second, &tracked(&server.url(), "healthy", &["run.seed=2"])), &second);
    let runs = server.runs("healthy");
    let parents = runs.iter().filter(|run| said(run, "tags", "octet.kind").is_some());
    assert_eq!((parents.count(), runs.len()), (1, 3));
}

/// Passes on what is asked, and cuts connections while the answer is on its way.
fn lossy(server: &Mlflow) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let to = server.url().trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().map_while(Result::ok).enumerate() {
            let upstream = TcpStream::connect(&to).unwrap();
            let (mut from, mut into) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            std::thread::spawn(move || drop(std::io::copy(&mut from, &mut into)));
            std::thread::spawn(move || answer(upstream, client, 3 + number * 5 % 11));
        }
    });
    address
}

/// Gives so many pieces of answers back; what comes then is swallowed.
fn answer(mut upstream: TcpStream, mut client: TcpStream, pieces: usize) {
    let mut buffer = [0; 4096];
    for piece in 0.. {
        let Ok(read @ 1..) = upstream.read(&mut buffer) else { break };
        if piece >= pieces || client.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    drop(client.shutdown(std::net::Shutdown::Both));
    drop(upstream.shutdown(std::net::Shutdown::Both));
}

/// What arrived and was not acknowledged is sent again, and shows once.
fn answers_are_lost(server: &Mlflow, home: &Path) {
    let out = home.join("lossy");
    let summary = train(&short_with(&out, &tracked(&lossy(server), "lossy", &[])), &out);
    let run = whole(server, "lossy", &out, Names::Trl);
    assert_eq!(said(&run, "tags", "octet.weights_digest").unwrap(), digest(&summary));
}

/// A run directory that no tracker ever saw, under verl's names.
fn never_tracked_before(server: &Mlflow, home: &Path) {
    let out = home.join("untold");
    train(&short(&out, &[]), &out);
    let told = text(&send(&[out.to_str().unwrap()]).stderr);
    assert!(told.contains("name a server with --mlflow URL"), "{told}");
    let url = server.url();
    let send =
        [out.to_str().unwrap(), "--mlflow", &url, "--experiment", "later", "--names", "verl"];
    sent(&[&send[..], &["--run-name", "a name of its own"]].concat());
    let run = whole(server, "later", &out, Names::Verl);
    assert_eq!(run["info"]["run_name"], "a name of its own");
    let id = run["info"]["run_id"].as_str().unwrap();
    assert_eq!(server.history(id, "critic/rewards/mean").len(), 4);
}

/// A parameter that has another value there is put aside alone; a run that was deleted there is said to be.
fn refused_and_deleted(server: &Mlflow, home: &Path) {
    let out = home.join("untold");
    let url = server.url();
    // The run is there already, and somebody gave it a parameter of ours.
    let key = Journal::open(&out, "untold").unwrap().key().unwrap();
    server.post("experiments/create", &json!({"name": "taken"}));
    let made = server.post(
        "runs/create",
        &json!({
            "experiment_id": server.experiment("taken"), "start_time": 1,
            "tags": [{"key": "octet.journal", "value": key}],
        }),
    );
    let id = made["run"]["info"]["run_id"].as_str().unwrap().to_owned();
    let theirs = [json!({"key": "learner.batch", "value": "99"})];
    server.post("runs/log-batch", &json!({"run_id": id, "params": theirs}));
    let arguments = [out.to_str().unwrap(), "--mlflow", &url, "--experiment", "taken"];
    let told = send(&arguments);
    assert!(!told.status.success());
    let told = text(&told.stderr);
    assert!(told.contains("does not have the parameter learner.batch: it refused it"), "{told}");
    assert_eq!(server.history(&id, "reward").len(), 4, "all else is there");
    let run = &server.get(&format!("runs/get?run_id={id}"))["run"];
    assert_eq!(said(run, "params", "learner.batch").unwrap(), "99");
    assert_eq!(said(run, "params", "run.seed").unwrap(), "1");

    server.post("runs/delete", &json!({"run_id": id}));
    std::fs::write(out.join("curves.svg"), "<svg>another</svg>").unwrap();
    let told = text(&send(&arguments).stderr);
    assert!(told.contains("--anew"), "{told}");
    sent(&[&arguments[..], &["--anew"]].concat());
    whole(server, "taken", &out, Names::Trl);
}

/// In a cluster the learner tracks.
fn by_the_learner(server: &Mlflow, home: &Path) {
    let home = home.join("cluster");
    std::fs::create_dir(&home).unwrap();
    let keys = [short_keys(&[]), tracked(&server.url(), "cluster", &[])].concat();
    let digest = Cluster::start(&home, &keys, 1).finish();
    let run = whole(server, "cluster", &home.join("learner"), Names::Trl);
    assert_eq!(said(&run, "tags", "octet.weights_digest").unwrap(), digest);
}

/// `kill -9` half-way, and a resume.
fn the_run_is_killed(server: &Mlflow, home: &Path) {
    let out = home.join("killed");
    let more = tracked(&server.url(), "killed", &["run.steps=30"]);
    let mut child = start(&short_with(&out, &more));
    until_shown(server, "killed", 2);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!out.join("summary.json").exists(), "it was over before it was killed");
    let before = server.runs("killed").len();
    let resume = ["train", "--resume", out.to_str().unwrap()].map(str::to_owned);
    let summary = train(&resume, &out);
    let run = whole(server, "killed", &out, Names::Trl);
    assert_eq!(said(&run, "tags", "octet.weights_digest").unwrap(), digest(&summary));
    assert_eq!((server.runs("killed").len(), before), (2, 2));
}

/// The server is killed half-way and comes back.
fn the_server_is_killed(server: &mut Mlflow, home: &Path) {
    let out = home.join("alone");
    let more = tracked(&server.url(), "alone", &["run.steps=16", "tracking.patience=300s"]);
    let mut child = start(&short_with(&out, &more));
    until_shown(server, "alone", 2);
    server.kill();
    let seen = written(&out, Names::Trl)["reward"].len();
    until_steps(&out, (seen + 2).min(16));
    server.again();
    assert!(child.wait().unwrap().success());
    let run = whole(server, "alone", &out, Names::Trl);
    let id = run["info"]["run_id"].as_str().unwrap();
    assert_eq!(server.history(id, "reward").len(), 16);
}

#[test]
fn a_server_that_never_answers_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let plain = home.path().join("plain");
    let expected = digest(&train(&short(&plain, &[]), &plain));

    // Connections are accepted by the system, and nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let out = home.path().join("silent");
    let more = tracked(&url, "silent", &["tracking.patience=1s"]);
    let arguments = short_with(&out, &more);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = octet(&arguments).output().unwrap();
    let told = text(&ended.stderr);
    assert!(ended.status.success(), "{told}");
    let summary: Value =
        serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!(digest(&summary), expected);
    let hint = format!("send them with `octet track send {}`", out.display());
    assert!(told.contains(&hint), "{told}");

    // The journal holds everything.
    let journal = Journal::open(&out, "silent").unwrap();
    for step in 1..=4 {
        assert!(journal.has(&format!("step/{step}")).unwrap(), "step {step}");
    }
    for key in ["params", "tags", "summary", "result"] {
        assert!(journal.has(key).unwrap(), "{key}");
    }
    // What fails is said, and how long it may take is kept to.
    let begin = Instant::now();
    let again = send(&[out.to_str().unwrap(), "--within", "2"]);
    assert!(!again.status.success());
    assert!(begin.elapsed() < Duration::from_secs(60));
    drop(silent);
    let again = text(&send(&[out.to_str().unwrap(), "--within", "2"]).stderr);
    assert!(again.contains("cannot be reached"), "{again}");
}

#[test]
fn what_is_wrong_is_said_before_the_run_begins() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("run");
    let refused = |key: &str, environment: &[(&str, &str)]| {
        let arguments = short(&out, &["--set", key]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ended = octet(&arguments).envs(environment.iter().copied()).output().unwrap();
        assert!(!ended.status.success());
        assert!(!out.exists(), "the run directory was made");
        text(&ended.stderr)
    };
    let told = refused("tracking.mlflow=sqlite:///mlflow.db", &[]);
    assert!(told.contains("`tracking.mlflow`: expected http://host:port"), "{told}");
    let told = refused("tracking.mlflow=env", &[("MLFLOW_TRACKING_URI", "")]);
    assert!(told.contains("MLFLOW_TRACKING_URI: expected the address"), "{told}");
    let secret = [("MLFLOW_TRACKING_TOKEN", "secret")];
    let told = refused("tracking.mlflow=http://mlflow.example", &secret);
    assert!(told.contains("credentials_in_plain_text") && !told.contains("secret"), "{told}");
    let told = refused("tracking.names=wandb", &[]);
    assert!(told.contains("tracking.names") && told.contains("wandb"), "{told}");
}

/// Reads event files as TensorBoard does.
const READER: &str = r#"
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
events.Reload()
tags = events.Tags()["scalars"]
print(json.dumps({tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in tags}))
"#;

#[test]
fn tensorboard_reads_each_step_once() {
    let python = python::program("OCTET_TEST_TENSORBOARD", "python", &["tensorboard"]);
    let python = match python {
        Ok(python) => python,
        Err(reason) => {
            eprintln!("SKIPPED: event files were not read by TensorBoard: {reason}");
            return;
        }
    };
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("run");
    let logs = home.path().join("logs");
    let key = format!("tracking.tensorboard={}", logs.display());
    let mut child = start(&short(&out, &["--set", &key, "--set", "run.steps=6"]));
    until_steps(&out, 2);
    child.kill().unwrap();
    child.wait().unwrap();
    let resume = ["train", "--resume", out.to_str().unwrap()].map(str::to_owned);
    train(&resume, &out);

    let read = Command::new(python).args(["-c", READER]).arg(logs.join("run")).output().unwrap();
    assert!(read.status.success(), "{}", text(&read.stderr));
    let read: BTreeMap<String, Vec<(u64, f64)>> = serde_json::from_slice(&read.stdout).unwrap();
    let written = written(&out, Names::Octet);
    assert!(written.len() > 15 && written["reward_mean"].len() == 6, "{written:?}");
    for (name, points) in written {
        let tag = Names::Trl.tag(&name);
        let single = points.iter().map(|(step, value)| (*step, f64::from(*value as f32)));
        assert_eq!(read[&tag], single.collect::<Vec<_>>(), "{tag}");
    }
    assert!(read.contains_key("train/reward") && read.contains_key("train/grad_norm"));
}
