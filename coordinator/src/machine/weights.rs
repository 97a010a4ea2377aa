//! Which worker fetches a version from whom, and how long that takes for all of them.
//!
//! Invariants: a worker is named no source but the learner unless the learner has said what the
//! version's digest is, so that no source can lie; the learner is the last of every list. While nobody
//! holds a new version the workers that serve form a tree, so that the learner sends it [`SEEDS`]
//! times and each worker [`BRANCHES`] times, however many there are.

use std::collections::BTreeMap;
use std::time::Duration;

use octet_proto::{PolicyVersion, WorkerId};
use octet_runtime::rendezvous;

use super::Machine;

/// How many workers fetch a new version from the learner.
const SEEDS: usize = 2;
/// How many workers fetch a new version from one that is about to hold it.
const BRANCHES: usize = 2;
/// The most holders that a worker is told of.
const MOST_HOLDERS: usize = 3;
/// The most versions that a learner's word is kept of.
const MOST_VERSIONS: usize = 64;

/// A version that the learner gives out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The version.
    pub version: PolicyVersion,
    /// Digest of its weights, hex.
    pub digest: String,
    /// Bytes of its weights.
    pub bytes: u64,
}

/// Where a worker fetches a version that it lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// The version.
    pub version: PolicyVersion,
    /// Its digest, hex.
    pub digest: String,
    /// Endpoints in the order in which to try them.
    pub endpoints: Vec<String>,
    /// How long a broadcast may still take that brings it; none when it is to be fetched.
    pub broadcast_within: Option<Duration>,
}

/// How a version came to the workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread {
    /// The version.
    pub published: Published,
    /// Workers that hold it or a newer one.
    pub holders: u64,
    /// Workers that are registered.
    pub workers: u64,
    /// How long ago its step ended.
    pub since_ago: Duration,
    /// From the end of its step until the last of the workers held it.
    pub took: Option<Duration>,
}

/// What is known of a version that is given out.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(super) published: Published,
    since: Duration,
    took: Option<Duration>,
}

/// How many versions came to every worker since the coordinator started, and how long that took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spreading {
    /// Versions.
    pub versions: u64,
    /// From the ends of their steps until their last worker held them, all together.
    pub time: Duration,
    /// Their bytes, once each.
    pub bytes: u64,
}

/// The versions that are given out.
pub(crate) type Versions = BTreeMap<PolicyVersion, Version>;

impl Machine {
    /// Follows what the learner says that it gives out.
    pub(super) fn publish(&mut self, published: Vec<Published>) {
        let now = self.now;
        let known = std::mem::take(&mut self.versions);
        for published in published.into_iter().take(MOST_VERSIONS) {
            let same = known.get(&published.version).filter(|known| known.published == published);
            let version = same.cloned().unwrap_or(Version { since: now, took: None, published });
            self.versions.insert(version.published.version, version);
        }
        self.measure_spread();
    }

    /// Notes which versions have come to every worker.
    pub(super) fn measure_spread(&mut self) {
        let now = self.now;
        let workers = &self.workers;
        for (number, version) in self.versions.iter_mut().filter(|(_, v)| v.took.is_none()) {
            let lacks = |worker: &super::Worker| worker.versions.iter().all(|held| held < number);
            if workers.is_empty() || workers.values().any(lacks) {
                continue;
            }
            let took = now.saturating_sub(version.since);
            version.took = Some(took);
            let bytes = version.published.bytes;
            self.spreading.versions += 1;
            self.spreading.time += took;
            self.spreading.bytes += bytes;
            tracing::info!(
                version = number.get(),
                workers = workers.len(),
                bytes,
                ?took,
                "every worker holds the version"
            );
        }
    }

