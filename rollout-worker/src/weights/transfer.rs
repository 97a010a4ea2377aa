//! One version on its way: from one source to the next until it is whole.
//!
//! Invariants: what was verified stays, whoever the next source is, and the transfer goes on at the byte
//! that is missing. A peer that gives something else than the learner published is named and dropped;
//! damage from the learner is counted, and an error after so many times. A silent source is given up
//! after a deadline. Nobody is blamed for bytes that another one sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use octet_proto::PolicyVersion;
use octet_proto::auth::{Line, is_unwelcome};
use octet_proto::error::describe;
use octet_proto::weights::{GetChunksRequest, GetManifestRequest, WeightsManifest, weights_client};
use octet_runtime::backoff::{Attempts, Backoff};
use octet_runtime::wait::WaitGuard;
use tokio::time::sleep;
use tonic::{Code, Status};

use super::error::{Damage, WeightsError};
use super::fetch::Fetcher;
use super::intake::Intake;
use super::manifest::{Manifest, Refused};
use super::route::{Route, Source};
use crate::error::WorkerError;

/// How long a call may take beyond what it asked to wait for.
const CALL: Duration = Duration::from_secs(10);
/// How long a peer may take to begin to hold a version. It is asked for one that it is about to fetch.
const HANDOVER: Duration = Duration::from_secs(2);

/// A version on its way.
pub(super) struct Transfer<'a> {
    fetcher: &'a mut Fetcher,
    version: PolicyVersion,
    pub(super) wait: WaitGuard,
    attempts: Attempts,
    damaged: u32,
    route: Route,
    /// The tensor, by its first byte, that holds bytes of more than one source.
    shared: Option<u64>,
    last: Option<Source>,
}

/// Why a source was left.
enum Left {
    /// It does not have the version, or not any more.
    Gone(Status),
    /// It broke or is silent.
    Broken(Status),
    /// What came is not what was published.
    Damaged(Damage),
    /// There is no going on.
    Never(Box<WorkerError>),
}

/// The bytes of a version's tensors, or nothing where the model directory has them.
pub(super) type Fetched = (Arc<Manifest>, Option<Vec<Bytes>>);

impl<'a> Transfer<'a> {
    pub(super) fn new(fetcher: &'a mut Fetcher, version: PolicyVersion) -> Self {
        let wait = fetcher.waits.enter("weights", format!("version {version}"), CALL);
        let attempts = Backoff::quick(fetcher.peers.seed ^ version.get()).attempts();
        let (route, shared, last) = (Route::default(), None, None);
        Self { fetcher, version, wait, attempts, damaged: 0, route, shared, last }
    }

    /// Goes from source to source until the version is there, for as long as that takes.
    pub(super) async fn run(&mut self) -> Result<Fetched, WorkerError> {
        let mut intake: Option<Intake> = None;
        loop {
            let source = self.pick().await;
            match self.take_from(&source, &mut intake).await {
                Ok(Some(manifest)) => return Ok((manifest, None)),
                Ok(None) => {}
                Err(Left::Never(error)) => return Err(*error),
                Err(Left::Gone(status)) => {
                    if source == Source::Learner {
                        // It may be another learner: look at its manifest anew.
                        intake = None;
                    }
                    self.wait.detail(self.at(&source, status.message()));
                    self.route.in_vain(&source);
                }
                Err(Left::Broken(status)) => self.broken(&source, &status),
                Err(Left::Damaged(damage)) => self.damaged(&source, damage)?,
            }
            if let Some(whole) = intake.take_if(|intake| intake.is_whole()) {
                let manifest = Arc::clone(whole.manifest());
                match whole.into_tensors() {
                    Ok(tensors) => return Ok((manifest, Some(tensors))),
                    Err(part) => intake = Some(part),
                }
            }
        }
    }

    /// The source to ask now; pauses when all were asked in vain.
    async fn pick(&mut self) -> Source {
        loop {
            let known = self.fetcher.sources.borrow().get(&self.version).cloned();
            let learner = self.fetcher.learner.address();
            if let Some(source) = self.route.next(known.as_ref(), &learner) {
                return source;
            }
            sleep(self.attempts.next_delay()).await;
        }
    }

    /// Takes what is missing from one source. The manifest alone is enough where the model directory
    /// has these weights.
    async fn take_from(
        &mut self,
        source: &Source,
        intake: &mut Option<Intake>,
    ) -> Result<Option<Arc<Manifest>>, Left> {
        let line = match source {
            Source::Learner => {
                let line = self.fetcher.learner.channel().await;
                line.map_err(|error| Left::Never(Box::new(error)))?
            }
            Source::Peer { endpoint, .. } => {
                let line = self.fetcher.peers.line(endpoint);
                line.map_err(|error| Left::Broken(Status::invalid_argument(error.to_string())))?
            }
        };
        let begun = match intake {
            Some(begun) => begun,
            None => {
                let manifest = Arc::new(self.manifest(source, line.clone()).await?);
                if manifest.digest() == self.fetcher.local.digest {
                    return Ok(Some(manifest));
                }
                let begun = intake.insert(Intake::new(Arc::clone(&manifest)));
                self.fetcher.shelf.begin(manifest, begun.verified());
                begun
            }
        };
        if self.last.as_ref() != Some(source) && !begun.is_between_tensors() {
            self.shared = Some(begun.tensor_start());
        }
        self.last = Some(source.clone());
        self.pull(source, line, begun).await.map(|()| None)
    }

