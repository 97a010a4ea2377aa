//! Which delivered groups the run can use.
//!
//! Invariant: pure. A group that is admitted cannot make a step fail: its index, version, lengths and
//! tokens are those of the plan.

use crate::config::Recipe;
use crate::group::{GroupError, ScoredGroup};
use octet_policy::config::ModelConfig;
use octet_proto::learner::ScoredGroup as Message;
use octet_proto::{GroupIndex, PolicyVersion, StepIndex};

/// What a group of this run looks like.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    recipe: Recipe,
    vocabulary: usize,
    context: usize,
}

/// Why a group is not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// It is none in itself.
    #[error(transparent)]
    Malformed(#[from] GroupError),
    /// It is none of this configuration.
    #[error(
        "group {group}: expected {expected}, found {found}; deliver groups that were sampled with this run's configuration"
    )]
    Misfit {
        /// The group.
        group: GroupIndex,
        /// What the configuration says.
        expected: String,
        /// What was delivered.
        found: String,
    },
    /// The run has no such group.
    #[error(
        "group {group}: expected a group below {total}, all that the run has; deliver to the learner of the run that leased it"
    )]
    Unknown {
        /// The group.
        group: GroupIndex,
        /// Groups of the run.
        total: u64,
    },
    /// It was sampled with another policy than the plan says.
    #[error(
        "group {group} of step {step}: expected it sampled with policy version {expected}, found {found}; drop it and ask for a lease"
    )]
    Version {
        /// The group.
        group: GroupIndex,
        /// Its step.
        step: StepIndex,
        /// The step minus the lag.
        expected: PolicyVersion,
        /// What was delivered.
        found: PolicyVersion,
    },
    /// It claims a version that nobody can have.
    #[error(
        "group {group}: sampled with policy version {found}, and the newest that was published is {newest}; drop it and ask for a lease"
    )]
    Unpublished {
        /// The group.
        group: GroupIndex,
        /// The claimed version.
        found: PolicyVersion,
        /// The newest version.
        newest: PolicyVersion,
    },
}

impl Refusal {
    /// The stable name on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Misfit { .. } => "malformed",
            Self::Unknown { .. } => "unknown-group",
            Self::Version { .. } | Self::Unpublished { .. } => "wrong-version",
        }
    }
}

impl Rules {
    /// The rules of a run.
    pub fn new(recipe: Recipe, model: &ModelConfig) -> Self {
        let (vocabulary, context) = (model.vocab_size, model.max_position_embeddings);
        Self { recipe, vocabulary, context }
    }

    /// Checks a message; `committed` steps are committed now.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn admit(&self, message: Message, committed: u64) -> Result<ScoredGroup, Refusal> {
        let group = GroupIndex(message.group);
        let total = self.recipe.shape.steps.get().saturating_mul(self.recipe.batch.get());
        if group.get() >= total {
            return Err(Refusal::Unknown { group, total });
        }
        let step = group.step(self.recipe.batch);
        let expected = step.sampled_with(self.recipe.lag);
        let found = PolicyVersion(message.policy_version);
        if found != expected {
            return Err(Refusal::Version { group, step, expected, found });
        }
        if found.get() > committed {
            return Err(Refusal::Unpublished { group, found, newest: PolicyVersion(committed) });
        }
        let scored = ScoredGroup::try_from(message)?;
        self.check_sizes(&scored)?;
        self.check_tokens(&scored)?;
        Ok(scored)
    }

    fn check_sizes(&self, group: &ScoredGroup) -> Result<(), Refusal> {
        let shape = &self.recipe.shape;
        let misfit = |expected: String, found: String| {
            Err(Refusal::Misfit { group: group.group, expected, found })
        };
        if group.completions.len() != shape.completions {
            let expected = format!("{} completions", shape.completions);
            return misfit(expected, group.completions.len().to_string());
        }
        let prompt = group.prompt_tokens.len();
        if prompt > shape.longest_prompt {
            let expected = format!("a prompt of at most {} tokens", shape.longest_prompt);
            return misfit(expected, prompt.to_string());
        }
        // A completion's last token is never read, so it may lie one past the context.
        let most = shape.max_tokens.min((self.context + 1).saturating_sub(prompt));
        match group.completions.iter().find(|completion| completion.tokens.len() > most) {
            None => Ok(()),
            Some(long) => misfit(
                format!("at most {most} tokens in sample {}", long.sample),
                long.tokens.len().to_string(),
            ),
        }
    }

    fn check_tokens(&self, group: &ScoredGroup) -> Result<(), Refusal> {
        let completions = group.completions.iter().flat_map(|completion| &completion.tokens);
        let mut all = group.prompt_tokens.iter().chain(completions);
        match all.find(|token| **token as usize >= self.vocabulary) {
            None => Ok(()),
            Some(token) => Err(Refusal::Misfit {
                group: group.group,
                expected: format!("token ids below the vocabulary's {}", self.vocabulary),
                found: token.to_string(),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
