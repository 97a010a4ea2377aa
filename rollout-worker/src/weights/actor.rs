//! Sees to it that the versions that are wanted are on the shelf.
//!
//! Invariant: one version is fetched at a time, the oldest that a group waits for first; the newest
//! published one is fetched ahead when nothing else is to be done.

use std::collections::BTreeSet;
use std::time::Duration;

use octet_proto::PolicyVersion;
use octet_runtime::CancellationToken;
use octet_runtime::mailbox::{Address, Mailbox};
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

use super::fetch::Fetcher;
use super::shelf::{Held, Shelf};
use crate::error::WorkerError;
use crate::groups::Event;

/// How long news may wait for room.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the librarian is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// These versions, and no others, are waited for.
    Wanted(BTreeSet<PolicyVersion>),
    /// This is the newest published version.
    Newest(PolicyVersion),
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
        loop {
            let next = self.next(&wanted, newest);
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
                    None => return Ok(()),
                },
                (version, fetched) = ended(&mut fetching) => {
                    fetching = None;
                    let held = fetched.map_err(|lost| WorkerError::lost("weights", &lost))??;
                    tracing::info!(version = version.get(), digest = %held.manifest.digest(), "policy version ready");
                    self.shelf.put(held);
                    self.events.send(Event::Ready(version), PATIENCE).await?;
                }
            }
            self.shelf.tidy(&wanted, self.fetcher.limits.spare_versions.get());
        }
    }

    fn next(
        &self,
        wanted: &BTreeSet<PolicyVersion>,
        newest: Option<PolicyVersion>,
    ) -> Option<PolicyVersion> {
        let held = self.shelf.versions();
        let missing = wanted.iter().copied().find(|version| !held.contains(version));
        missing.or(newest.filter(|newest| held.last().is_none_or(|held| held < newest)))
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
