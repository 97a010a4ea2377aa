//! A step's groups with their advantages, and how they are cut into micro-batches.
//!
//! Invariants: pure. Micro-batches take the groups in order and depend on their sizes and the limit
//! alone. A group with equal rewards and no KL penalty has a gradient of exactly zero: it is left out
//! of the micro-batches, and still counts in what losses are divided by.

use crate::advantage::{Advantages, GroupRewards};
use crate::error::LearnerError;
use crate::group::{ScoredCompletion, ScoredGroup};
use crate::objective::{BatchShape, PolicyLoss, Tally, Terms};
use crate::update::micro_batches;
use octet_policy::layout::GroupTokens;
use octet_policy::model::Learned;

/// All groups of a step.
#[derive(Debug)]
pub struct StepBatch {
    groups: Vec<Prepared>,
    loss: PolicyLoss,
    shape: BatchShape,
}

/// A group with what its rewards say.
#[derive(Debug)]
pub struct Prepared {
    group: ScoredGroup,
    advantages: Advantages,
    inert: bool,
}

impl StepBatch {
    /// Prepares a step's groups, given in the order of their indices.
    ///
    /// # Errors
    /// Names the group whose rewards cannot be used.
    pub fn new(
        step: u64,
        groups: Vec<ScoredGroup>,
        loss: PolicyLoss,
        max_tokens: usize,
    ) -> Result<Self, LearnerError> {
        let lengths = groups.iter().flat_map(|group| &group.completions).map(|c| c.tokens.len());
        let shape = BatchShape::new(lengths, max_tokens)
            .map_err(|source| LearnerError::Batch { step, source })?;
        let prepare = |group: ScoredGroup| {
            let rewards = GroupRewards::new(group.rewards())
                .map_err(|source| LearnerError::Rewards { group: group.group, source })?;
            let advantages = loss.advantages(&rewards);
            let inert = loss.is_inert(&advantages);
            Ok(Prepared { group, advantages, inert })
        };
        let groups = groups.into_iter().map(prepare).collect::<Result<_, LearnerError>>()?;
        Ok(Self { groups, loss, shape })
    }

    /// The groups, in order.
    pub fn groups(&self) -> impl Iterator<Item = &ScoredGroup> {
        self.groups.iter().map(|prepared| &prepared.group)
    }

    /// The groups that teach something, cut into runs of at most `limit` tokens.
    pub fn learned(&self, limit: usize) -> Vec<Vec<&Prepared>> {
        self.cut(limit, false)
    }

    /// The groups that do not, cut likewise.
    pub fn inert(&self, limit: usize) -> Vec<Vec<&Prepared>> {
        self.cut(limit, true)
    }

    fn cut(&self, limit: usize, inert: bool) -> Vec<Vec<&Prepared>> {
        let chosen: Vec<&Prepared> = self.groups.iter().filter(|g| g.inert == inert).collect();
        let sizes: Vec<usize> = chosen.iter().map(|group| group.size()).collect();
        micro_batches(&sizes, limit).into_iter().map(|run| chosen[run].to_vec()).collect()
    }

    /// `d loss / d logprob` of every completion token of a micro-batch, from the predictions of the
    /// policy and of the reference.
    ///
    /// # Errors
    /// Names the completion whose loss cannot be computed.
    pub fn slopes(
        &self,
        micro_batch: &[&Prepared],
        current: &Learned,
        reference: Option<&Learned>,
        tally: &mut Tally,
    ) -> Result<Vec<f32>, LearnerError> {
        let mut slopes = Vec::with_capacity(current.logprobs.len());
        for (prepared, completion, advantage) in completions(micro_batch) {
            let at = slopes.len()..slopes.len() + completion.tokens.len();
            let fault = |source| LearnerError::Objective {
                group: prepared.group.group,
                sample: completion.sample,
                source,
            };
            let terms = Terms::new(
                advantage,
                &completion.logprobs,
                current.logprobs.get(at.clone()).unwrap_or_default(),
            )
            .and_then(|terms| {
                terms.with_entropy(current.entropies.get(at.clone()).unwrap_or_default())
            })
            .and_then(|terms| match reference {
                Some(of) => terms.with_reference(of.logprobs.get(at.clone()).unwrap_or_default()),
                None => Ok(terms),
            })
            .map_err(fault)?;
            let found = self.loss.evaluate(&terms, &self.shape).map_err(fault)?;
            tally.add(&found.statistics);
            slopes.extend(found.gradient);
        }
        Ok(slopes)
    }
}

impl Prepared {
    /// The group itself.
    pub fn group(&self) -> &ScoredGroup {
        &self.group
    }

    /// Tokens that go through the model: the prompt once, and all completions.
    pub fn size(&self) -> usize {
        self.group.prompt_tokens.len() + self.group.completion_tokens()
    }

    /// The token ids, as the policy wants them.
    pub fn tokens(&self) -> GroupTokens {
        GroupTokens {
            prefix: self.group.prompt_tokens.clone(),
            suffixes: self.group.completions.iter().map(|c| c.tokens.clone()).collect(),
        }
    }
}

fn completions<'a>(
    micro_batch: &'a [&'a Prepared],
) -> impl Iterator<Item = (&'a Prepared, &'a ScoredCompletion, f64)> {
    micro_batch.iter().flat_map(|prepared| {
        let advantages = prepared.advantages.values();
        let completions = prepared.group.completions.iter().zip(advantages);
        completions.map(|(completion, advantage)| (*prepared, completion, *advantage))
    })
}

#[cfg(test)]
mod tests;
