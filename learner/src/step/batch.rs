//! A step's groups with what they teach, and how they are cut into micro-batches.
//!
//! Invariants: pure. Micro-batches take the groups in order and depend on their sizes and the limit
//! alone. A group with equal rewards and no KL penalty has a gradient of exactly zero: it is left out
//! of the micro-batches, and still counts in what losses are divided by. Where an objective picks
//! completions, the others go through no model and count in nothing.

use crate::advantage::GroupRewards;
use crate::error::LearnerError;
use crate::group::{ScoredCompletion, ScoredGroup};
use crate::objective::{BatchShape, CompletionLoss, Lesson, PolicyLoss, Tally, Terms};
use crate::update::micro_batches;
use octet_policy::layout::GroupTokens;
use octet_policy::model::Learned;
use std::num::NonZeroU64;

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
    lesson: Lesson,
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
        let prepare = |group: ScoredGroup| {
            let rewards = GroupRewards::new(group.rewards())
                .map_err(|source| LearnerError::Rewards { group: group.group, source })?;
            let lesson = loss.lesson(&rewards);
            let inert = loss.is_inert(&lesson);
            Ok(Prepared { group, lesson, inert })
        };
        let groups: Vec<_> =
            groups.into_iter().map(prepare).collect::<Result<_, LearnerError>>()?;
        // A step in which nothing was picked divides nothing, but has completions all the same.
        let picked = loss.objective().picks() && groups.iter().any(|group| !group.inert);
        let counted = groups.iter().filter(|group| !(picked && group.inert));
        let lengths = counted.flat_map(Prepared::completions).map(|c| c.tokens.len());
        let shape = BatchShape::new(lengths, max_tokens)
            .map_err(|source| LearnerError::Batch { step, source })?;
        Ok(Self { groups, loss, shape })
    }

    /// The groups, in order.
    pub fn groups(&self) -> impl Iterator<Item = &ScoredGroup> {
        self.groups.iter().map(|prepared| &prepared.group)
    }

    /// The groups that teach something, cut into runs of at most `limit` tokens.
    pub fn learned(&self, limit: usize) -> Vec<Vec<&Prepared>> {
        runs(self.groups.iter().filter(|group| !group.inert).collect(), limit)
    }

    /// The groups that do not, cut likewise.
    pub fn inert(&self, limit: usize) -> Vec<Vec<&Prepared>> {
        runs(self.groups.iter().filter(|group| group.inert).collect(), limit)
    }

    /// One group in `every` of those that teach something, or of all with `inert`, cut likewise: others at each step,
    /// and at least one where there is one.
    pub fn spread(
        &self,
        step: u64,
        every: NonZeroU64,
        inert: bool,
        limit: usize,
    ) -> Vec<Vec<&Prepared>> {
        let all: Vec<&Prepared> = self.groups.iter().filter(|g| inert || !g.inert).collect();
        let every = every.get().min(all.len() as u64).max(1);
        let due = (0..).zip(all).filter(|(at, _)| (step % every + at).is_multiple_of(every));
        runs(due.map(|(_, group)| group).collect(), limit)
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
        for prepared in micro_batch {
            for found in self.losses(prepared, slopes.len(), current, reference)? {
                tally.add(&found.statistics);
                slopes.extend(found.gradient);
            }
        }
        Ok(slopes)
    }

    /// The losses of a group's completions, whose first token's prediction is at `from`.
    fn losses(
        &self,
        prepared: &Prepared,
        mut from: usize,
        current: &Learned,
        reference: Option<&Learned>,
    ) -> Result<Vec<CompletionLoss>, LearnerError> {
        let fault = |completion: &ScoredCompletion, source| LearnerError::Objective {
            group: prepared.group.group,
            sample: completion.sample,
            source,
        };
        let mut all = Vec::new();
        for (completion, weight) in prepared.weighed() {
            let at = from..from + completion.tokens.len();
            from = at.end;
            let terms = Terms::new(
                weight,
                &completion.logprobs,
                current.logprobs.get(at.clone()).unwrap_or_default(),
            )
            .and_then(|terms| {
                terms.with_entropy(current.entropies.get(at.clone()).unwrap_or_default())
            })
            .and_then(|terms| match reference {
                Some(of) => terms.with_reference(of.logprobs.get(at.clone()).unwrap_or_default()),
                None => Ok(terms),
            });
            all.push((completion, terms.map_err(|source| fault(completion, source))?));
        }
        if let (Lesson::Preference { chosen, rejected }, [(first, one), (_, two)]) =
            (&prepared.lesson, all.as_slice())
        {
            let (better, worse) = if chosen < rejected { (one, two) } else { (two, one) };
            let pair = self.loss.evaluate_pair(better, worse, &self.shape);
            let pair = pair.map_err(|source| fault(first, source))?;
            return Ok(match chosen < rejected {
                true => vec![pair.chosen, pair.rejected],
                false => vec![pair.rejected, pair.chosen],
            });
        }
        let alone = all.iter().map(|(completion, terms)| {
            self.loss.evaluate(terms, &self.shape).map_err(|source| fault(completion, source))
        });
        alone.collect()
    }
}

/// Cuts groups into runs of at most `limit` tokens.
fn runs(groups: Vec<&Prepared>, limit: usize) -> Vec<Vec<&Prepared>> {
    let sizes: Vec<usize> = groups.iter().map(|group| group.size()).collect();
    micro_batches(&sizes, limit).into_iter().map(|run| groups[run].to_vec()).collect()
}

impl Prepared {
    /// The group itself.
    pub fn group(&self) -> &ScoredGroup {
        &self.group
    }

    /// The completions that go through the model, in order: those that teach, or all of a group that
    /// teaches nothing and is only measured.
    pub fn completions(&self) -> impl Iterator<Item = &ScoredCompletion> {
        self.weighed().map(|(completion, _)| completion)
    }

    /// The same, each with what it counts for.
    fn weighed(&self) -> impl Iterator<Item = (&ScoredCompletion, f64)> {
        let all = self.group.completions.iter().enumerate();
        all.filter_map(|(index, completion)| match self.lesson.weight(index) {
            Some(weight) => Some((completion, weight)),
            None => self.inert.then_some((completion, 0.0)),
        })
    }

    /// Tokens that go through the model: the prompt once, and the completions.
    pub fn size(&self) -> usize {
        let completions = self.completions().map(|completion| completion.tokens.len());
        self.group.prompt_tokens.len() + completions.sum::<usize>()
    }

    /// The token ids, as the policy wants them.
    pub fn tokens(&self) -> GroupTokens {
        GroupTokens {
            prefix: self.group.prompt_tokens.clone(),
            suffixes: self.completions().map(|c| c.tokens.clone()).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
