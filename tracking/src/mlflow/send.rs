//! One planned call, made.
//!
//! Invariant: what is sent depends on the plan and on the files of the run directory alone, so it is the same when
//! it is sent again.

use super::bind::encoded;
use super::{Failure, Server};
use crate::journal::Bound;
use crate::outbox::{Batch, Call, Metric};
use serde_json::{Value, json};
use std::path::Path;

impl Server {
    /// Makes the call; `directory` is the run's, `key` names its journal.
    ///
    /// # Errors
    /// Why the server does not have it, as far as is known.
    pub fn send(
        &self,
        bound: &Bound,
        key: &str,
        directory: &Path,
        call: &Call,
    ) -> Result<(), Failure> {
        match call {
            Call::Batch(batch) => self.post("runs/log-batch", &body(bound, batch)).map(drop),
            Call::Upload { file } => self.upload(bound, directory, file),
            Call::Status { status, at_ms } => {
                let mut update = json!({"run_id": bound.run_id, "status": status.name()});
                if status.is_end() {
                    update["end_time"] = json!(at_ms);
                    self.settle(bound, key)?;
                }
                self.post("runs/update", &update)?;
                if status.is_end() {
                    update["run_id"] = json!(bound.parent_id);
                    update["status"] = json!("FINISHED");
                    // Somebody may have deleted the parent; the run stands without it.
                    match self.post("runs/update", &update) {
                        Err(Failure::Refused { .. }) => {}
                        other => drop(other?),
                    }
                }
                Ok(())
            }
        }
    }

    /// Whether the run is there to be written to.
    ///
    /// # Errors
    /// The server does not say.
    pub fn has(&self, bound: &Bound) -> Result<bool, Failure> {
        self.is_active(&bound.run_id)
    }

    /// Where people look at the run.
    pub fn page(&self, bound: &Bound) -> String {
        let Bound { experiment_id, run_id, .. } = bound;
        format!("{}/#/experiments/{experiment_id}/runs/{run_id}", self.settings().base)
    }

    fn upload(&self, bound: &Bound, directory: &Path, file: &str) -> Result<(), Failure> {
        let refused = |code: &str, message: String| Failure::Refused { code: code.into(), message };
        let place = self.place(&bound.artifact_uri).ok_or_else(|| {
            let at = crate::flatten::cut(&bound.artifact_uri, 200);
            let message = format!(
                "the server keeps files at {at}, where only its own clients can put them: start it with \
                 --artifacts-destination and without --default-artifact-root"
            );
            refused("NO_PROXY", message)
        })?;
        let path = directory.join(file);
        let content = std::fs::read(&path)
            .map_err(|error| refused("NO_FILE", format!("{}: {error}", path.display())))?;
        let name: Vec<String> = file.split('/').map(encoded).collect();
        self.put(&format!("{place}/{}", name.join("/")), &content)
    }

    /// The address below which the server takes files for itself to keep, from where it says that they are.
    fn place(&self, artifact_uri: &str) -> Option<String> {
        let rest = artifact_uri.strip_prefix("mlflow-artifacts:")?;
        let path = match rest.strip_prefix("//") {
            // With a host: only this server's own, since the call carries credentials.
            Some(with_host) => {
                let (host, path) = with_host.split_once('/')?;
                let own = self.settings().base.split_once("://").map(|(_, rest)| rest);
                let own = own.and_then(|rest| rest.split('/').next());
                (own == Some(host)).then_some(path)?
            }
            None => rest.trim_start_matches('/'),
        };
        let path = path.trim_end_matches('/');
        Some(format!("{}/api/2.0/mlflow-artifacts/artifacts/{path}", self.settings().base))
    }
}

fn body(bound: &Bound, batch: &Batch) -> Value {
    let pairs = |pairs: &[(String, String)]| -> Vec<Value> {
        pairs.iter().map(|(key, value)| json!({"key": key, "value": value})).collect()
    };
    let metric = |metric: &Metric| {
        json!({
            "key": metric.key, "value": metric.value, "timestamp": metric.at_ms, "step": metric.step,
        })
    };
    json!({
        "run_id": bound.run_id,
        "params": pairs(&batch.params),
        "tags": pairs(&batch.tags),
        "metrics": batch.metrics.iter().map(metric).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::event::Number;
    use crate::mlflow::Settings;

    fn server(base: &str) -> Server {
        let text = |text: &str| text.to_owned();
        let settings = Settings {
            base: text(base),
            host: text("host"),
            experiment: text("octet"),
            credentials: None,
            authority: None,
        };
        Server::new(settings).unwrap()
    }

    #[test]
    fn files_go_through_the_server_or_not_at_all() {
        let server = server("https://host:1/mlflow");
        let place = |uri| server.place(uri);
        let own = "https://host:1/mlflow/api/2.0/mlflow-artifacts/artifacts/7/abc/artifacts";
        assert_eq!(place("mlflow-artifacts:/7/abc/artifacts").unwrap(), own);
        assert_eq!(place("mlflow-artifacts://host:1/7/abc/artifacts/").unwrap(), own);
        assert_eq!(place("mlflow-artifacts://elsewhere/7/abc/artifacts"), None);
        assert_eq!(place("s3://bucket/7/abc/artifacts"), None);
        assert_eq!(place("/mlruns/7/abc/artifacts"), None);
    }

    #[test]
    fn a_number_that_json_lacks_is_sent_as_a_text() {
        let text = |text: &str| text.to_owned();
        let metric = Metric { key: text("loss"), value: Number(f64::NAN), at_ms: 5, step: 2 };
        let batch = Batch { metrics: vec![metric], ..Batch::default() };
        let bound = Bound {
            experiment_id: text("1"),
            parent_id: text("p"),
            run_id: text("r"),
            artifact_uri: text(""),
        };
        let expected = json!([{"key": "loss", "value": "NaN", "timestamp": 5, "step": 2}]);
        assert_eq!(body(&bound, &batch)["metrics"], expected);
    }
}
