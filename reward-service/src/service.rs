//! The gRPC service: `Describe`, and `Score` as a bidirectional stream.
//!
//! Invariants:
//! - each request read from a stream is answered exactly once, in any order, with a reward or a named failure;
//! - a stream has at most `max_in_flight` requests unanswered, and the process scores at most `threads`
//!   at once; what is beyond waits unread, so memory is bounded by the client's own back-pressure;
//! - scoring never runs on the runtime's own threads, so a slow function blocks nothing but its share;
//! - at shutdown no more requests are read, those read are answered, and the stream then ends with
//!   `UNAVAILABLE`, so that a client knows which to send elsewhere.

use std::{
    num::NonZeroUsize,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::available_parallelism,
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use octet_dataset::Example;
use octet_proto::{
    CONTRACT_VERSION,
    reward::{
        DescribeRequest, DescribeResponse, RewardService, ScoreFailure, ScoreOutcome, ScoreRequest,
        ScoreResponse, Scored, reward_server,
    },
    transport::{KeepAlive, server},
};
use octet_runtime::{
    CancellationToken,
    net::{self, Listener, NetError, Served},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tonic::{Request, Response, Status, Streaming, transport::server::Connected};

use crate::function::{RewardFunction, ScoreError, Verdict, score};
use meter::Meter;

pub mod client;
pub mod meter;
pub mod python;

const SERVICE: &str = "reward-service";
/// What the service is called on the wire.
const CONTRACT: &str = "octet.v1.RewardService";

/// How the service shares out its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    /// How many completions are scored at once.
    pub threads: NonZeroUsize,
    /// How many requests of one stream may be unanswered.
    pub max_in_flight: NonZeroUsize,
    /// How long scoring one completion may take, its wait for a thread not counted.
    pub score_timeout: Duration,
    /// How long what was read may take to be answered once the service shall stop.
    pub drain: Duration,
    /// When a silent peer is given up.
    pub keep_alive: KeepAlive,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self {
            threads: available_parallelism().unwrap_or(NonZeroUsize::MIN),
            max_in_flight: NonZeroUsize::MIN.saturating_add(255),
            score_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(10),
            keep_alive: KeepAlive::default(),
        }
    }
}

/// Serves one reward function on a listener until `shutdown`. See [`serve_on`].
///
/// # Errors
/// Serving failed.
pub async fn serve(
    listener: Listener,
    function: Arc<dyn RewardFunction>,
    settings: ServiceSettings,
    shutdown: CancellationToken,
) -> Result<Served, NetError> {
    serve_metered(listener, function, settings, Meter::default(), shutdown).await
}

/// As [`serve`], and counts what it does.
///
/// # Errors
/// Serving failed.
pub async fn serve_metered(
    listener: Listener,
    function: Arc<dyn RewardFunction>,
    settings: ServiceSettings,
    meter: Meter,
    shutdown: CancellationToken,
) -> Result<Served, NetError> {
    let address = listener.address();
    tracing::info!(%address, reward = function.name(), digest = function.digest(), "serving rewards");
    let scorer = Scorer { meter, ..Scorer::new(function, settings, shutdown.clone()) };
    serve_scorer(listener.incoming(), scorer, shutdown).await
}

/// Serves one reward function, with the standard gRPC health service beside it, on any stream of
/// connections until `shutdown`; then answers what was read, for at most `settings.drain`.
///
/// # Errors
/// Serving failed, or there will be no more connections though nobody asked to stop.
pub async fn serve_on<S, C, E>(
    incoming: S,
    function: Arc<dyn RewardFunction>,
    settings: ServiceSettings,
    shutdown: CancellationToken,
) -> Result<Served, NetError>
where
    S: Stream<Item = Result<C, E>>,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    serve_scorer(incoming, Scorer::new(function, settings, shutdown.clone()), shutdown).await
}

/// As [`serve_on`], with a scorer that stops at the same `shutdown`.
///
/// # Errors
/// As [`serve_on`].
pub async fn serve_scorer<S, C, E>(
    incoming: S,
    scorer: Scorer,
    shutdown: CancellationToken,
) -> Result<Served, NetError>
where
    S: Stream<Item = Result<C, E>>,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let ServiceSettings { keep_alive, drain, .. } = scorer.settings;
    let router = server(keep_alive).add_service(reward_server(scorer));
    net::serve_public(SERVICE, &[CONTRACT], router, incoming, shutdown, drain).await
}

/// The service's implementation, for those who bring their own server.
#[derive(Clone)]
pub struct Scorer {
    function: Arc<dyn RewardFunction>,
    threads: Arc<Semaphore>,
    /// How many completions were scored so far, in time or late.
    finished: Arc<AtomicU64>,
    settings: ServiceSettings,
    draining: CancellationToken,
    meter: Meter,
    /// How long scoring takes in a simulation; outside of one, as long as it takes.
    simulated: Option<Duration>,
}

