//! The four roles as processes of one machine, which can be killed and started again.

#![allow(dead_code, clippy::unwrap_used)]

use super::{octet, root};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// How long anything may take: the machine may be busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(300);
pub const TOKEN: &str = "open sesame";

/// A process of a role. It is killed when it is dropped.
pub struct Node {
    pub child: Child,
    pub endpoint: String,
    /// Where its metrics are.
    pub metrics: String,
    /// All that it was started with, its ports as it got them.
    arguments: Vec<String>,
    log: PathBuf,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Node {
    /// Starts a role and waits until it says where it answers.
    pub fn start(home: &Path, arguments: &[String]) -> Self {
        let mut node = Self::spawn(home, arguments);
        node.ready();
        node
    }

    /// Starts a role.
    pub fn spawn(home: &Path, arguments: &[String]) -> Self {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let number = std::fs::read_dir(home).unwrap().count();
        let log = home.join(format!("{number:03}-{}.log", words[0]));
        let mut command = octet(&words);
        command.env("OCTET_JOIN_TOKEN", TOKEN).env_remove("OCTET_LOG").stdout(Stdio::piped());
        command.stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (send, lines) = sync_channel(1024);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let (endpoint, metrics) = (String::new(), String::new());
        let (arguments, said) = (arguments.to_vec(), Vec::new());
        Self { child, endpoint, metrics, arguments, log, lines, said }
    }

    /// Waits for the line that says where it answers.
    pub fn ready(&mut self) {
        let line = self.line("http://127.0.0.1:");
        line.split(' ').next().unwrap().clone_into(&mut self.endpoint);
        if let Some((_, at)) = line.split_once("metrics at ") {
            at.clone_into(&mut self.metrics);
        }
        // Whoever starts it again finds it where it was.
        let port = self.endpoint.rsplit(':').next().unwrap().to_owned();
        let at = self.arguments.iter().position(|word| word == "--listen").unwrap();
        self.arguments[at + 1] = format!("127.0.0.1:{port}");
    }

    /// The next line with this in it.
    pub fn line(&mut self, with: &str) -> String {
        let begin = Instant::now();
        loop {
            match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(with) {
                        return line;
                    }
                }
                Err(_) if begin.elapsed() < PATIENCE && self.is_running() => {}
                Err(_) => panic!("waited in vain for {with:?} from {}", self.story()),
            }
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the same again after its end, on the same ports; not yet ready.
    pub fn again(&mut self, home: &Path) {
        assert!(!self.is_running(), "it runs");
        let (endpoint, metrics) = (self.endpoint.clone(), self.metrics.clone());
        *self = Self::spawn(home, &self.arguments.clone());
        (self.endpoint, self.metrics) = (endpoint, metrics);
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        let sent = std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    pub fn end(&mut self, within: Duration) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.said.extend(self.lines.try_iter());
                return status;
            }
            assert!(begin.elapsed() < within, "did not end within {within:?}: {}", self.story());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for an orderly end.
    pub fn succeeds(&mut self) {
        let status = self.end(PATIENCE);
        assert!(status.success(), "{status}: {}", self.story());
    }

    /// What it calls itself: a worker by its name, others by their role.
    pub fn name(&self) -> &str {
        let named = self.said.first().and_then(|line| line.split_once(" samples as "));
        named.map_or(&self.arguments[0], |(_, rest)| rest.split(' ').next().unwrap_or_default())
    }

    /// What it was, and all that it said and logged.
    pub fn story(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        format!("octet {:?}:\n{}\n{log}", self.arguments, self.said.join("\n"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Coordinator, reward service, learner, and some workers.
pub struct Cluster {
    pub home: PathBuf,
    pub reward: Node,
    pub coordinator: Node,
    pub learner: Node,
    pub workers: Vec<Node>,
}

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|word| (*word).to_owned()).collect()
}

/// A short recipe: few groups, few tokens, no evaluation; and hot, so that completions of a group differ and
/// every step has something to learn.
pub fn short_keys(more: &[&str]) -> Vec<String> {
    let keys = [
        "run.steps=4",
        "learner.batch=4",
        "evaluation.enabled=false",
        "sampling.max_tokens=32",
        "sampling.temperature=1.5",
    ];
    keys.iter().chain(more).flat_map(|key| ["--set".to_owned(), (*key).to_owned()]).collect()
}

impl Cluster {
    /// Starts all of them, the reward service first.
    pub fn start(home: &Path, keys: &[String], workers: usize) -> Self {
        Self::start_with(home, keys, workers, &[], &[])
    }

    /// As [`Cluster::start`], with more to say to the workers, and to coordinator and learner.
    pub fn start_with(
        home: &Path,
        keys: &[String],
        workers: usize,
        to_workers: &[String],
        to_leaders: &[&str],
    ) -> Self {
        let any = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
        let reward = Node::start(home, &words(&[&["reward-service"][..], &any].concat()));
        let leader = |role: &str, run: &str, more: [&str; 2]| {
            let run = home.join(run);
            let first = [role, "--run-dir", run.to_str().unwrap(), more[0], more[1]];
            let all = [&first[..], &any, to_leaders].concat();
            Node::start(home, &[words(&all), keys.to_vec()].concat())
        };
        let coordinator = leader("coordinator", "coordinator", ["--reward", &reward.endpoint]);
        let learner = leader("learner", "learner", ["--coordinator", &coordinator.endpoint]);
        let mut cluster =
            Self { home: home.to_owned(), reward, coordinator, learner, workers: Vec::new() };
        for _ in 0..workers {
            let worker = cluster.worker(&[keys, to_workers].concat());
            cluster.workers.push(worker);
        }
        cluster
    }

    /// Starts one more worker.
    pub fn worker(&self, more: &[String]) -> Node {
        let arguments = [
            "rollout-worker",
            "--coordinator",
            &self.coordinator.endpoint,
            "--listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "127.0.0.1:0",
        ];
        Node::start(&self.home, &[words(&arguments), more.to_vec()].concat())
    }

    /// The run as `octet status --json` shows it; nothing while the coordinator does not answer.
    pub fn status(&self) -> Option<Value> {
        let asked = ["status", "--json", "--interval", "0", "--coordinator"];
        let mut command = octet(&[&asked[..], &[&self.coordinator.endpoint]].concat());
        let output = command.env("OCTET_JOIN_TOKEN", TOKEN).output().unwrap();
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Waits until the status is so; how long that took.
    pub fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Duration {
        let begin = Instant::now();
        loop {
            let status = self.status();
            if status.as_ref().is_some_and(&holds) {
                return begin.elapsed();
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "waited in vain for {what}; the last status was {status:#?}\n{}",
                self.story()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What all nodes said.
    pub fn story(&self) -> String {
        let nodes = [&self.reward, &self.coordinator, &self.learner];
        let stories = nodes.into_iter().chain(&self.workers).map(Node::story);
        stories.collect::<Vec<_>>().join("\n")
    }

    /// Waits until the learner, the coordinator and the workers have ended well; the digest of the weights.
    pub fn finish(mut self) -> String {
        self.learner.succeeds();
        self.coordinator.succeeds();
        for worker in &mut self.workers {
            worker.succeeds();
        }
        self.digest()
    }

    /// The digest of the final weights.
    pub fn digest(&self) -> String {
        let text = std::fs::read(self.home.join("learner/summary.json")).unwrap();
        let summary: Value = serde_json::from_slice(&text).unwrap();
        super::digest(&summary)
    }
}

/// The digest of the final weights of `octet train` with these keys.
pub fn in_one_process(home: &Path, keys: &[String]) -> String {
    let out = home.join("one");
    let mut arguments = words(&["train", "--out", out.to_str().unwrap()]);
    arguments.extend(keys.iter().cloned());
    super::digest(&super::train(&arguments, &out))
}

/// A path in the repository.
pub fn asset(path: &str) -> String {
    root().join(path).to_str().unwrap().to_owned()
}
