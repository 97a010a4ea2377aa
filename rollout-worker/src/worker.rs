//! Wires the actors, runs them, and ends them in order.
//!
//! Invariants: who asks for work stops before who does it, so that what is under way can be
//! finished; every mailbox holds all that can be under way, so that no two actors wait for each
//! other's room.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use octet_broadcast::{Factory, Store};
use octet_policy::model::Model;
use octet_policy::policy::Policy;
use octet_policy::sampler::Sampler;
use octet_proto::auth::{Demand, JoinToken, Line};
use octet_proto::coordinator::coordinator_client;
use octet_proto::transport::{self, KeepAlive};
use octet_proto::weights::weights_server;
use octet_runtime::CancellationToken;
use octet_runtime::backoff::seed_of;
use octet_runtime::mailbox::mailbox;
use octet_runtime::membership::Membership;
use octet_runtime::net::{self, Dialer, NetError, Served};
use octet_runtime::supervise::{Context, Kind, Supervisor};
use octet_runtime::wait::Waits;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;
use tokio::time::Duration;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::{Connected, Router};

use crate::config::Config;
use crate::delivery::Delivery;
use crate::engine::Engine;
use crate::error::WorkerError;
use crate::groups::{Groups, Text};
use crate::leases::{Leases, Told};
use crate::peer::{Learner, Peers};
use crate::scoring::Scoring;
use crate::stats::Handle;
use crate::weights::{self, Fetcher, Librarian, Local, Serving, Shelf, Sources};

/// What the session may take beyond the drain, to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);
/// How long those who do the work may take to stop: one step of the engine, above all.
const STOP: Duration = Duration::from_secs(30);

/// What the service for other workers is called.
const WEIGHTS: &str = "rollout-worker's weights";
/// What that is on the wire.
const SERVICES: [&str; 1] = ["octet.v1.WeightsService"];
/// How long others may finish a transfer when this worker stops: they can go on elsewhere.
const DRAIN: Duration = Duration::from_secs(2);

/// A worker that is ready to run.
#[derive(Debug)]
pub struct Worker {
    config: Arc<Config>,
    dialer: Dialer,
    handle: Handle,
    shelf: Shelf,
    server: Option<Server>,
    /// Makes the transport that it takes part in broadcasts with.
    transport: Option<Factory>,
    /// How long a decoding step takes, in a simulation.
    simulated: Option<Duration>,
}

/// Serves a router until it is stopped, wherever its connections come from.
struct Server(Box<dyn FnOnce(Router, CancellationToken) -> Serve + Send>);

type Serve = Pin<Box<dyn Future<Output = Result<Served, NetError>> + Send>>;

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}

/// Runs a worker until the run is complete or `shutdown` is cancelled. See [`Worker`] for a handle.
///
/// # Errors
/// See [`Worker::run`].
pub async fn run(
    config: Config,
    dialer: Dialer,
    shutdown: CancellationToken,
) -> Result<(), WorkerError> {
    Worker::new(config, dialer)?.run(shutdown).await
}

impl Worker {
    /// A worker that speaks through `dialer`.
    ///
    /// # Errors
    /// The configuration holds what it cannot.
    pub fn new(config: Config, dialer: Dialer) -> Result<Self, WorkerError> {
        config.check()?;
        let handle = Handle::new(Waits::new());
        let (config, shelf) = (Arc::new(config), Shelf::default());
        Ok(Self { config, dialer, handle, shelf, server: None, transport: None, simulated: None })
    }

