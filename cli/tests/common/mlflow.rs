//! A real MLflow server with SQLite, which can be killed and started again where it was.

#![allow(dead_code, clippy::unwrap_used)]

use super::python::program;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to start on a busy machine.
const STARTS: Duration = Duration::from_secs(300);

/// A server. It is killed when it is dropped.
pub struct Mlflow {
    program: PathBuf,
    home: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Mlflow {
    /// Starts one; says so and gives nothing where there can be none.
    pub fn start(home: &Path, what: &str) -> Option<Self> {
        let program = match program("OCTET_TEST_MLFLOW", "mlflow", &["mlflow"]) {
            Ok(program) => program,
            Err(reason) => {
                eprintln!("SKIPPED: {what}: there is no MLflow: {reason}");
                return None;
            }
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { program, home: home.to_owned(), port, child: None };
        server.again();
        Some(server)
    }

    /// Starts it where it was.
    pub fn again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = self.home.join("mlflow.log");
        let log = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let store = format!("sqlite:///{}", self.home.join("mlflow.db").display());
        let files = self.home.join("files");
        let mut command = Command::new(&self.program);
        command
            .args([
                "server",
                "--host",
                "127.0.0.1",
                "--workers",
                "1",
                "--backend-store-uri",
                &store,
            ])
            .arg("--artifacts-destination")
            .arg(files)
            .args(["--port", &self.port.to_string()])
            .envs([("MLFLOW_DISABLE_TELEMETRY", "true"), ("DO_NOT_TRACK", "true")])
            .current_dir(&self.home)
            // It starts others that outlive it: all of its group ends.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.child = Some(command.spawn().unwrap());
        let begin = Instant::now();
        while ureq::get(&format!("{}/health", self.url())).call().is_err() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && begin.elapsed() < STARTS, "{}", self.said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let group = format!("-{}", child.id());
            drop(Command::new("kill").args(["-KILL", "--", &group]).status());
            drop(child.wait());
        }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.home.join("mlflow.log")).unwrap_or_default()
    }

    fn read(&self, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Value {
        let text = answer.unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}\n{}", self.said()))
    }

    pub fn get(&self, path: &str) -> Value {
        let request = ureq::get(&format!("{}/api/2.0/mlflow/{path}", self.url()));
        self.read(request.config().http_status_as_error(false).build().call())
    }

    pub fn post(&self, path: &str, body: &Value) -> Value {
        let request = ureq::post(&format!("{}/api/2.0/mlflow/{path}", self.url()));
        let request = request.header("content-type", "application/json");
        self.read(request.send(body.to_string()))
    }

    /// The id of an experiment.
    pub fn experiment(&self, name: &str) -> String {
        let found = self.get(&format!("experiments/get-by-name?experiment_name={name}"));
        found["experiment"]["experiment_id"].as_str().unwrap().to_owned()
    }

    /// All active runs of an experiment.
    pub fn runs(&self, experiment: &str) -> Vec<Value> {
        let body = json!({"experiment_ids": [self.experiment(experiment)], "max_results": 100});
        let found = self.post("runs/search", &body);
        found["runs"].as_array().cloned().unwrap_or_default()
    }

    /// Every point of a metric, by step.
    pub fn history(&self, run_id: &str, key: &str) -> Vec<(u64, f64)> {
        let key = key.replace('/', "%2F");
        let path =
            format!("metrics/get-history?run_id={run_id}&metric_key={key}&max_results=10000");
        let found = self.get(&path);
        let points = found["metrics"].as_array().cloned().unwrap_or_default();
        let point = |m: &Value| (m["step"].as_u64().unwrap_or(0), m["value"].as_f64().unwrap());
        let mut points: Vec<(u64, f64)> = points.iter().map(point).collect();
        points.sort_by(|a, b| a.partial_cmp(b).unwrap());
        points
    }

    /// A file of a run.
    pub fn artifact(&self, run: &Value, name: &str) -> Vec<u8> {
        let uri = run["info"]["artifact_uri"].as_str().unwrap();
        let path = uri.strip_prefix("mlflow-artifacts:/").unwrap();
        let url = format!("{}/api/2.0/mlflow-artifacts/artifacts/{path}/{name}", self.url());
        ureq::get(&url).call().unwrap().body_mut().read_to_vec().unwrap()
    }
}

impl Drop for Mlflow {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The value of a tag, or of a parameter.
pub fn said(run: &Value, kind: &str, key: &str) -> Option<String> {
    let pairs = run["data"][kind].as_array()?;
    let pair = pairs.iter().find(|pair| pair["key"] == key)?;
    Some(pair["value"].as_str()?.to_owned())
}
