//! The shell around the machine: an actor that owns it, and the gRPC service in front.
//!
//! Invariant: nothing is decided here. The shell brings time, tokens, disk and network to the machine
//! and carries its answers out, never before what they depend on is durable.

mod actor;
mod admin;
mod grpc;
mod handle;
mod wire;

use std::fmt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use octet_proto::StepIndex;
use octet_proto::admin::admin_server;
use octet_proto::auth::{Demand, JoinToken};
use octet_proto::coordinator::coordinator_server;
use octet_proto::transport::{KeepAlive, server};
use octet_runtime::CancellationToken;
use octet_runtime::mailbox::{Address, mailbox};
use octet_runtime::net;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::Connected;

pub use handle::{Handle, Progress};

use crate::error::CoordinatorError;
use crate::examples::{Examples, Rows};
use crate::journal::{Journal, SqliteJournal};
use crate::machine::{Machine, Recovered, Reward};
use crate::plan::{RunPlan, Timing};
use actor::{Actor, Command};
use admin::Admin;
use grpc::Grpc;

/// The name that the service has in logs and errors.
const NAME: &str = "coordinator";
/// What its services are called on the wire.
const SERVICES: [&str; 2] = ["octet.v1.CoordinatorService", "octet.v1.CoordinatorAdminService"];
/// How many commands may wait for the actor. Each takes microseconds, but for journal writes.
const MAILBOX: usize = 1024;
/// The journal's name in the run directory.
pub const JOURNAL_FILE: &str = "coordinator.sqlite";

/// What a coordinator is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The run.
    pub plan: RunPlan,
    /// Its clocks.
    pub timing: Timing,
    /// The reward that the configuration names.
    pub reward: Reward,
    /// What callers show.
    pub join_token: JoinToken,
    /// The journal's file, usually [`JOURNAL_FILE`] in the run directory.
    pub journal: PathBuf,
    /// How long open calls may take to end at a shutdown.
    pub drain: Duration,
}

/// A coordinator that is ready to serve.
pub struct Coordinator {
    actor: Actor,
    grpc: Grpc,
    demand: Demand,
    admin: Admin,
    address: Address<Command>,
    progress: watch::Receiver<Progress>,
    drain: Duration,
}

impl Coordinator {
    /// Takes up the run from its journal, or begins it.
    ///
    /// # Errors
    /// The plan cannot be run, the data set or the reward is not the run's, or the journal cannot be
    /// used.
    pub fn open(config: Config, rows: Rows) -> Result<Self, CoordinatorError> {
        config.plan.validate()?;
        let plan = &config.plan;
        let (journal, recovered) =
            SqliteJournal::open(&config.journal, &plan.run_id, &plan.config_digest)?;
        Self::with_journal(config, rows, Box::new(journal), &recovered)
    }

    /// As [`Coordinator::open`], with a journal of another kind and what was read back from it.
    ///
    /// # Errors
    /// The plan cannot be run, or the data set or the reward is not the run's.
    pub fn with_journal(
        config: Config,
        rows: Rows,
        mut journal: Box<dyn Journal>,
        recovered: &Recovered,
    ) -> Result<Self, CoordinatorError> {
        let Config { plan, timing, reward, join_token, drain, .. } = config;
        plan.validate()?;
        timing.validate()?;
        if join_token.is_empty() {
            return Err(CoordinatorError::EmptyToken);
        }
        let examples = Arc::new(Examples::new(&plan, rows)?);
        let (run_id, total_steps) = (plan.run_id.clone(), plan.steps.get());
        let mut records = Vec::new();
        let machine = Machine::new(plan, timing, recovered, reward, &mut records)?;
        journal.append(&records)?;
        let (address, inbox) = mailbox(NAME, MAILBOX);
        let committed_steps = machine.committed().unwrap_or(0);
        let begun = Progress { committed_steps, total_steps, complete: machine.is_complete() };
        let (publish, progress) = watch::channel(begun);
        let actor = Actor::new(machine, journal, (inbox, address.gauge()), publish);
        let admin = Admin::new(address.clone(), Arc::clone(&examples));
        let grpc = Grpc::new(address.clone(), examples, run_id, timing);
        let demand = Demand::new(join_token, NAME);
        Ok(Self { actor, grpc, admin, demand, address, progress, drain })
    }

    /// Schedules reward swaps, each at the first step that it rewards, in rising order. A run that is taken
    /// up again has to be given the schedule that it began with; where the rewards answer may have changed.
    ///
    /// # Errors
    /// A step lies outside the run, the schedule is not the run's, or the journal cannot be written.
    pub fn with_schedule(
        mut self,
        schedule: &[(StepIndex, Reward)],
    ) -> Result<Self, CoordinatorError> {
        self.actor.schedule(schedule)?;
        Ok(self)
    }

    /// How long a broadcast of a version may take, instead of the usual time.
    #[must_use]
    pub fn with_broadcast_within(mut self, send: Duration) -> Self {
        self.actor.change_broadcast_timing(|timing| octet_broadcast::Timing { send, ..timing });
        self
    }

    /// Other clocks for the broadcasts of weights than the usual ones.
    #[must_use]
    pub fn with_broadcast_timing(mut self, timing: octet_broadcast::Timing) -> Self {
        self.actor.change_broadcast_timing(|_| timing);
        self
    }

    /// For the process that the coordinator runs in.
    pub fn handle(&self) -> Handle {
        Handle::new(self.address.clone(), self.progress.clone())
    }

    /// Serves the connections of `incoming` until `shutdown`; parked requests are answered at once
    /// then, and open calls have the configured time to end.
    ///
    /// # Errors
    /// The journal could not be written, the machine contradicted itself, or serving failed.
    pub async fn serve<S, C, E>(
        self,
        incoming: S,
        shutdown: CancellationToken,
    ) -> Result<(), CoordinatorError>
    where
        S: Stream<Item = Result<C, E>>,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let runs = InterceptedService::new(coordinator_server(self.grpc), self.demand.clone());
        let admin = InterceptedService::new(admin_server(self.admin), self.demand);
        let router = server(KeepAlive::default()).add_service(runs).add_service(admin);
        let (stop_server, stop_actor) = (shutdown.child_token(), CancellationToken::new());
        let stop = stop_server.clone();
        let serving = net::serve_public(NAME, &SERVICES, router, incoming, stop, self.drain);
        let (mut serving, mut acting) =
            (pin!(serving), pin!(self.actor.run(shutdown, stop_actor.clone())));
        tokio::select! {
            ended = &mut acting => {
                // Only an error ends the actor before it is stopped; the callers have to notice.
                stop_server.cancel();
                let served = serving.await;
                ended.and(served.map(drop).map_err(CoordinatorError::from))
            }
            served = &mut serving => {
                stop_actor.cancel();
                acting.await.and(served.map(drop).map_err(CoordinatorError::from))
            }
        }
    }
}

/// Opens a coordinator and serves until `shutdown`. See [`Coordinator`] for its parts.
///
/// # Errors
/// It cannot be opened, or fails while it serves.
pub async fn serve(
    listener: net::Listener,
    config: Config,
    rows: Rows,
    shutdown: CancellationToken,
) -> Result<(), CoordinatorError> {
    Coordinator::open(config, rows)?.serve(listener.incoming(), shutdown).await
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator").field("address", &self.address).finish_non_exhaustive()
    }
}
