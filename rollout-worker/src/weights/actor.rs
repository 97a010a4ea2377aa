//! Sees to it that the versions that are wanted are on the shelf.
//!
//! Invariants: one version is fetched at a time, the oldest that a group waits for first; the newest
//! published one is fetched ahead when nothing else is to be done. A version that a broadcast is about to
//! bring is not fetched until its deadline, and one that was broadcast not at all.

use std::collections::BTreeSet;
use std::time::Duration;

use octet_proto::PolicyVersion;
use octet_runtime::CancellationToken;
use octet_runtime::mailbox::{Address, Mailbox};
use octet_runtime::wait::WaitGuard;
use tokio::task::JoinError;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::broadcast::Arrival;
use super::fetch::Fetcher;
use super::shelf::{Held, Shelf};
use crate::error::WorkerError;
use crate::groups::Event;

/// How long news may wait for room.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the librarian is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    /// These versions, and no others, are waited for.
    Wanted(BTreeSet<PolicyVersion>),
    /// This is the newest published version.
    Newest(PolicyVersion),
    /// A version came by broadcast.
    Arrived(Arrival),
}

/// The actor.
pub(crate) struct Librarian {
    pub fetcher: Fetcher,
    pub shelf: Shelf,
    pub inbox: Mailbox<Command>,
    pub events: Address<Event>,
}

/// A fetch under way.
struct Fetching {
    version: PolicyVersion,
    task: AbortOnDropHandle<Result<Held, WorkerError>>,
}

impl Librarian {
    /// Fetches until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), WorkerError> {
        let (mut wanted, mut newest) = (BTreeSet::new(), None);
        let mut fetching: Option<Fetching> = None;
        // A version that was broadcast, of which a model is being made.
        let mut taking: Option<Fetching> = None;
        let mut sources = self.fetcher.sources.clone();
        let mut brought = Brought::default();
        loop {
            let under_way = taking.as_ref().map(|taking| taking.version);
            let next = self.next(&wanted, newest, under_way);
            let (next, wake) = brought.fetch_now(next, &self.fetcher);
            let idle_for = |fetching: &Fetching| next.is_some_and(|next| next != fetching.version);
            // Nobody wants what is being fetched any more, or something else is more urgent.
            if fetching.as_ref().is_some_and(|f| idle_for(f) && !wanted.contains(&f.version)) {
                fetching = None;
            }
            if fetching.is_none()
                && let Some(version) = next
            {
                let fetch = self.fetcher.clone().fetch(version);
                let task = AbortOnDropHandle::new(tokio::spawn(fetch));
                fetching = Some(Fetching { version, task });
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                command = self.inbox.receive() => match command {
                    Some(Command::Wanted(versions)) => wanted = versions,
                    Some(Command::Newest(version)) => newest = newest.max(Some(version)),
                    Some(Command::Arrived(arrival)) => {
                        let version = arrival.manifest.version();
                        fetching.take_if(|fetching| fetching.version == version);
                        if !self.shelf.versions().contains(&version) {
                            let take = self.fetcher.clone().take(arrival);
                            let task = AbortOnDropHandle::new(tokio::spawn(take));
                            taking = Some(Fetching { version, task });
                        }
                    }
                    None => return Ok(()),
                },
                (version, fetched) = ended(&mut fetching) => {
                    fetching = None;
                    self.ready(version, fetched, "fetched").await?;
                }
                (version, taken) = ended(&mut taking) => {
                    taking = None;
                    self.ready(version, taken, "broadcast").await?;
                }
                Ok(()) = sources.changed() => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
            self.shelf.tidy(&wanted, self.fetcher.limits.spare_versions.get());
        }
    }

    /// A version is here.
    async fn ready(
        &self,
        version: PolicyVersion,
        built: Result<Result<Held, WorkerError>, JoinError>,
        how: &str,
    ) -> Result<(), WorkerError> {
        let held = built.map_err(|lost| WorkerError::lost("weights", &lost))??;
        tracing::info!(version = version.get(), digest = %held.manifest.digest(), how, "policy version ready");
        self.shelf.put(held);
        Ok(self.events.send(Event::Ready(version), PATIENCE).await?)
    }

    fn next(
        &self,
        wanted: &BTreeSet<PolicyVersion>,
        newest: Option<PolicyVersion>,
        under_way: Option<PolicyVersion>,
    ) -> Option<PolicyVersion> {
        let mut held = self.shelf.versions();
        held.extend(under_way);
        let missing = wanted.iter().copied().find(|version| !held.contains(version));
        let newer = |newest: &PolicyVersion| held.iter().all(|held| held < newest);
        missing.or(newest.filter(newer))
    }
}

/// The version that a broadcast is about to bring.
#[derive(Default)]
struct Brought {
    waiting: Option<(PolicyVersion, WaitGuard)>,
}

impl Brought {
    /// The version to fetch, unless a broadcast may still bring it: then nothing until that time.
    fn fetch_now(
        &mut self,
        next: Option<PolicyVersion>,
        fetcher: &Fetcher,
    ) -> (Option<PolicyVersion>, Option<Instant>) {
        let now = Instant::now();
        let until = next.and_then(|version| {
            let known = fetcher.sources.borrow().get(&version).and_then(|k| k.broadcast_until);
            Some((version, known.filter(|until| *until > now)?))
        });
        let Some((version, until)) = until else {
            let in_vain = self.waiting.take().filter(|(version, ..)| Some(*version) == next);
            if let Some((version, ..)) = in_vain {
                tracing::info!(
                    version = version.get(),
                    "no broadcast brought the version; fetch it"
                );
            }
            return (next, None);
        };
        match &self.waiting {
            Some((waiting, wait)) if *waiting == version => wait.extend(until - now),
            _ => {
                let detail = format!("version {version}: a broadcast is about to bring it");
                let wait = fetcher.waits.enter("weights", detail, until - now);
                self.waiting = Some((version, wait));
            }
        }
        (None, Some(until))
    }
}

async fn ended(
    fetching: &mut Option<Fetching>,
) -> (PolicyVersion, Result<Result<Held, WorkerError>, JoinError>) {
    match fetching {
        Some(Fetching { version, task }) => (*version, task.await),
        None => std::future::pending().await,
    }
}
