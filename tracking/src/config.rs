//! `[tracking]`, and what it means once the environment was asked.
//!
//! Invariants: a server that the recipe does not name is not spoken to, whatever the environment says. A password
//! is never part of the recipe, since the recipe is what is tracked, and is not sent in plain text unless that is
//! asked for.

use crate::error::TrackingError;
use crate::mlflow::{Credentials, Settings, is_loopback};
use crate::names::Names;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// `tracking.mlflow = "env"`: the server is the one that `MLFLOW_TRACKING_URI` names.
pub const FROM_ENVIRONMENT: &str = "env";

const URI: &str = "MLFLOW_TRACKING_URI";
const TOKEN: &str = "MLFLOW_TRACKING_TOKEN";
const USER: &str = "MLFLOW_TRACKING_USERNAME";
const PASSWORD: &str = "MLFLOW_TRACKING_PASSWORD";
const CERTIFICATES: &str = "MLFLOW_TRACKING_SERVER_CERT_PATH";

/// How a run is tracked. Nothing is, by default. Changes no bit of the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The MLflow server, `http://host:port` or `https://host:port`, or "env" for `MLFLOW_TRACKING_URI`.
    pub mlflow: Option<String>,
    /// The experiment that the run belongs to.
    pub experiment: String,
    /// What the run is called; its directory's name where there is none.
    pub run_name: Option<String>,
    /// Whether event files for TensorBoard are written, and into which directory.
    pub tensorboard: EventFiles,
    /// Whose names the metrics have: "trl", "verl" or "octet".
    pub names: Names,
    /// How long the end of the run waits for the server to have everything.
    #[serde(with = "octet_runtime::config::duration")]
    pub patience: Duration,
    /// Whether a token or a password may be sent to another machine unencrypted.
    pub credentials_in_plain_text: bool,
}

/// Whether and where event files are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum EventFiles {
    /// `true`: into the run directory. `false`: nowhere.
    InRun(bool),
    /// Into a folder of the run's name in this directory.
    Below(PathBuf),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mlflow: None,
            experiment: "octet".into(),
            run_name: None,
            tensorboard: EventFiles::InRun(false),
            names: Names::default(),
            patience: Duration::from_secs(30),
            credentials_in_plain_text: false,
        }
    }
}

impl EventFiles {
    /// The folder for the event files of the run `name` in `run`, if they are wanted.
    pub fn folder(&self, run: &Path, name: &str) -> Option<PathBuf> {
        match self {
            Self::InRun(false) => None,
            Self::InRun(true) => Some(run.join("tensorboard")),
            Self::Below(directory) => Some(directory.join(name)),
        }
    }
}

impl<'de> Deserialize<'de> for EventFiles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = EventFiles;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or a directory")
            }

            fn visit_bool<E>(self, wanted: bool) -> Result<EventFiles, E> {
                Ok(EventFiles::InRun(wanted))
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<EventFiles, E> {
                match path {
                    "" => Err(E::invalid_value(de::Unexpected::Str(path), &self)),
                    path => Ok(EventFiles::Below(path.into())),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Config {
    /// Whether anything is tracked.
    pub fn is_on(&self) -> bool {
        self.mlflow.is_some() || self.tensorboard != EventFiles::InRun(false)
    }

    /// The MLflow server, if one is wanted. `variable` gives the environment's.
    ///
    /// # Errors
    /// An address, a name or a variable that does not hold.
    pub fn server(
        &self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Settings>, TrackingError> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let Some(said) = &self.mlflow else { return Ok(None) };
        let key = |key, expected: &str, found: &str| TrackingError::Key {
            key,
            expected: expected.to_owned(),
            found: found.to_owned(),
        };
        let from_environment = said == FROM_ENVIRONMENT;
        let url = if from_environment {
            let missing = || TrackingError::Variable {
                variable: URI,
                expected: "the address of the MLflow server, since tracking.mlflow is \"env\""
                    .into(),
                found: "nothing".into(),
            };
            variable(URI).ok_or_else(missing)?
        } else {
            said.clone()
        };
        let (base, host, encrypted) = address(&url).map_err(|(expected, found)| {
            if from_environment {
                TrackingError::Variable { variable: URI, expected, found }
            } else {
                TrackingError::Key { key: "mlflow", expected, found }
            }
        })?;
        if self.experiment.trim().is_empty() || self.experiment.chars().count() > 500 {
            return Err(key("experiment", "a name of at most 500 characters", &self.experiment));
        }
        let credentials = Credentials::new(variable(USER), variable(PASSWORD), variable(TOKEN))?;
        if credentials.is_some()
            && !encrypted
            && !is_loopback(&host)
            && !self.credentials_in_plain_text
        {
            let expected = "an https:// address, or tracking.credentials_in_plain_text = true, \
                            since the environment holds credentials for MLflow";
            return Err(key("mlflow", expected, &base));
        }
        let authority = variable(CERTIFICATES).map(PathBuf::from);
        let experiment = self.experiment.clone();
        Ok(Some(Settings { base, host, experiment, credentials, authority }))
    }
}

/// The address without a slash at its end, its host, and whether it is spoken to encrypted; or what was expected
/// and what was found.
fn address(url: &str) -> Result<(String, String, bool), (String, String)> {
    let expected = || "http://host:port or https://host:port, or \"env\"".to_owned();
    let bad = |found: &str| (expected(), found.to_owned());
    let uri: ureq::http::Uri = url.trim().parse().map_err(|_| bad(url))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(bad(url));
    };
    if !matches!(scheme, "http" | "https") || authority.host().is_empty() || uri.query().is_some() {
        return Err(bad(url));
    }
    if authority.as_str().contains('@') {
        let expected = format!("no user in the address: {USER} and {PASSWORD} are for that");
        return Err((expected, format!("{scheme}://…@{}", authority.host())));
    }
    let path = uri.path().trim_end_matches('/');
    let base = format!("{scheme}://{authority}{path}");
    Ok((base, authority.host().to_owned(), scheme == "https"))
}
