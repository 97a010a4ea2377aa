//! The run's place on the server: the experiment, its parent run, and the run below that.
//!
//! Invariant: each is looked for before it is created, and again after, so whatever happens to an answer there is
//! one of each in the end: the oldest, for everybody who looks.

use super::{Failure, Server};
use crate::journal::Bound;
use serde_json::{Value, json};

/// Marks the parent run of an experiment.
const KIND: &str = "octet.kind";
/// What the parent's mark says.
const PARENT: &str = "experiment";
/// Says which journal a run was made from.
const JOURNAL: &str = "octet.journal";
/// The most runs that a search shows; there is one, or a few where two nodes began at the same moment.
const MOST: usize = 50;

/// What a run is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// What names the journal.
    pub key: String,
    /// What the run is called.
    pub name: String,
    /// When it began, in milliseconds since 1970.
    pub begun_ms: i64,
    /// Who began it, where that is known.
    pub user: Option<String>,
}

impl Server {
    /// Finds the run of a journal, or creates it.
    ///
    /// # Errors
    /// The first call that fails. What was created until then is found the next time.
    pub fn bind(&self, binding: &Binding) -> Result<Bound, Failure> {
        let experiment_id = self.experiment()?;
        let parent_id = self.parent(&experiment_id, binding)?;
        let run = match self.oldest(&experiment_id, JOURNAL, &binding.key)? {
            Some(run) => run,
            None => {
                let mut tags = vec![
                    tag(JOURNAL, &binding.key),
                    tag("mlflow.parentRunId", &parent_id),
                    tag("mlflow.source.name", "octet"),
                    tag("mlflow.source.type", "LOCAL"),
                ];
                tags.extend(binding.user.as_ref().map(|user| tag("mlflow.user", user)));
                self.create(&experiment_id, &binding.name, binding.begun_ms, tags)?
            }
        };
        Ok(Bound {
            experiment_id,
            parent_id,
            run_id: text(&run, "run_id")?,
            artifact_uri: text(&run, "artifact_uri")?,
        })
    }

    /// Deletes runs of the same journal that an answer which never came made twice.
    pub(super) fn settle(&self, bound: &Bound, key: &str) -> Result<(), Failure> {
        for run in self.search(&bound.experiment_id, JOURNAL, key)? {
            let id = text(&run, "run_id")?;
            if id != bound.run_id {
                self.post("runs/delete", &json!({"run_id": id}))?;
            }
        }
        Ok(())
    }

    /// Whether a run is there and was not deleted.
    pub(super) fn is_active(&self, run_id: &str) -> Result<bool, Failure> {
        match self.get(&format!("runs/get?run_id={run_id}")) {
            Ok(found) => Ok(found["run"]["info"]["lifecycle_stage"] == "active"),
            Err(failure) if failure.is("RESOURCE_DOES_NOT_EXIST") => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    fn experiment(&self) -> Result<String, Failure> {
        let name = &self.settings().experiment;
        let by_name = format!("experiments/get-by-name?experiment_name={}", encoded(name));
        let found = match self.get(&by_name) {
            Err(failure) if failure.is("RESOURCE_DOES_NOT_EXIST") => {
                match self.post("experiments/create", &json!({"name": name})) {
                    Ok(made) => return text(&made, "experiment_id"),
                    // Somebody else was quicker.
                    Err(failure) if failure.is("RESOURCE_ALREADY_EXISTS") => self.get(&by_name)?,
                    Err(failure) => return Err(failure),
                }
            }
            other => other?,
        };
        let found = &found["experiment"];
        if found["lifecycle_stage"] == "deleted" {
            let message = format!(
                "the experiment {name} was deleted: restore it there, or give tracking.experiment another name"
            );
            return Err(Failure::Stranger(message));
        }
        text(found, "experiment_id")
    }

    fn parent(&self, experiment_id: &str, binding: &Binding) -> Result<String, Failure> {
        if let Some(found) = self.oldest(experiment_id, KIND, PARENT)? {
            return text(&found, "run_id");
        }
        let mut tags = vec![tag(KIND, PARENT), tag("mlflow.source.name", "octet")];
        tags.extend(binding.user.as_ref().map(|user| tag("mlflow.user", user)));
        let name = &self.settings().experiment;
        let made = text(&self.create(experiment_id, name, binding.begun_ms, tags)?, "run_id")?;
        // It stands for all of its runs and does nothing itself.
        self.post(
            "runs/update",
            &json!({"run_id": made, "status": "FINISHED", "end_time": binding.begun_ms}),
        )?;
        let oldest = match self.oldest(experiment_id, KIND, PARENT)? {
            Some(oldest) => text(&oldest, "run_id")?,
            None => made.clone(),
        };
        if oldest != made {
            self.post("runs/delete", &json!({"run_id": made}))?;
        }
        Ok(oldest)
    }

    fn create(
        &self,
        experiment_id: &str,
        name: &str,
        begun_ms: i64,
        tags: Vec<Value>,
    ) -> Result<Value, Failure> {
        let body = json!({
            "experiment_id": experiment_id,
            "run_name": name,
            "start_time": begun_ms,
            "tags": tags,
        });
        let made = self.post("runs/create", &body)?;
        Ok(made["run"]["info"].clone())
    }

    fn oldest(
        &self,
        experiment_id: &str,
        tag: &str,
        value: &str,
    ) -> Result<Option<Value>, Failure> {
        let found = self.search(experiment_id, tag, value)?.into_iter();
        let age = |run: &Value| {
            let id = run["run_id"].as_str().unwrap_or_default().to_owned();
            (run["start_time"].as_i64().unwrap_or(i64::MAX), id)
        };
        Ok(found.min_by_key(age))
    }

    /// The runs that are there with this tag. The value needs no quoting.
    fn search(&self, experiment_id: &str, tag: &str, value: &str) -> Result<Vec<Value>, Failure> {
        let body = json!({
            "experiment_ids": [experiment_id],
            "filter": format!("tags.`{tag}` = '{value}'"),
            "run_view_type": "ACTIVE_ONLY",
            "max_results": MOST,
            "order_by": ["attributes.start_time ASC"],
        });
        let found = self.post("runs/search", &body)?;
        let runs = found.get("runs").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(runs.into_iter().map(|mut run| run["info"].take()).collect())
    }
}

fn tag(key: &str, value: &str) -> Value {
    json!({"key": key, "value": value})
}

fn text(answer: &Value, name: &str) -> Result<String, Failure> {
    let found = answer.get(name).and_then(Value::as_str);
    found.map(str::to_owned).ok_or_else(|| Failure::Stranger(format!("an answer without {name}")))
}

/// A text as part of an address.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn a_name_is_encoded_for_an_address() {
        assert_eq!(encoded("/Users/me & you/ä"), "%2FUsers%2Fme%20%26%20you%2F%C3%A4");
    }
}
