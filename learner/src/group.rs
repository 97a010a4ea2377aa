//! A scored group: one example's visit, its prompt once, and its completions with their rewards.
//!
//! Invariant: a [`ScoredGroup`] was checked. Its samples are `0..n` in order, each completion has as
//! many log-probabilities as tokens and at least one, all numbers are finite, the example is JSON,
//! and every integer fits SQLite. Fields are read through [`GroupParts`], never changed.

mod wire;

use octet_proto::{GroupIndex, LeaseEpoch, PolicyVersion, RevisionNumber};
use serde::de::IgnoredAny;
use std::ops::Deref;

/// Why sampling of a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token was sampled.
    Stop,
    /// The token limit was reached.
    Length,
}

/// One completion of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredCompletion {
    /// Its index in the group.
    pub sample: u32,
    /// Token ids, the end-of-turn token included when it was sampled.
    pub tokens: Vec<u32>,
    /// The sampler's log-probability of each token. Nats.
    pub logprobs: Vec<f32>,
    /// Why sampling ended.
    pub finish: Finish,
    /// The reward.
    pub reward: f64,
    /// The reward function's short, stable label.
    pub verdict: String,
    /// The reward function's line for a person.
    pub detail: String,
}

/// What a scored group is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupParts {
    /// The group's index in the run.
    pub group: GroupIndex,
    /// The epoch of the lease that it was sampled under.
    pub lease_epoch: LeaseEpoch,
    /// The policy version that sampled it.
    pub policy_version: PolicyVersion,
    /// The reward revision that scored it.
    pub reward_revision: RevisionNumber,
    /// Who sampled it.
    pub worker: String,
    /// The example's row of the data set, as JSON.
    pub example_json: String,
    /// Token ids of the prompt that the completions share.
    pub prompt_tokens: Vec<u32>,
    /// The completions.
    pub completions: Vec<ScoredCompletion>,
}

/// A checked scored group.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredGroup {
    parts: GroupParts,
}

/// What is wrong with a group.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("group {group}: {fault}")]
pub struct GroupError {
    /// The group's index.
    pub group: GroupIndex,
    /// The fault.
    pub fault: GroupFault,
}

/// The faults a delivered group can have.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GroupFault {
    /// No prompt tokens.
    #[error("expected a prompt of at least one token, found none")]
    EmptyPrompt,
    /// No completions.
    #[error("expected at least one completion, found none")]
    NoCompletions,
    /// Samples that are not `0..n`.
    #[error("expected each of the samples 0 to {last} exactly once, found {found:?}")]
    Samples {
        /// The last sample expected.
        last: usize,
        /// The samples found, sorted.
        found: Vec<u32>,
    },
    /// A completion without tokens.
    #[error("expected sample {sample} to have at least one token, found none")]
    EmptyCompletion {
        /// The sample.
        sample: u32,
    },
    /// Tokens and log-probabilities that do not match.
    #[error(
        "expected as many log-probabilities as tokens in sample {sample}, found {logprobs} for {tokens} tokens"
    )]
    Logprobs {
        /// The sample.
        sample: u32,
        /// Tokens.
        tokens: usize,
        /// Log-probabilities.
        logprobs: usize,
    },
    /// A log-probability that is NaN or infinite.
    #[error("expected a finite log-probability at token {token} of sample {sample}, found {found}")]
    LogprobNotFinite {
        /// The sample.
        sample: u32,
        /// The token's position.
        token: usize,
        /// What was found.
        found: f32,
    },
    /// A reward that is NaN or infinite.
    #[error("expected a finite reward for sample {sample}, found {found}")]
    RewardNotFinite {
        /// The sample.
        sample: u32,
        /// What was found.
        found: f64,
    },
    /// An unknown finish reason on the wire.
    #[error("expected finish reason 1 (stop) or 2 (length) for sample {sample}, found {found}")]
    Finish {
        /// The sample.
        sample: u32,
        /// What was found.
        found: i32,
    },
    /// An example that is not JSON.
    #[error("expected the example's row as JSON, found text that is not: {reason}")]
    Example {
        /// What the JSON parser says.
        reason: String,
    },
    /// An integer beyond what the spool can hold.
    #[error("expected {field} of at most {}, found {found}", i64::MAX)]
    TooLarge {
        /// Which field.
        field: &'static str,
        /// What was found.
        found: u64,
    },
}

impl ScoredGroup {
    /// Checks a group, and puts its completions in the order of their samples.
    pub fn new(mut parts: GroupParts) -> Result<Self, GroupError> {
        parts.completions.sort_by_key(|completion| completion.sample);
        // −0.0 and 0.0 are one reward, and SQLite keeps only one of them.
        parts.completions.iter_mut().for_each(|completion| completion.reward += 0.0);
        match parts.check() {
            Ok(()) => Ok(Self { parts }),
            Err(fault) => Err(GroupError { group: parts.group, fault }),
        }
    }

    /// The parts, to be changed or sent on.
    pub fn into_parts(self) -> GroupParts {
        self.parts
    }

    /// The rewards, in the order of the samples.
    pub fn rewards(&self) -> Vec<f64> {
        self.completions.iter().map(|completion| completion.reward).collect()
    }

    /// Completion tokens of the group.
    pub fn completion_tokens(&self) -> usize {
        self.completions.iter().map(|completion| completion.tokens.len()).sum()
    }
}

impl Deref for ScoredGroup {
    type Target = GroupParts;

    fn deref(&self) -> &GroupParts {
        &self.parts
    }
}

impl GroupParts {
    fn check(&self) -> Result<(), GroupFault> {
        for (field, found) in [
            ("a group index", self.group.get()),
            ("a lease epoch", self.lease_epoch.get()),
            ("a policy version", self.policy_version.get()),
            ("a reward revision", self.reward_revision.get()),
        ] {
            if i64::try_from(found).is_err() {
                return Err(GroupFault::TooLarge { field, found });
            }
        }
        if self.prompt_tokens.is_empty() {
            return Err(GroupFault::EmptyPrompt);
        }
        let Some(last) = self.completions.len().checked_sub(1) else {
            return Err(GroupFault::NoCompletions);
        };
        let in_order = |(index, completion): (usize, &ScoredCompletion)| {
            usize::try_from(completion.sample).is_ok_and(|sample| sample == index)
        };
        if !self.completions.iter().enumerate().all(in_order) {
            let found = self.completions.iter().map(|completion| completion.sample).collect();
            return Err(GroupFault::Samples { last, found });
        }
        self.completions.iter().try_for_each(ScoredCompletion::check)?;
        serde_json::from_str::<IgnoredAny>(&self.example_json)
            .map(|_| ())
            .map_err(|error| GroupFault::Example { reason: error.to_string() })
    }
}

impl ScoredCompletion {
    fn check(&self) -> Result<(), GroupFault> {
        let sample = self.sample;
        let (tokens, logprobs) = (self.tokens.len(), self.logprobs.len());
        if tokens == 0 {
            return Err(GroupFault::EmptyCompletion { sample });
        }
        if tokens != logprobs {
            return Err(GroupFault::Logprobs { sample, tokens, logprobs });
        }
        if let Some(token) = self.logprobs.iter().position(|logprob| !logprob.is_finite()) {
            let found = self.logprobs[token];
            return Err(GroupFault::LogprobNotFinite { sample, token, found });
        }
        if !self.reward.is_finite() {
            return Err(GroupFault::RewardNotFinite { sample, found: self.reward });
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
