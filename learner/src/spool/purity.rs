//! The purity check of a running system: a group delivered twice must be the same group.
//!
//! Invariant: numbers are compared by their bits. The lease epoch, the worker and the reward's
//! detail may differ: they say who did the work and how it was put, not what came out.

use crate::group::{ScoredCompletion, ScoredGroup};
use octet_proto::GroupIndex;
use std::fmt;

/// A group that was delivered twice and is not the same.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("group {group} was delivered again and differs from what is in the spool: {}; the run is not a pure function of its configuration, compare the builds, devices and reward servers of the workers ({stored_worker} first, then {delivered_worker})", list(.differences))]
pub struct ImpureDuplicate {
    /// The group.
    pub group: GroupIndex,
    /// Who delivered what is stored.
    pub stored_worker: String,
    /// Who delivered what differs.
    pub delivered_worker: String,
    /// What differs, in order; of a completion the first field that does.
    pub differences: Vec<Difference>,
}

impl ImpureDuplicate {
    /// Whether the same was sampled, to another result: on a GPU the rounding of a log-probability may differ
    /// from one time to the next, and with it a token.
    pub fn is_of_completions(&self) -> bool {
        self.differences.iter().all(|difference| difference.sample.is_some())
    }
}

/// One thing that differs between two deliveries of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The completion, or `None` for the group itself.
    pub sample: Option<u32>,
    /// Which field.
    pub field: &'static str,
    /// What is stored.
    pub stored: String,
    /// What was delivered.
    pub delivered: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(sample) = self.sample {
            write!(formatter, "sample {sample}: ")?;
        }
        write!(formatter, "{} was {}, now {}", self.field, self.stored, self.delivered)
    }
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(Difference::to_string).collect::<Vec<_>>().join("; ")
}

/// Compares a delivered group with the stored one of its index.
pub(super) fn check(stored: &ScoredGroup, delivered: &ScoredGroup) -> Result<(), ImpureDuplicate> {
    let of_group = |field, stored: &dyn fmt::Display, delivered: &dyn fmt::Display| Difference {
        sample: None,
        field,
        stored: stored.to_string(),
        delivered: delivered.to_string(),
    };
    let mut differences = Vec::new();
    if stored.policy_version != delivered.policy_version {
        let (was, now) = (&stored.policy_version, &delivered.policy_version);
        differences.push(of_group("policy version", was, now));
    }
    if stored.reward_revision != delivered.reward_revision {
        let (was, now) = (&stored.reward_revision, &delivered.reward_revision);
        differences.push(of_group("reward revision", was, now));
    }
    let letters = |text: &str| text.chars().collect::<Vec<_>>();
    let example =
        slices(&letters(&stored.example_json), &letters(&delivered.example_json), |letter| *letter);
    differences.extend(example.map(|found| found.into_difference(None, "example")));
    let tokens = slices(&stored.prompt_tokens, &delivered.prompt_tokens, |token| *token);
    differences.extend(tokens.map(|found| found.into_difference(None, "prompt token")));
    if stored.completions.len() != delivered.completions.len() {
        let (was, now) = (&stored.completions.len(), &delivered.completions.len());
        differences.push(of_group("number of completions", was, now));
    }
    let pairs = stored.completions.iter().zip(&delivered.completions);
    differences.extend(pairs.filter_map(|(stored, delivered)| completions(stored, delivered)));
    if differences.is_empty() {
        return Ok(());
    }
    Err(ImpureDuplicate {
        group: stored.group,
        stored_worker: stored.worker.clone(),
        delivered_worker: delivered.worker.clone(),
        differences,
    })
}

fn completions(stored: &ScoredCompletion, delivered: &ScoredCompletion) -> Option<Difference> {
    let sample = Some(stored.sample);
    let tokens = slices(&stored.tokens, &delivered.tokens, |token| *token);
    if let Some(found) = tokens {
        return Some(found.into_difference(sample, "token"));
    }
    let logprobs = slices(&stored.logprobs, &delivered.logprobs, |logprob| logprob.to_bits());
    if let Some(found) = logprobs {
        return Some(found.into_difference(sample, "log-probability"));
    }
    if stored.reward.to_bits() == delivered.reward.to_bits() {
        return None;
    }
    Some(Difference {
        sample,
        field: "reward",
        stored: stored.reward.to_string(),
        delivered: delivered.reward.to_string(),
    })
}

/// The first place where two slices differ.
struct Place {
    stored: String,
    delivered: String,
}

impl Place {
    fn into_difference(self, sample: Option<u32>, field: &'static str) -> Difference {
        Difference { sample, field, stored: self.stored, delivered: self.delivered }
    }
}

fn slices<T: fmt::Display, K: PartialEq>(
    stored: &[T],
    delivered: &[T],
    key: impl Fn(&T) -> K,
) -> Option<Place> {
    let same = |(was, now): (&T, &T)| key(was) == key(now);
    let at = stored.iter().zip(delivered).take_while(|pair| same(*pair)).count();
    if at == stored.len() && at == delivered.len() {
        return None;
    }
    let text = |slice: &[T]| match slice.get(at) {
        Some(value) => format!("{value} at position {at}"),
        None => format!("ended after {at}"),
    };
    Some(Place { stored: text(stored), delivered: text(delivered) })
}