    async fn manifest(&mut self, source: &Source, line: Line) -> Result<Manifest, Left> {
        let within = match source {
            Source::Learner => self.fetcher.limits.poll,
            Source::Peer { .. } => HANDOVER.min(self.fetcher.limits.poll),
        };
        let version = self.version;
        self.wait.detail(self.at(source, "manifest"));
        self.wait.extend(within + CALL);
        let wait_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
        let request = GetManifestRequest { version: version.get(), wait_ms };
        let mut client = weights_client(line);
        let answer = self.wait.run(client.get_manifest(request)).await;
        let message = answer.map_err(late)?.map_err(left)?.into_inner();
        self.check(source, message)
    }

    fn check(&self, source: &Source, message: WeightsManifest) -> Result<Manifest, Left> {
        let version = self.version;
        if let Source::Peer { digest, .. } = source
            && message.digest != digest.to_hex().as_str()
        {
            let (expected, found) = (digest.to_string(), message.digest.chars().take(80).collect());
            return Err(Left::Damaged(Damage::OtherDigest { version, expected, found }));
        }
        let specs = self.fetcher.local.model.trained().specs();
        Manifest::check(message, version, specs).map_err(|refused| match (refused, source) {
            (Refused::Damaged(damage), _) => Left::Damaged(damage),
            (Refused::Never(error), Source::Learner) => Left::Never(Box::new(error.into())),
            // The digest does not cover names and shapes; the learner's would fit.
            (Refused::Never(error), Source::Peer { .. }) => {
                Left::Damaged(Damage::Manifest { problem: error.to_string() })
            }
        })
    }

    /// Fills the intake until it is whole.
    async fn pull(&mut self, source: &Source, line: Line, intake: &mut Intake) -> Result<(), Left> {
        let mut client = weights_client(line);
        self.wait.extend(CALL);
        let request = GetChunksRequest { version: self.version.get(), offset: intake.offset() };
        let opened = self.wait.run(client.get_chunks(request)).await;
        let mut chunks = opened.map_err(late)?.map_err(left)?.into_inner();
        while !intake.is_whole() {
            let (offset, total) = (intake.offset(), intake.manifest().total());
            self.wait.detail(self.at(source, &format!("{offset} of {total} bytes")));
            self.wait.extend(self.fetcher.limits.chunk);
            let message = self.wait.run(chunks.message()).await.map_err(late)?.map_err(left)?;
            let Some(chunk) = message else {
                return Err(Left::Broken(Status::unavailable("the stream of chunks ended early")));
            };
            self.fetcher.handle.counters.received(source == &Source::Learner, chunk.data.len());
            intake.take(chunk.offset, &chunk.data).map_err(Left::Damaged)?;
            self.attempts.reset();
        }
        Ok(())
    }

    fn broken(&mut self, source: &Source, status: &Status) {
        self.route.in_vain(source);
        let (version, error) = (self.version.get(), describe(status));
        let peer = self.name(source);
        tracing::warn!(version, peer, error, "weights interrupted; going on with the next source");
        self.wait.detail(self.at(source, &error));
    }

    /// Drops a peer that lied; counts damage from the learner, too much of which is an error.
    fn damaged(&mut self, source: &Source, damage: Damage) -> Result<(), WeightsError> {
        self.fetcher.handle.counters.transfer_damaged();
        let (version, peer) = (self.version, self.name(source));
        let mixed =
            matches!(damage, Damage::Tensor { start, .. } if self.shared.take() == Some(start));
        match source {
            _ if mixed => {
                tracing::warn!(version = version.get(), error = %damage, "weights of two sources do not fit together; fetching the tensor again");
            }
            Source::Peer { .. } => {
                tracing::warn!(version = version.get(), peer, error = %damage, "a worker gives other weights than were published; it is not asked again");
                self.route.lied(source);
            }
            Source::Learner => {
                self.route.in_vain(source);
                self.damaged += 1;
                let times = self.damaged;
                if times >= self.fetcher.limits.transfer_attempts.get() {
                    return Err(WeightsError::Damaged { version, times, damage });
                }
                tracing::warn!(version = version.get(), times, error = %damage, "weights arrived damaged; fetching again");
            }
        }
        self.wait.detail(self.at(source, &damage.to_string()));
        Ok(())
    }

    fn name(&self, source: &Source) -> String {
        match source {
            Source::Peer { endpoint, .. } => endpoint.clone(),
            Source::Learner => self.fetcher.learner.address(),
        }
    }

    fn at(&self, source: &Source, what: &str) -> String {
        format!("version {} from {}: {what}", self.version, self.name(source))
    }
}

fn late(late: octet_runtime::wait::WaitedInVain) -> Left {
    Left::Broken(Status::deadline_exceeded(late.to_string()))
}

fn left(status: Status) -> Left {
    match status.code() {
        Code::NotFound => Left::Gone(status),
        _ if is_unwelcome(&status) => Left::Gone(status),
        _ => Left::Broken(status),
    }
}
