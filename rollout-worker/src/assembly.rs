//! Completions and their rewards to a scored group.
//!
//! Invariants: a completion is sampled first and scored then, each once; the group that comes out
//! depends on what arrived and not on the order, and is only ever whole.

use std::collections::BTreeMap;

use octet_policy::sampler::{Completion, Finish};
use octet_proto::learner::{FinishReason, ScoredCompletion, ScoredGroup};
use octet_proto::{GroupIndex, LeaseEpoch, PolicyVersion, RevisionNumber};

#[cfg(test)]
mod tests;

/// What is known of a group before anything is sampled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFacts {
    /// Its index.
    pub group: GroupIndex,
    /// The policy version that samples it.
    pub version: PolicyVersion,
    /// The reward revision that scores it.
    pub revision: RevisionNumber,
    /// The example's row, as JSON.
    pub example_json: String,
    /// Token ids of the prompt.
    pub prompt_tokens: Vec<u32>,
}

/// What a completion is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct Reward {
    /// The reward.
    pub reward: f64,
    /// A short, stable label.
    pub verdict: String,
    /// One line for a person.
    pub detail: String,
}

/// A group under way.
#[derive(Clone, Debug)]
pub struct Assembly {
    facts: GroupFacts,
    expected: usize,
    /// Sampled, and not yet scored.
    sampled: BTreeMap<u32, Completion>,
    scored: BTreeMap<u32, ScoredCompletion>,
}

/// Where a group stands after a reward has come in.
#[derive(Debug)]
pub enum Stage {
    /// Something is missing yet.
    Open(Assembly),
    /// All is there.
    Whole(Scored),
}

/// A group with all its rewards.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    facts: GroupFacts,
    completions: Vec<ScoredCompletion>,
}

/// What does not belong into a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssemblyError {
    /// A completion of another group.
    #[error("group {group}: expected its own completions, found one of group {found}")]
    Foreign {
        /// The group.
        group: GroupIndex,
        /// The completion's group.
        found: u64,
    },
    /// A sample that the group does not have.
    #[error("group {group}: expected samples below {expected}, found sample {found}")]
    NoSuchSample {
        /// The group.
        group: GroupIndex,
        /// How many completions it has.
        expected: usize,
        /// The sample.
        found: u32,
    },
    /// A completion that is there already.
    #[error("group {group}: expected sample {sample} once, found it again")]
    Again {
        /// The group.
        group: GroupIndex,
        /// The sample.
        sample: u32,
    },
    /// A reward for what was not sampled, or is scored already.
    #[error("group {group}: expected rewards for unscored samples, found one for sample {sample}")]
    UnaskedReward {
        /// The group.
        group: GroupIndex,
        /// The sample.
        sample: u32,
    },
}

impl Assembly {
    /// A group that `expected` completions belong to.
    pub const fn new(facts: GroupFacts, expected: usize) -> Self {
        Self { facts, expected, sampled: BTreeMap::new(), scored: BTreeMap::new() }
    }

    /// What was known from the start.
    pub const fn facts(&self) -> &GroupFacts {
        &self.facts
    }

    /// Takes a completion in.
    ///
    /// # Errors
    /// It is of another group, or not one that is missing.
    pub fn sampled(&mut self, completion: Completion) -> Result<(), AssemblyError> {
        let (group, sample) = (self.facts.group, completion.sample);
        if completion.group != group.get() {
            return Err(AssemblyError::Foreign { group, found: completion.group });
        }
        if sample as usize >= self.expected {
            let expected = self.expected;
            return Err(AssemblyError::NoSuchSample { group, expected, found: sample });
        }
        if self.sampled.contains_key(&sample) || self.scored.contains_key(&sample) {
            return Err(AssemblyError::Again { group, sample });
        }
        self.sampled.insert(sample, completion);
        Ok(())
    }

    /// How many completions were not sampled yet.
    pub fn unsampled(&self) -> usize {
        self.expected - self.sampled.len() - self.scored.len()
    }

    /// How many rewards are missing.
    pub fn missing(&self) -> usize {
        self.expected - self.scored.len()
    }

    /// Takes a reward in; the last one makes the group whole.
    ///
    /// # Errors
    /// The sample was not sampled, or has its reward.
    pub fn scored(mut self, sample: u32, reward: Reward) -> Result<Stage, AssemblyError> {
        let group = self.facts.group;
        let completion = self.sampled.remove(&sample);
        let completion = completion.ok_or(AssemblyError::UnaskedReward { group, sample })?;
        self.scored.insert(sample, scored(completion, reward));
        if self.scored.len() < self.expected {
            return Ok(Stage::Open(self));
        }
        let completions = self.scored.into_values().collect();
        Ok(Stage::Whole(Scored { facts: self.facts, completions }))
    }
}

impl Scored {
    /// The group's index.
    pub const fn group(&self) -> GroupIndex {
        self.facts.group
    }

    /// As it goes to the learner, under the lease that holds now.
    pub fn into_message(self, epoch: LeaseEpoch, worker: &str) -> ScoredGroup {
        ScoredGroup {
            group: self.facts.group.get(),
            lease_epoch: epoch.get(),
            policy_version: self.facts.version.get(),
            reward_revision: self.facts.revision.get(),
            prompt_tokens: self.facts.prompt_tokens,
            completions: self.completions,
            worker: worker.to_owned(),
            example_json: self.facts.example_json,
        }
    }
}

fn scored(completion: Completion, reward: Reward) -> ScoredCompletion {
    let finish = match completion.finish {
        Finish::Stop => FinishReason::Stop,
        Finish::Length => FinishReason::Length,
    };
    ScoredCompletion {
        sample: completion.sample,
        tokens: completion.tokens,
        logprobs: completion.logprobs,
        finish: finish.into(),
        reward: reward.reward,
        verdict: reward.verdict,
        detail: reward.detail,
    }
}
