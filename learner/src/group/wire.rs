//! Scored groups to and from the learner's contract.
//!
//! Invariant: what comes off the wire is checked before it is a [`ScoredGroup`], and what goes onto
//! it comes back equal.

use super::{Finish, GroupError, GroupFault, GroupParts, ScoredCompletion, ScoredGroup};
use octet_proto::GroupIndex;
use octet_proto::learner as wire;

impl TryFrom<wire::ScoredGroup> for ScoredGroup {
    type Error = GroupError;

    fn try_from(message: wire::ScoredGroup) -> Result<Self, GroupError> {
        let group = GroupIndex(message.group);
        let completions: Result<Vec<_>, GroupFault> =
            message.completions.into_iter().map(ScoredCompletion::try_from).collect();
        Self::new(GroupParts {
            group,
            lease_epoch: message.lease_epoch.into(),
            policy_version: message.policy_version.into(),
            reward_revision: message.reward_revision.into(),
            worker: message.worker,
            example_json: message.example_json,
            prompt_tokens: message.prompt_tokens,
            completions: completions.map_err(|fault| GroupError { group, fault })?,
        })
    }
}

impl TryFrom<wire::ScoredCompletion> for ScoredCompletion {
    type Error = GroupFault;

    fn try_from(message: wire::ScoredCompletion) -> Result<Self, GroupFault> {
        let finish = match message.finish() {
            wire::FinishReason::Stop => Finish::Stop,
            wire::FinishReason::Length => Finish::Length,
            wire::FinishReason::Unspecified => {
                return Err(GroupFault::Finish { sample: message.sample, found: message.finish });
            }
        };
        Ok(Self {
            sample: message.sample,
            tokens: message.tokens,
            logprobs: message.logprobs,
            finish,
            reward: message.reward,
            verdict: message.verdict,
            detail: message.detail,
        })
    }
}

impl From<ScoredGroup> for wire::ScoredGroup {
    fn from(group: ScoredGroup) -> Self {
        let parts = group.into_parts();
        Self {
            group: parts.group.get(),
            lease_epoch: parts.lease_epoch.get(),
            policy_version: parts.policy_version.get(),
            reward_revision: parts.reward_revision.get(),
            prompt_tokens: parts.prompt_tokens,
            completions: parts.completions.into_iter().map(Into::into).collect(),
            worker: parts.worker,
            example_json: parts.example_json,
        }
    }
}

impl From<ScoredCompletion> for wire::ScoredCompletion {
    fn from(completion: ScoredCompletion) -> Self {
        let finish = match completion.finish {
            Finish::Stop => wire::FinishReason::Stop,
            Finish::Length => wire::FinishReason::Length,
        };
        Self {
            sample: completion.sample,
            tokens: completion.tokens,
            logprobs: completion.logprobs,
            finish: finish.into(),
            reward: completion.reward,
            verdict: completion.verdict,
            detail: completion.detail,
        }
    }
}