    /// Where a worker fetches the versions that it lacks and that may be asked of it.
    pub fn sources(&self, id: WorkerId) -> Vec<Sources> {
        let Some(me) = self.workers.get(&id) else { return Vec::new() };
        let lacking = self.versions.iter().filter(|(version, _)| !me.versions.contains(version));
        lacking
            .map(|(version, known)| Sources {
                version: *version,
                digest: known.published.digest.clone(),
                endpoints: self.route(id, &me.weights_endpoint, *version),
                broadcast_within: self
                    .broadcasts
                    .brings(id, *version)
                    .map(|until| until.saturating_sub(self.now)),
            })
            .collect()
    }

    /// How the versions that are given out came to the workers.
    pub(super) fn spreads(&self) -> Vec<Spread> {
        let holds = |number: PolicyVersion| {
            let held = |worker: &&super::Worker| worker.versions.iter().any(|v| *v >= number);
            self.workers.values().filter(held).count() as u64
        };
        let spread = |(number, version): (&PolicyVersion, &Version)| Spread {
            published: version.published.clone(),
            holders: holds(*number),
            workers: self.workers.len() as u64,
            since_ago: self.now.saturating_sub(version.since),
            took: version.took,
        };
        self.versions.iter().map(spread).collect()
    }

    fn route(&self, id: WorkerId, mine: &str, version: PolicyVersion) -> Vec<String> {
        let others = self.workers.iter().filter(|(other, worker)| {
            **other != id && !worker.weights_endpoint.is_empty() && worker.weights_endpoint != mine
        });
        let (mut serving, mut holders) = (Vec::new(), Vec::new());
        for (_, worker) in others {
            serving.push(worker.weights_endpoint.as_str());
            if worker.versions.contains(&version) {
                holders.push(worker.weights_endpoint.as_str());
            }
        }
        let parent = parent(serving, mine, id, version);
        let key = format!("{version}/{id}");
        let mut route = rendezvous::order(&key, holders);
        let parent_holds = parent.is_some_and(|parent| route.contains(&parent));
        route.truncate(MOST_HOLDERS);
        if let Some(parent) = parent.filter(|_| parent_holds || route.is_empty()) {
            route.retain(|holder| *holder != parent);
            route.insert(0, parent);
        }
        route.push(self.learner_endpoint());
        route.into_iter().filter(|at| !at.is_empty()).map(str::to_owned).collect()
    }
}

/// Whom a worker fetches a version from that nobody holds yet; the learner when there is none.
fn parent<'a>(
    mut serving: Vec<&'a str>,
    mine: &'a str,
    id: WorkerId,
    version: PolicyVersion,
) -> Option<&'a str> {
    if mine.is_empty() {
        // Not of the tree: any of its members will do, another one for each that asks.
        return rendezvous::order(&format!("{version}/{id}"), serving).first().copied();
    }
    serving.push(mine);
    let line = rendezvous::order(&version.to_string(), serving);
    let place = line.iter().position(|endpoint| *endpoint == mine)?;
    place.checked_sub(SEEDS).and_then(|below| line.get(below / BRANCHES).copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_nobody_holds_spreads_along_a_tree() {
        let endpoints: Vec<String> = (0..40).map(|at| format!("http://worker-{at}:1")).collect();
        for version in (0..5).map(PolicyVersion) {
            let mut children: BTreeMap<Option<&str>, usize> = BTreeMap::new();
            let place = |endpoint: &str| {
                let all = endpoints.iter().map(String::as_str).collect();
                let line = rendezvous::order(&version.to_string(), all);
                line.iter().position(|at| *at == endpoint)
            };
            for (at, mine) in endpoints.iter().enumerate() {
                let others = endpoints.iter().filter(|other| *other != mine);
                let others = others.map(String::as_str).collect();
                let parent = parent(others, mine, WorkerId(at as u64), version);
                // Who is above is nearer to the learner, so nobody waits for itself.
                assert!(parent.is_none_or(|parent| place(parent) < place(mine)));
                *children.entry(parent).or_default() += 1;
            }
            assert_eq!(children[&None], SEEDS, "the learner sends it to the seeds alone");
            assert!(children.iter().all(|(parent, n)| parent.is_none() || *n <= BRANCHES));
        }
    }
}