    /// Serves the versions that the worker holds on the connections of `incoming`, which others reach
    /// at `endpoint` unless the configuration names another one.
    #[must_use]
    pub fn serving<S, C, E>(mut self, incoming: S, endpoint: String) -> Self
    where
        S: Stream<Item = Result<C, E>> + Send + 'static,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let config = Arc::make_mut(&mut self.config);
        if config.weights_endpoint.is_empty() {
            config.weights_endpoint = endpoint;
        }
        self.shelf.serve();
        self.server = Some(Server(Box::new(|router, stop| {
            Box::pin(net::serve_public(WEIGHTS, &SERVICES, router, incoming, stop, DRAIN))
        })));
        self
    }

    /// Takes part in broadcasts of weights over the transport that is made here. What does not come by
    /// broadcast is fetched as ever.
    #[must_use]
    pub fn broadcasting(self, transport: Factory) -> Self {
        Self { transport: Some(transport), ..self }
    }

    /// For simulations, where one thread does everything and time is the test's: the engine computes
    /// on it, and each decoding step takes `step` of the runtime's time.
    #[must_use]
    pub fn simulated(self, step: Duration) -> Self {
        Self { simulated: Some(step), ..self }
    }

    /// Reads the worker's progress while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The policy versions that it holds, to be served to others.
    pub fn shelf(&self) -> Shelf {
        self.shelf.clone()
    }

    /// Loads the policy, joins the run, and works until the run is complete or `shutdown` is
    /// cancelled and what was under way is finished or given back.
    ///
    /// # Errors
    /// What does not pass by waiting; see [`WorkerError`].
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), WorkerError> {
        let (policy, local) = load(&self.config, self.simulated.is_some()).await?;
        let model = &local.model;
        let adapter = model.lora().map_or(0, |_| model.trained().count());
        self.handle.counters.set_parameters(model.params().count() + adapter);
        let supervisor = self.supervisor(policy, local)?;
        Ok(supervisor.run(shutdown).await?)
    }

    fn supervisor(self, policy: Policy, local: Local) -> Result<Supervisor, WorkerError> {
        let Self { config, dialer, handle, shelf, server, transport, simulated } = self;
        let waits = handle.waits.clone();
        let completions = config.completions_under_way();
        let groups = 2 * config.capacity.get() as usize;
        // Each completion is an event twice, as sampled and as scored, and a note once; the rest is once a group.
        let (events, inbox) = mailbox("groups", 2 * completions + 4 * groups + 64);
        let (to_engine, engine_inbox) = mailbox("engine", 4 * groups + 16);
        let (to_scoring, scoring_inbox) = mailbox("scoring", completions + groups + 64);
        let (to_delivery, delivery_inbox) = mailbox("delivery", groups + 16);
        let (to_librarian, librarian_inbox) = mailbox("weights", 4 * groups + 64);
        let (to_leases, notes) = mailbox("leases", completions + 4 * groups + 64);
        for gauge in [
            events.gauge(),
            to_engine.gauge(),
            to_scoring.gauge(),
            to_delivery.gauge(),
            to_librarian.gauge(),
            to_leases.gauge(),
        ] {
            handle.queues.add(gauge);
        }
        let (learner_at, address) = watch::channel(String::new());
        let (sources_at, sources) = watch::channel(Sources::new());
        let (drain, broken) = (CancellationToken::new(), CancellationToken::new());

        let dialled = dialer.dial(&config.coordinator, &config.client);
        let channel =
            dialled.map_err(|source| WorkerError::Address { peer: "coordinator", source })?;
        let token = JoinToken::new(&config.join_token);
        let peers = Peers {
            dialer: Arc::clone(&dialer),
            options: config.client.clone(),
            token: token.clone(),
            seed: seed_of(&config.name),
        };
        let seed = peers.seed;
        let learner = Learner::new(peers.clone(), address, waits.clone());
        let inbox_of = |expected| {
            let specs = local.model.trained().specs().to_vec();
            let librarian = to_librarian.clone();
            let (handle, runtime) = (handle.clone(), Runtime::current());
            Box::new(weights::Inbox { expected, specs, librarian, handle, runtime })
                as Box<dyn Store>
        };
        let membership = transport
            .map(|transport| Membership::join(transport, &waits, inbox_of))
            .transpose()
            .map_err(WorkerError::BroadcastThread)?;
        let sampling = config.sampling.with_stop_tokens(policy.stop_tokens());

        let leases = Leases {
            calls: coordinator_client(Line::new(channel, &token)),
            notes,
            told: Told {
                groups: events.clone(),
                librarian: to_librarian.clone(),
                learner: learner_at,
                sources: sources_at,
            },
            membership,
            shelf: shelf.clone(),
            config: Arc::clone(&config),
            waits: waits.clone(),
            handle: handle.clone(),
            drain: drain.clone(),
        };
        let hub = Groups {
            inbox,
            engine: to_engine,
            scoring: to_scoring,
            delivery: to_delivery,
            librarian: to_librarian,
            leases: to_leases,
            shelf: shelf.clone(),
            text: Text { policy },
            config: Arc::clone(&config),
            waits: waits.clone(),
            handle: handle.clone(),
            drain,
            broken: broken.clone(),
        };
        let engine = Engine {
            sampler: Sampler::new(sampling, config.max_rows.get()),
            completions: config.completions(),
            inbox: engine_inbox,
            events: events.clone(),
            handle: handle.clone(),
            simulated,
        };
        let scoring = Scoring {
            seed,
            inbox: scoring_inbox,
            events: events.clone(),
            dialer,
            options: config.client.clone(),
            limits: config.limits,
            waits: waits.clone(),
            handle: handle.clone(),
            room: completions,
        };
        let delivery = Delivery {
            inbox: delivery_inbox,
            events: events.clone(),
            learner: learner.clone(),
            patience: config.limits.receipt,
        };
        let fetcher = Fetcher {
            learner,
            peers,
            sources,
            shelf: shelf.clone(),
            limits: config.limits,
            waits,
            handle,
            dtype: config.dtype,
            device: config.device.clone(),
            local: Arc::new(local),
            simulated: simulated.is_some(),
        };
        let serving_handle = fetcher.handle.clone();
        let librarian = Librarian { fetcher, shelf: shelf.clone(), inbox: librarian_inbox, events };

        let once = Once { broken };
        let mut supervisor = Supervisor::new("rollout-worker")
            .stages([config.drain + GOODBYE, STOP])
            .actor("leases", Kind::Main, 0, once.start(Role::Session, |stop| leases.run(stop)))
            .actor("groups", Kind::Essential, 1, once.start(Role::Hand, |stop| hub.run(stop)))
            .actor("engine", Kind::Essential, 1, once.start(Role::Hand, |stop| engine.run(stop)))
            .actor("scoring", Kind::Essential, 1, once.start(Role::Hand, |stop| scoring.run(stop)))
            .actor(
                "delivery",
                Kind::Essential,
                1,
                once.start(Role::Hand, |stop| delivery.run(stop)),
            )
            .actor(
                "weights",
                Kind::Essential,
                1,
                once.start(Role::Hand, |stop| librarian.run(stop)),
            );
        if let Some(Server(serve)) = server {
            let serving = |stop: CancellationToken| async move {
                let weights = Serving::new(shelf, serving_handle, stop.clone());
                let service =
                    InterceptedService::new(weights_server(weights), Demand::new(token, WEIGHTS));
                let router = transport::server(KeepAlive::default()).add_service(service);
                serve(router, stop).await.map(drop).map_err(WorkerError::from)
            };
            let actor = once.start(Role::Hand, serving);
            supervisor = supervisor.actor("weights server", Kind::Essential, 1, actor);
        }
        Ok(supervisor)
    }
}

