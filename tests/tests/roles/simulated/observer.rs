//! Whoever looks at a run while it goes on: a client that asks for its status, and a host that delivers
//! again what the learner has already.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use octet_learner::learner::SPOOL_FILE;
use octet_learner::spool::Spool;
use octet_proto::GroupIndex;
use octet_proto::auth::{JoinToken, Line};
use octet_proto::coordinator::{GetStatusRequest, GetStatusResponse, coordinator_client};
use octet_proto::learner::{DeliveryOutcome, learner_client};
use octet_proto::transport::ClientOptions;
use octet_runtime::net::Dial;
use tokio::time::{sleep, timeout};
use turmoil::Sim;

use super::Disk;
use super::faults::Dice;
use super::network::{Simulated, at};
use super::roles::{COORDINATOR, LEARNER, TOKEN};

pub const OBSERVER: &str = "observer";
const EVERY: Duration = Duration::from_millis(100);

/// What was seen of a run, each with the time since it began.
#[derive(Clone, Default)]
pub struct Seen {
    all: Arc<Mutex<Vec<(Duration, GetStatusResponse)>>>,
}

impl Seen {
    /// Puts a client on a host of its own that looks until the run is complete, and ends the simulation.
    pub fn watch(sim: &mut Sim<'_>) -> Self {
        let seen = Self::default();
        let all = Arc::clone(&seen.all);
        sim.client(OBSERVER, async move {
            let mut client = coordinator_client(line(COORDINATOR));
            loop {
                sleep(EVERY).await;
                let asked = timeout(Duration::from_secs(1), client.get_status(GetStatusRequest {}));
                let Ok(Ok(status)) = asked.await else { continue };
                let status = status.into_inner();
                let complete = status.committed_steps == status.total_steps;
                all.lock().unwrap().push((turmoil::sim_elapsed().unwrap(), status));
                if complete {
                    return Ok(());
                }
            }
        });
        seen
    }

    /// The newest status.
    pub fn last(&self) -> Option<GetStatusResponse> {
        self.all.lock().unwrap().last().map(|(_, status)| status.clone())
    }

    /// What was waited for last, for who reads of a failure.
    pub fn waits(&self) -> String {
        let Some(status) = self.last() else { return "no status was seen".to_owned() };
        let workers = status.workers.iter();
        let waits = workers.flat_map(|worker| worker.waits.iter().map(|wait| (&worker.name, wait)));
        let learner = status.learner.iter().flat_map(|learner| &learner.waits);
        let none = String::new();
        let all = status.waits.iter().chain(learner).map(|wait| (&none, wait)).chain(waits);
        let lines = all.map(|(whose, wait)| {
            format!("  {whose} {}: {} (for {} ms)", wait.name, wait.detail, wait.since_ms_ago)
        });
        format!("step {}:\n{}", status.committed_steps, lines.collect::<Vec<_>>().join("\n"))
    }

    /// All of them, from the oldest on.
    pub fn all(&self) -> Vec<(Duration, GetStatusResponse)> {
        self.all.lock().unwrap().clone()
    }
}

/// A line to a host's service, with the run's token.
pub fn line(host: &str) -> Line {
    let channel = Simulated.dial(&at(host), &ClientOptions::default()).unwrap();
    Line::new(channel, &JoinToken::new(TOKEN))
}

/// How often the learner was given a group that it had.
#[derive(Clone, Default)]
pub struct Echoes {
    pub taken: Arc<Mutex<u64>>,
}

impl Echoes {
    /// Puts a host beside the workers that delivers groups again, in any order, and sees to it that the
    /// learner takes each for what it is.
    pub fn spread(sim: &mut Sim<'_>, disk: &Disk, groups: u64, seed: u64) -> Self {
        let echoes = Self::default();
        let (taken, path) = (Arc::clone(&echoes.taken), disk.run().join(SPOOL_FILE));
        sim.host("echo", move || {
            let (taken, path, mut dice) = (Arc::clone(&taken), path.clone(), Dice(seed));
            async move {
                loop {
                    sleep(Duration::from_millis(200 + dice.below(800))).await;
                    // A stream that hangs in a partition is given up.
                    let again = echo(&path, groups, &mut dice);
                    if let Ok(Some(count)) = timeout(Duration::from_secs(2), again).await {
                        *taken.lock().unwrap() += count;
                    }
                }
            }
        });
        echoes
    }
}

/// Delivers some groups of the spool again; how many receipts came, or nothing when the wire broke.
async fn echo(path: &Path, groups: u64, dice: &mut Dice) -> Option<u64> {
    let spool = Spool::read_only(path).ok()?;
    let mut present = spool.present(GroupIndex(0)..GroupIndex(groups)).ok()?;
    dice.shuffle(&mut present);
    present.truncate(1 + dice.below(5) as usize);
    let mut messages = Vec::new();
    for group in present {
        let stored = spool.read(group..GroupIndex(group.get() + 1)).ok()?;
        messages.extend(stored.into_iter().map(octet_proto::learner::ScoredGroup::from));
    }
    let sent = messages.len() as u64;
    let stream = learner_client(line(LEARNER)).deliver(futures::stream::iter(messages)).await;
    let mut receipts = stream.ok()?.into_inner();
    let mut count = 0;
    while let Some(receipt) = receipts.message().await.ok()? {
        match receipt.outcome {
            Some(DeliveryOutcome::Accepted(accepted)) => assert!(accepted.duplicate),
            other => panic!("group {} delivered again: {other:?}", receipt.group),
        }
        count += 1;
    }
    assert!(count <= sent);
    Some(count)
}
