//! What the learner tells: what is on its disk.
//!
//! Invariants: one learner counts at a time, the one that registered last; within its life reports
//! only add, so a late or doubled one is harmless; a registration replaces all that was believed.

use std::collections::BTreeMap;
use std::time::Duration;

use octet_proto::{ConfigDigest, GroupIndex, LeaseEpoch, StepIndex};

use super::ids::LearnerId;
use super::leasing::LeaseKey;
use super::ledger::{Ended, groups};
use super::record::Record;
use super::refusal::Refusal;
use super::status::{self, Queue, Wait};
use super::weights::Published;
use super::{Machine, check_text};

/// The learner that counts.
#[derive(Debug, Clone)]
pub(crate) struct Learner {
    pub id: LearnerId,
    pub endpoint: String,
    pub seen: Duration,
    pub learned_tokens: u64,
    pub waits: Vec<Wait>,
    pub queues: Vec<Queue>,
}

/// A learner that registers, with what is on its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearnerJoin {
    /// Digest of its configuration.
    pub config_digest: ConfigDigest,
    /// Where it takes groups and serves weights.
    pub endpoint: String,
    /// Steps committed.
    pub committed: u64,
    /// Groups in the spool that no committed step consumed.
    pub spooled: Vec<GroupIndex>,
    /// Policy versions that can be fetched from it.
    pub published: Vec<Published>,
}

/// A learner's report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LearnerReport {
    /// Steps committed.
    pub committed: u64,
    /// Groups in the spool: all, or those that are new.
    pub spooled: Vec<GroupIndex>,
    /// Policy versions that can be fetched from it now.
    pub published: Vec<Published>,
    /// What it waits for.
    pub waits: Vec<Wait>,
    /// Tokens learned since it started.
    pub learned_tokens: u64,
    /// How full its queues are.
    pub queues: Vec<Queue>,
    /// By which leases the groups came that are new in the spool.
    pub delivered: Vec<LeaseKey>,
}

impl Machine {
    /// Takes the learner in and follows what it has, be it more or less than was believed.
    pub fn register_learner(
        &mut self,
        now: Duration,
        join: LearnerJoin,
        records: &mut Vec<Record>,
    ) -> Result<LearnerId, Refusal> {
        self.tick(now);
        check_text("endpoint", &join.endpoint)?;
        check_text("config_digest", join.config_digest.as_str())?;
        check_published(&join.published)?;
        self.check_digest("the learner", &join.config_digest)?;
        self.check_range(join.committed, &join.spooled)?;
        let id = LearnerId(self.ids.fresh(records));
        if let Some(known) = self.committed().filter(|known| *known > join.committed) {
            tracing::warn!(known, found = join.committed, "follow a learner that went back");
        }
        // How long these leases took says nothing: the learner was away.
        self.ledger.follow(&self.plan, join.committed, &join.spooled);
        self.ledger.begin_anew(self.now);
        self.learner = Some(Learner {
            id,
            endpoint: join.endpoint,
            seen: self.now,
            learned_tokens: 0,
            waits: Vec::new(),
            queues: Vec::new(),
        });
        self.waiting_since = self.now;
        self.broadcasts.learner_anew(self.now);
        self.publish(join.published);
        Ok(id)
    }

    /// Takes a report in, and says whether the run is complete.
    pub fn report(
        &mut self,
        now: Duration,
        id: LearnerId,
        report: LearnerReport,
    ) -> Result<bool, Refusal> {
        self.tick(now);
        self.check_range(report.committed, &report.spooled)?;
        check_published(&report.published)?;
        let learner = self.learner.as_mut().ok_or(Refusal::UnknownLearner { learner: id })?;
        if learner.id != id {
            return Err(Refusal::SupersededLearner { learner: id, current: learner.id });
        }
        learner.seen = self.now;
        learner.learned_tokens = learner.learned_tokens.max(report.learned_tokens);
        learner.waits = status::bounded(report.waits);
        learner.queues = status::bounded_queues(report.queues);
        let before = self.stage();
        let ended = self.ledger.advance(&self.plan, report.committed, &report.spooled);
        self.credit(ended, &report.delivered);
        self.publish(report.published);
        if self.stage() != before {
            self.waiting_since = self.now;
        }
        Ok(self.is_complete())
    }

    /// Measures the workers by what the learner confirmed, and by whose lease it says that it came.
    /// Without that word a group with several holders is nobody's.
    fn credit(&mut self, ended: Ended, delivered: &[LeaseKey]) {
        let by: BTreeMap<GroupIndex, LeaseEpoch> =
            delivered.iter().map(|lease| (lease.group, lease.epoch)).collect();
        for (group, holders) in ended {
            let first = match (by.get(&group), holders.as_slice()) {
                (Some(epoch), holders) => holders.iter().find(|held| held.epoch == *epoch),
                (None, [alone]) => Some(alone),
                (None, _) => None,
            };
            let Some(first) = first.cloned() else { continue };
            for held in holders {
                let Some(worker) = self.workers.get_mut(&held.worker) else { continue };
                if held.epoch == first.epoch {
                    worker.delivered((!held.adopted).then_some(held.since), self.now);
                } else if held.since < first.since {
                    worker.overtaken(held.since, self.now);
                }
            }
        }
    }

    /// What the run waits for: the groups of a step, or the commit of it.
    fn stage(&self) -> Option<(StepIndex, bool)> {
        let step = StepIndex(self.committed()?);
        let full = groups(self.plan.groups_of(step)).all(|group| self.ledger.is_spooled(group));
        Some((step, full))
    }

    fn check_range(&self, committed: u64, spooled: &[GroupIndex]) -> Result<(), Refusal> {
        if committed > self.plan.steps.get() {
            return Err(Refusal::BadField {
                field: "committed_steps",
                expected: format!("at most the run's {} steps", self.plan.steps),
                found: committed.to_string(),
            });
        }
        let total = self.plan.total_groups();
        match spooled.iter().find(|group| group.get() >= total) {
            None => Ok(()),
            Some(group) => Err(Refusal::BadField {
                field: "spooled_groups",
                expected: format!("groups below the run's {total}"),
                found: group.to_string(),
            }),
        }
    }
}

fn check_published(published: &[Published]) -> Result<(), Refusal> {
    published.iter().try_for_each(|version| check_text("published.digest", &version.digest))
}