/// What it means that an actor has nothing to do any more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The run is complete.
    Session,
    /// Nothing: it goes on until it is stopped.
    Hand,
}

/// Starts actors that are never started again, and says at once when one has failed.
struct Once {
    broken: CancellationToken,
}

impl Once {
    fn start<S, F>(
        &self,
        role: Role,
        start: S,
    ) -> impl FnMut(
        Context,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), WorkerError>> + Send>>
    + Send
    + 'static
    where
        S: FnOnce(CancellationToken) -> F + Send + 'static,
        F: Future<Output = Result<(), WorkerError>> + Send + 'static,
    {
        let (broken, mut start) = (self.broken.clone(), Some(start));
        move |context| {
            let start = start.take().expect("main and essential actors are started once");
            let (broken, stop) = (broken.clone(), context.stop);
            let actor = start(stop.clone());
            Box::pin(async move {
                match actor.await {
                    // Whoever it had news for has stopped as well.
                    Err(WorkerError::Mailbox(closed))
                        if stop.is_cancelled() && closed.is_consequence() =>
                    {
                        Ok(())
                    }
                    Err(error) => {
                        broken.cancel();
                        Err(error)
                    }
                    Ok(()) if role == Role::Session => Ok(()),
                    // Nobody is left to give it work: whoever that was is the cause, and not this one.
                    Ok(()) => {
                        stop.cancelled().await;
                        Ok(())
                    }
                }
            })
        }
    }
}

/// The policy, and version 0, whose weights need not be fetched.
async fn load(config: &Config, simulated: bool) -> Result<(Policy, Local), WorkerError> {
    let (directory, dtype, device) = (config.model.clone(), config.dtype, config.device.clone());
    let adapter = config.adapter;
    let load = move || {
        let policy = Policy::load(&directory, dtype, &device)?;
        let mut model: Model = policy.model.clone();
        if let Some(adapter) = &adapter {
            model = model.with_fresh_lora(adapter)?;
            // Packed once, for all versions.
            model.freeze()?;
        }
        let digest = model.trained().digest()?;
        Ok((policy, Local { model, digest }))
    };
    let loaded = match simulated {
        true => Ok(load()),
        false => tokio::task::spawn_blocking(load).await,
    };
    let loaded = loaded.map_err(|lost| WorkerError::lost("loading the policy", &lost))?;
    loaded.map_err(WorkerError::Policy)
}