impl Scorer {
    /// Serves `function` until `draining` is cancelled.
    pub fn new(
        function: Arc<dyn RewardFunction>,
        settings: ServiceSettings,
        draining: CancellationToken,
    ) -> Self {
        let threads = settings.threads.get().min(Semaphore::MAX_PERMITS);
        let threads = Arc::new(Semaphore::new(threads));
        let (finished, meter) = (Arc::default(), Meter::default());
        Self { function, threads, finished, settings, draining, meter, simulated: None }
    }

    /// For simulations, where one thread does everything and time is the test's: scoring a completion
    /// takes `each` of the runtime's time.
    #[must_use]
    pub fn simulated(self, each: Duration) -> Self {
        Self { simulated: Some(each), ..self }
    }

    async fn answer(self, request: ScoreRequest) -> ScoreResponse {
        let id = request.id;
        let (group, sample) = (request.group, request.sample);
        let open = self.meter.open();
        let outcome = match self.score(request).await {
            Ok(Verdict { reward, label, detail }) => {
                open.answered(None);
                ScoreOutcome::Scored(Scored { reward, verdict: label.into_owned(), detail })
            }
            Err(error) => {
                open.answered(Some(error.kind()));
                tracing::warn!(group, sample, kind = error.kind(), %error, "no reward given");
                ScoreOutcome::Failure(ScoreFailure {
                    kind: error.kind().to_owned(),
                    message: error.to_string(),
                    retryable: error.retryable(),
                })
            }
        };
        ScoreResponse { id, outcome: Some(outcome) }
    }

    async fn score(&self, request: ScoreRequest) -> Result<Verdict, ScoreError> {
        let threw = |message: String| ScoreError::Threw {
            function: self.function.name().to_owned(),
            message,
        };
        let permit = self.thread().await?;
        let (function, finished) = (Arc::clone(&self.function), Arc::clone(&self.finished));
        let work = move || {
            let example = Example::from_json(&request.example_json)
                .map_err(|faults| ScoreError::BadExample(faults.to_string()));
            let verdict =
                example.and_then(|example| score(function.as_ref(), &example, &request.completion));
            finished.fetch_add(1, Ordering::Relaxed);
            // Given back when the thread is free, not when its result is no longer waited for.
            drop(permit);
            verdict
        };
        if let Some(each) = self.simulated {
            sleep(each).await;
            return work();
        }
        let scoring = tokio::task::spawn_blocking(work);
        match timeout(self.settings.score_timeout, scoring).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(failed)) => Err(threw(failed.to_string())),
            Err(_) => Err(self.timed_out()),
        }
    }

    /// Waits for a free thread as long as others are being freed. When none is for a whole time limit,
    /// the function hangs on all of them, and a request that waited on would wait for ever.
    async fn thread(&self) -> Result<OwnedSemaphorePermit, ScoreError> {
        let mut free = pin!(Arc::clone(&self.threads).acquire_owned());
        loop {
            let finished = self.finished.load(Ordering::Relaxed);
            match timeout(self.settings.score_timeout, free.as_mut()).await {
                Ok(Ok(permit)) => return Ok(permit),
                Err(_) if self.finished.load(Ordering::Relaxed) != finished => {}
                Ok(Err(_)) | Err(_) => return Err(self.timed_out()),
            }
        }
    }

    fn timed_out(&self) -> ScoreError {
        let limit = self.settings.score_timeout;
        ScoreError::TimedOut { function: self.function.name().to_owned(), limit }
    }
}

#[tonic::async_trait]
impl RewardService for Scorer {
    async fn describe(
        &self,
        _: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        let range = self.function.range();
        Ok(Response::new(DescribeResponse {
            name: self.function.name().to_owned(),
            contract_version: CONTRACT_VERSION,
            digest: self.function.digest(),
            min_reward: range.min,
            max_reward: range.max,
            max_in_flight: u32::try_from(self.settings.max_in_flight.get()).unwrap_or(u32::MAX),
        }))
    }

    type ScoreStream = Pin<Box<dyn Stream<Item = Result<ScoreResponse, Status>> + Send>>;

    async fn score(
        &self,
        requests: Request<Streaming<ScoreRequest>>,
    ) -> Result<Response<Self::ScoreStream>, Status> {
        let scorer = self.clone();
        let draining = self.draining.clone();
        let answers = requests
            .into_inner()
            .take_until(self.draining.clone().cancelled_owned())
            .map(move |request| {
                let scorer = scorer.clone();
                async move {
                    match request {
                        Ok(request) => Ok(scorer.answer(request).await),
                        Err(broken) => Err(broken),
                    }
                }
            })
            .buffer_unordered(self.settings.max_in_flight.get());
        let farewell = stream::once(async move {
            let gone =
                "the reward service is shutting down; send what is unanswered to another replica";
            draining.is_cancelled().then(|| Err(Status::unavailable(gone)))
        });
        Ok(Response::new(Box::pin(answers.chain(farewell.filter_map(std::future::ready)))))
    }
}
