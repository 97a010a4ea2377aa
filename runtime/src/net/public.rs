//! What every node says to anybody who may connect: whether it is well, and which services it has.
//!
//! Invariants: both answer without a join token, so neither reads a message larger than a question nor has
//! more than [`MOST_ASKED`] calls open over all connections; a node that stops says so, and does not wait
//! for those who watch it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use http_body_util::BodyExt;
use octet_proto::FILE_DESCRIPTOR_SET;
use octet_proto::transport::MAX_QUESTION_BYTES;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::server::{Connected, Router};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::{NetError, Served, serve};

/// The most calls for health or reflection that are open at once.
pub const MOST_ASKED: usize = 256;
/// How long those who watch a node's health have to hear that it stops.
const FAREWELL: Duration = Duration::from_millis(100);

/// As [`serve`], with the standard health service and server reflection beside the router's services, which
/// are called `services` on the wire, e.g. `octet.v1.LearnerService`.
///
/// # Errors
/// See [`serve`].
pub async fn serve_public<S, C, E>(
    service: &'static str,
    services: &[&'static str],
    router: Router,
    incoming: S,
    shutdown: CancellationToken,
    drain: Duration,
) -> Result<Served, NetError>
where
    S: Stream<Item = Result<C, E>>,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut reporter = HealthReporter::new();
    for name in services {
        reporter.set_service_status(*name, ServingStatus::Serving).await;
    }
    let room = Arc::new(Semaphore::new(MOST_ASKED));
    let health = HealthServer::new(HealthService::from_health_reporter(reporter.clone()))
        .max_decoding_message_size(MAX_QUESTION_BYTES);
    let router = router.add_service(Bounded { inner: health, room: Arc::clone(&room) });
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    let reflection = reflection.map_err(|error| NetError::Ended {
        service,
        problem: format!("its contracts cannot be reflected: {error}"),
    })?;
    let reflection = reflection.max_decoding_message_size(MAX_QUESTION_BYTES);
    let router = router.add_service(Bounded { inner: reflection, room });
    let serving = serve(service, router, incoming, shutdown.clone(), drain);
    let telling = async {
        shutdown.cancelled().await;
        for name in services.iter().copied().chain([""]) {
            reporter.set_service_status(name, ServingStatus::NotServing).await;
        }
        tokio::time::sleep(FAREWELL).await;
        // Their calls would be open until the drain is over.
        for name in services.iter().copied().chain([""]) {
            reporter.clear_service_status(name).await;
        }
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        served = serving => served,
        never = telling => match never {},
    }
}

/// A service of which only so many calls are open at once, all connections together.
#[derive(Clone)]
struct Bounded<S> {
    inner: S,
    room: Arc<Semaphore>,
}

impl<S: NamedService> NamedService for Bounded<S> {
    const NAME: &'static str = S::NAME;
}

type Answering = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl<S> Service<http::Request<Body>> for Bounded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Answering {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            let full = format!("{MOST_ASKED} such calls are open already: try again later");
            let refusal = Status::resource_exhausted(full).into_http();
            return Box::pin(std::future::ready(Ok(refusal)));
        };
        let answering = self.inner.call(request);
        Box::pin(async move {
            // Held until the answer's last byte is sent, or its reader has gone.
            let answer = answering.await?;
            Ok(answer.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _held = &permit;
                    frame
                }))
            }))
        })
    }
}
