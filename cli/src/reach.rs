//! How a command finds the coordinator of a run: by its directory on this machine, or by address and token.

use crate::network::NetworkArgs;
use anyhow::{Context, Result, bail};
use clap::Args;
use octet_proto::auth::{JoinToken, Line};
use octet_proto::transport::ClientOptions;
use octet_runtime::net::Dialer;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file of a run directory that says where its coordinator answers.
pub const REACH_FILE: &str = "coordinator.json";

/// Where a run's coordinator answers and what opens it, as a run writes it down for its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// `http://host:port`.
    pub coordinator: String,
    /// The run's join token.
    pub join_token: String,
}

/// A way to a coordinator.
pub struct Reached {
    /// Its address.
    pub coordinator: String,
    /// Calls on it show the run's token.
    pub line: Line,
    /// How others are dialled.
    pub dialer: Dialer,
}

/// Which run.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The directory of a run on this machine.
    #[arg(long, value_name = "DIRECTORY", required_unless_present = "coordinator")]
    run: Option<PathBuf>,
    /// The coordinator, http://host:port.
    #[arg(long, value_name = "URL", conflicts_with = "run", requires = "join_token")]
    coordinator: Option<String>,
    /// The run's join token.
    #[arg(long, env = "OCTET_JOIN_TOKEN", hide_env_values = true)]
    join_token: Option<String>,
    #[command(flatten)]
    network: NetworkArgs,
}

impl RunArgs {
    /// Opens a way to the coordinator; nothing is asked yet.
    ///
    /// # Errors
    /// It is not said where the coordinator is, or it cannot be dialled.
    pub fn dial(&self, options: &ClientOptions) -> Result<Reached> {
        let Reach { coordinator, join_token } = self.reach()?;
        let dialer: Dialer = Arc::new(self.network.exposure()?);
        let channel = dialer.dial(&coordinator, options)?;
        let line = Line::new(channel, &JoinToken::new(join_token));
        Ok(Reached { coordinator, line, dialer })
    }

    fn reach(&self) -> Result<Reach> {
        match (&self.run, &self.coordinator, &self.join_token) {
            (Some(run), ..) => Reach::read(run),
            (None, Some(coordinator), Some(join_token)) => {
                let (coordinator, join_token) = (coordinator.clone(), join_token.clone());
                Ok(Reach { coordinator, join_token })
            }
            _ => bail!(
                "expected --run DIRECTORY, or --coordinator URL with --join-token, found neither"
            ),
        }
    }
}

impl Reach {
    /// Reads what a run wrote down.
    pub fn read(run: &Path) -> Result<Self> {
        let path = run.join(REACH_FILE);
        let text = std::fs::read(&path).with_context(|| {
            format!("reading {}: is {} a run that goes on now?", path.display(), run.display())
        })?;
        serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
    }
}

/// Runs something asynchronous to its end.
pub fn block_on<T>(task: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("starting the async runtime")?.block_on(task)
}
