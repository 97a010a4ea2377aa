//! Serving: the learner's actors and the order in which they stop.
//!
//! Invariant: who brings groups stops before the writer that makes them durable, and the writer before
//! the reporter that tells of them, so that no receipt is left out and no group is told too early.

use super::report::Reporter;
use super::steps::Steps;
use super::{Learner, Summary};
use crate::commit::directory;
use crate::error::LearnerError;
use crate::service::intake::{Intake, MAILBOX, Writer};
use crate::service::weights::{Outbox, Weights};
use octet_proto::PolicyVersion;
use octet_proto::auth::{Demand, JoinToken};
use octet_proto::learner::learner_server;
use octet_proto::transport::{KeepAlive, server};
use octet_proto::weights::weights_server;
use octet_runtime::CancellationToken;
use octet_runtime::mailbox::mailbox;
use octet_runtime::membership::Membership;
use octet_runtime::net::{self, Dialer};
use octet_runtime::supervise::{Context, Kind, Supervisor};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::Stream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::Connected;

/// The name that the learner has in logs and errors.
const NAME: &str = "learner";
/// What its services are called on the wire.
const SERVICES: [&str; 2] = ["octet.v1.LearnerService", "octet.v1.WeightsService"];
/// How long the writer and the last report may take at a shutdown.
const SHORT: Duration = Duration::from_secs(15);

impl Learner {
    /// Serves the connections of `incoming`, which workers reach at `endpoint`, until the run is
    /// complete or `shutdown`.
    ///
    /// # Errors
    /// A fault of the run, by name; what was committed is whole all the same.
    pub async fn serve<S, C, E>(
        self,
        incoming: S,
        endpoint: String,
        dialer: Dialer,
        shutdown: CancellationToken,
    ) -> Result<Summary, LearnerError>
    where
        S: Stream<Item = Result<C, E>> + Send + 'static,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let Self { config, recipe, rules, trainer, spool, board, pool, place, simulated, .. } =
            self;
        let outbox = Outbox(board.publication.clone());
        let membership = self
            .transport
            .map(|transport| Membership::join(transport, &board.waits, |_| Box::new(outbox)))
            .transpose()
            .map_err(|error| LearnerError::Threads {
                what: "octet-broadcast",
                reason: error.to_string(),
            })?;
        let patience = config.patience;
        let endpoint = config.endpoint.clone().unwrap_or(endpoint);
        let model = config.model.clone();
        let run = config.run.clone();
        let exact = config.device.is_cpu();
        let demand = Demand::new(JoinToken::new(&config.join_token), NAME);
        let reporter = Reporter::new(config, endpoint, &dialer, Arc::clone(&board), membership)?;
        let (address, inbox) = mailbox("spool", MAILBOX);
        board.queues.add(address.gauge());
        let writer = Writer { spool, mailbox: inbox, board: Arc::clone(&board), place, exact };
        let last = PolicyVersion(recipe.shape.steps.get());

        let serving = {
            let board = Arc::clone(&board);
            move |context: Context| async move {
                let stop = context.stop;
                let weights = Weights::new(board.publication.clone(), last, stop.clone());
                let intake = Intake { rules, board, writer: address, stop: stop.clone() };
                let router = server(KeepAlive::default())
                    .add_service(InterceptedService::new(learner_server(intake), demand.clone()))
                    .add_service(InterceptedService::new(weights_server(weights), demand));
                net::serve_public(NAME, &SERVICES, router, incoming, stop, patience.drain)
                    .await
                    .map(drop)
                    .map_err(LearnerError::from)
            }
        };
        let stepping = {
            let board = Arc::clone(&board);
            let steps = Steps { trainer, board, pool, patience, place, simulated };
            move |context: Context| steps.run(context.stop)
        };
        let first = patience.stop.max(patience.drain + Duration::from_secs(1));
        Supervisor::new(NAME)
            .stages([first, SHORT, SHORT])
            .actor(
                "reporter",
                Kind::Main,
                2,
                once(move |context: Context| reporter.run(context.stop)),
            )
            .actor("steps", Kind::Transient, 0, once(stepping))
            .actor("server", Kind::Essential, 0, once(serving))
            .actor(
                "spool",
                Kind::Essential,
                1,
                once(move |context: Context| writer.run(context.stop)),
            )
            .run(shutdown)
            .await?;

        let committed_steps = board.committed();
        Ok(Summary {
            committed_steps,
            complete: board.is_complete(),
            weights_digest: board.publication.newest_digest(),
            weights: if committed_steps == 0 { model } else { directory(&run, committed_steps) },
            totals: *board.totals.borrow(),
        })
    }
}

/// Actors that are never started again give away what they own.
fn once<F>(start: impl FnOnce(Context) -> F + Send + 'static) -> impl FnMut(Context) -> F + Send {
    let mut start = Some(start);
    move |context| match start.take() {
        Some(start) => start(context),
        None => unreachable!("only actors of the kind `Restarted` are started twice"),
    }
}
