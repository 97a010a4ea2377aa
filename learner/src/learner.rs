//! The running learner: opens what is on the disk, serves, learns, reports, stops in order.
//!
//! Invariants: it goes on from the last commit and the spool and from nothing else, so a learner that
//! was stopped or killed at any moment makes the same weights as one that was not. Every wait is in
//! the register with a name and a deadline. It ends when the coordinator knows that the run is
//! complete, when it is told to stop, or with a named error.

mod open;
mod report;
mod serve;
mod steps;

use crate::board::{Board, Handle, Totals};
use crate::config::{LearnerConfig, Recipe, RunShape};
use crate::error::LearnerError;
use crate::plan::MemoryPlan;
use crate::service::intake::Rules;
use crate::spool::Spool;
use crate::step::trainer::Trainer;
use crate::thread::{Place, on_thread};
use candle_core::{DType, Device};
use octet_broadcast::Factory;
use octet_proto::ConfigDigest;
use octet_runtime::CancellationToken;
use octet_runtime::net::{Dialer, Listener};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The spool's name in the run directory.
pub const SPOOL_FILE: &str = "spool.sqlite";
/// The metrics' name in the run directory.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// What a learner is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The run directory.
    pub run: PathBuf,
    /// The directory of version 0.
    pub model: PathBuf,
    /// Element type that the model computes with; the optimiser's weights are `f32`.
    pub dtype: DType,
    /// Where it computes; the optimiser works on the CPU.
    pub device: Device,
    /// `[learner]`.
    pub recipe: LearnerConfig,
    /// What the rest of the configuration says.
    pub shape: RunShape,
    /// The digest of the resolved configuration.
    pub config_digest: ConfigDigest,
    /// Where the coordinator is, `http://host:port`.
    pub coordinator: String,
    /// Shown to the coordinator, and demanded of workers.
    pub join_token: String,
    /// Where workers reach this learner; the listener's own address where there is none.
    pub endpoint: Option<String>,
    /// Threads to learn with; all of the machine where there is none. Changes no bit of the result.
    pub threads: Option<NonZeroUsize>,
    /// How long things may take.
    pub patience: Patience,
}

/// How long a learner waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the coordinator to come back, before the learner ends.
    pub coordinator: Duration,
    /// For a step's groups, before the log says which are missing. The wait goes on after that.
    pub groups: Duration,
    /// For a step's computation and commit, as `status` shows it.
    pub step: Duration,
    /// For open calls to end at a shutdown.
    pub drain: Duration,
    /// For a micro-batch or a commit to end at a shutdown.
    pub stop: Duration,
}

/// A learner that is ready to serve.
pub struct Learner {
    config: Config,
    recipe: Recipe,
    rules: Rules,
    plan: MemoryPlan,
    trainer: Trainer,
    spool: Spool,
    board: Arc<Board>,
    pool: Option<Arc<rayon::ThreadPool>>,
    place: Place,
    /// How long a step takes in a simulation.
    simulated: Duration,
    /// Makes the transport that it broadcasts weights with.
    transport: Option<Factory>,
}

/// How a learner ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Steps that are committed.
    pub committed_steps: u64,
    /// Whether these are all of the run's.
    pub complete: bool,
    /// The digest of the newest weights, hex.
    pub weights_digest: String,
    /// The directory of the newest weights.
    pub weights: PathBuf,
    /// The sums of this process.
    pub totals: Totals,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            coordinator: Duration::from_secs(600),
            groups: Duration::from_secs(60),
            step: Duration::from_secs(600),
            drain: Duration::from_secs(2),
            stop: Duration::from_secs(60),
        }
    }
}

impl Learner {
    /// For the process that the learner runs in.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.board))
    }

    /// For simulations, where one thread does everything and time is the test's: a step takes `step` of
    /// the runtime's time, and the spool none.
    #[must_use]
    pub fn simulated(self, step: Duration) -> Self {
        Self { place: Place::Here, simulated: step, ..self }
    }

    /// Broadcasts each new version over the transport that is made here, beside giving it out as ever.
    #[must_use]
    pub fn broadcasting(self, transport: Factory) -> Self {
        Self { transport: Some(transport), ..self }
    }

    /// The memory that its steps take.
    pub fn plan(&self) -> &MemoryPlan {
        &self.plan
    }
}

/// Opens a learner and serves until the run is complete or `shutdown`. See [`Learner`] for its parts.
///
/// # Errors
/// It cannot be opened, or fails while it serves; see [`LearnerError`].
pub async fn run(
    config: Config,
    listener: Listener,
    dialer: Dialer,
    shutdown: CancellationToken,
) -> Result<Summary, LearnerError> {
    let learner = on_thread("octet-open", move || Learner::open(config)).await??;
    let endpoint = listener.endpoint();
    learner.serve(listener.incoming(), endpoint, dialer, shutdown).await
}
