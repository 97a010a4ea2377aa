//! Whom to ask for a version next.
//!
//! Invariants: pure. A source that lied is never asked again for that version; the learner is always
//! asked before anybody is asked twice; nobody but the learner is asked while the version's digest is
//! not known, because nobody else's word counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use octet_proto::PolicyVersion;
use octet_proto::coordinator::VersionSources;
use tokio::time::Instant;

/// The most versions that the coordinator's word is kept of.
const MOST_VERSIONS: usize = 16;
/// The longest that a broadcast is waited for, whatever is said.
const LONGEST_BROADCAST: Duration = Duration::from_secs(600);
/// The most endpoints that are kept of one.
const MOST_ENDPOINTS: usize = 16;

/// Where versions can be had, as the coordinator said last.
pub(crate) type Sources = BTreeMap<PolicyVersion, Known>;

/// What the coordinator said of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub digest: blake3::Hash,
    pub endpoints: Vec<String>,
    /// Until then a broadcast may bring it.
    pub broadcast_until: Option<Instant>,
}

/// Takes in what the coordinator says; what has no digest is of no use.
pub(crate) fn learn(sources: &mut Sources, told: Vec<VersionSources>, now: Instant) {
    for VersionSources { version, digest, mut endpoints, broadcast_within_ms } in told {
        if let Ok(digest) = blake3::Hash::from_hex(&digest) {
            endpoints.truncate(MOST_ENDPOINTS);
            let within = Duration::from_millis(broadcast_within_ms).min(LONGEST_BROADCAST);
            let broadcast_until = (!within.is_zero()).then_some(now + within);
            let known = Known { digest, endpoints, broadcast_until };
            sources.insert(PolicyVersion(version), known);
        }
    }
    while sources.len() > MOST_VERSIONS {
        sources.pop_first();
    }
}

/// A source to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Another worker, and the digest that it has to give.
    Peer { endpoint: String, digest: blake3::Hash },
    /// The learner.
    Learner,
}

/// The way of one transfer through its sources.
#[derive(Debug, Default)]
pub(crate) struct Route {
    dropped: BTreeSet<String>,
    /// Asked in vain since everybody was asked last.
    tried: BTreeSet<String>,
    learner_tried: bool,
}

impl Route {
    /// The next source; none when all have been asked, and the round begins anew.
    pub(crate) fn next(&mut self, known: Option<&Known>, learner: &str) -> Option<Source> {
        let fresh = |endpoint: &&String| {
            *endpoint != learner
                && !self.dropped.contains(*endpoint)
                && !self.tried.contains(*endpoint)
        };
        let peer = known.and_then(|known| {
            let endpoint = known.endpoints.iter().take_while(|at| *at != learner).find(fresh)?;
            Some(Source::Peer { endpoint: endpoint.clone(), digest: known.digest })
        });
        let next = peer.or((!self.learner_tried).then_some(Source::Learner));
        if next.is_none() {
            self.tried.clear();
            self.learner_tried = false;
        }
        next
    }

    /// A source did not have it, or broke.
    pub(crate) fn in_vain(&mut self, source: &Source) {
        match source {
            Source::Peer { endpoint, .. } => drop(self.tried.insert(endpoint.clone())),
            Source::Learner => self.learner_tried = true,
        }
    }

    /// A source gave something else than what was published. The learner cannot be done without.
    pub(crate) fn lied(&mut self, source: &Source) {
        self.in_vain(source);
        if let Source::Peer { endpoint, .. } = source {
            self.dropped.insert(endpoint.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEARNER: &str = "http://learner:1";

    fn known(endpoints: &[String]) -> Known {
        let mut endpoints = endpoints.to_vec();
        endpoints.push(LEARNER.to_owned());
        Known { digest: blake3::hash(b"weights"), endpoints, broadcast_until: None }
    }

    #[test]
    fn without_a_digest_the_learner_alone_is_asked() {
        let mut sources = Sources::new();
        let endpoints = vec!["http://a:1".to_owned()];
        let told = VersionSources { version: 1, endpoints, ..VersionSources::default() };
        learn(&mut sources, vec![told], Instant::now());
        assert!(sources.is_empty());
        let mut route = Route::default();
        assert_eq!(route.next(None, LEARNER), Some(Source::Learner));
        route.in_vain(&Source::Learner);
        assert_eq!(route.next(None, LEARNER), None);
        assert_eq!(route.next(None, LEARNER), Some(Source::Learner));
    }

    #[test]
    fn what_the_coordinator_says_is_bounded() {
        let mut sources = Sources::new();
        let digest = blake3::hash(b"weights").to_string();
        let told = |version| VersionSources {
            version,
            digest: digest.clone(),
            endpoints: vec!["http://a:1".to_owned(); 1000],
            broadcast_within_ms: u64::MAX,
        };
        let now = Instant::now();
        learn(&mut sources, (0..100).map(told).collect(), now);
        assert_eq!(
            sources.keys().map(|v| v.get()).collect::<Vec<_>>(),
            (84..100).collect::<Vec<_>>()
        );
        assert!(sources.values().all(|known| known.endpoints.len() == MOST_ENDPOINTS));
        let until = Some(now + LONGEST_BROADCAST);
        assert!(sources.values().all(|known| known.broadcast_until == until));
    }

    proptest! {
        #[test]
        fn everybody_is_asked_in_order_once_a_round_and_liars_never_again(
            peers in prop::collection::btree_set("http://[a-z]{1,3}:1", 0..6),
            lies: Vec<bool>,
        ) {
            let peers: Vec<String> = peers.into_iter().collect();
            let known = known(&peers);
            let mut route = Route::default();
            let mut honest = peers.clone();
            for round in 0..3 {
                let mut asked = Vec::new();
                while let Some(source) = route.next(Some(&known), LEARNER) {
                    match (&source, lies.get(asked.len()).copied().unwrap_or(false)) {
                        (Source::Peer { .. }, true) if round == 0 => route.lied(&source),
                        _ => route.in_vain(&source),
                    }
                    asked.push(source);
                    prop_assert!(asked.len() <= peers.len() + 1);
                }
                prop_assert_eq!(asked.pop(), Some(Source::Learner));
                let asked: Vec<String> = asked.into_iter().filter_map(|source| match source {
                    Source::Peer { endpoint, .. } => Some(endpoint),
                    Source::Learner => None,
                }).collect();
                prop_assert_eq!(&asked, &honest);
                if round == 0 {
                    let lied = |at: usize| lies.get(at).copied().unwrap_or(false);
                    honest = peers.iter().enumerate().filter(|(at, _)| !lied(*at))
                        .map(|(_, peer)| peer.clone()).collect();
                }
            }
        }
    }
}
