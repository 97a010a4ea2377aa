//! Which groups a worker is given.
//!
//! Invariants: only groups of steps that the lag allows, lowest first, each with the version and the
//! reward revision of its step; an open group goes before a second lease of one that is out.
//!
//! A second lease is for a step that waits for a slow worker. Both leases are valid to their end: a
//! group sampled twice is the same group to the bit, the learner takes the first delivery, and the
//! other holder learns at its next heartbeat that it may stop. Fencing the first holder instead would
//! throw its work away, and a helper that dies would then cost the step more than the slow worker.

use std::time::Duration;

use octet_proto::{GroupIndex, LeaseEpoch, PolicyVersion, StepIndex, WorkerId};

use super::Machine;
use super::ledger::{Holder, MAX_HOLDERS};
use super::record::Record;
use super::refusal::Refusal;
use super::revisions::Revision;
use super::share::{Load, share};
use super::status::Wait;
use super::weights::Sources;

/// What names a lease: its group, and the epoch that fences it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseKey {
    /// The group.
    pub group: GroupIndex,
    /// The lease's epoch.
    pub epoch: LeaseEpoch,
}

/// A lease, as it is given to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Which lease it is.
    pub key: LeaseKey,
    /// The step that consumes the group.
    pub step: StepIndex,
    /// The policy version to sample with.
    pub version: PolicyVersion,
    /// The reward revision to score with.
    pub revision: Revision,
    /// For how long the lease lasts unless it is renewed.
    pub lasts: Duration,
}

/// Groups to sample, and what is needed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// The leases; never none.
    pub leases: Vec<Grant>,
    /// Where to fetch the versions that the worker lacks.
    pub sources: Vec<Sources>,
}

/// The answer to a worker that asks for groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// Groups to sample.
    Grants(Grants),
    /// The run is complete: there will be no more groups.
    Complete,
    /// Nothing now, and why.
    Nothing(Wait),
}

impl Machine {
    /// Answers a worker that asks for at most `want` groups.
    pub fn lease(
        &mut self,
        now: Duration,
        id: WorkerId,
        want: u64,
        records: &mut Vec<Record>,
    ) -> Result<Offer, Refusal> {
        self.tick(now);
        let worker = self.workers.get_mut(&id).ok_or(Refusal::UnknownWorker { worker: id })?;
        worker.seen = self.now;
        self.offer(now, id, want, records)
    }

    /// Answers a question again that had to wait. Unlike [`Machine::lease`] it is no sign of life.
    pub fn offer(
        &mut self,
        now: Duration,
        id: WorkerId,
        want: u64,
        records: &mut Vec<Record>,
    ) -> Result<Offer, Refusal> {
        self.tick(now);
        let worker = self.workers.get_mut(&id).ok_or(Refusal::UnknownWorker { worker: id })?;
        worker.asked = Some(self.now);
        let limit = worker.limit();
        if self.is_complete() {
            return Ok(Offer::Complete);
        }
        let picked = self.pick(id, want);
        if picked.is_empty() {
            let held = self.ledger.load(id);
            return Ok(Offer::Nothing(if held >= limit {
                Wait::new("room", format!("the worker holds {held} leases and may hold {limit}"))
            } else {
                self.run_wait()
            }));
        }
        let grants = picked.into_iter().filter_map(|group| self.grant(id, group, records));
        let leases = grants.collect();
        Ok(Offer::Grants(Grants { leases, sources: self.sources(id) }))
    }

    /// The groups to give to a worker: open ones, else those of a holder that is slow.
    fn pick(&self, id: WorkerId, want: u64) -> Vec<GroupIndex> {
        let loads = self.ledger.loads();
        let load_of = |id: &WorkerId| loads.get(id).copied().unwrap_or(0);
        let recently = self.now.saturating_sub(self.timing.heartbeat);
        let mut me = Load { held: 0, limit: 0, speed: None };
        let mut others = Vec::new();
        for (other, worker) in &self.workers {
            let held = load_of(other);
            let load = Load { held, limit: worker.limit(), speed: worker.meter.speed() };
            if *other == id {
                me = load;
            } else if held > 0 || worker.asked.is_some_and(|asked| asked >= recently) {
                others.push(load);
            }
        }
        let open = self.ledger.open_count(&self.plan);
        if open > 0 {
            let count = share(open, want, me, &others);
            return self.ledger.open(&self.plan).take(count as usize).collect();
        }
        // Only the idle help: who holds nothing does not hold the group either.
        if me.held > 0 {
            return Vec::new();
        }
        let room = want.min(me.limit) as usize;
        let patience = self.patience(id);
        let slow = |held: &Holder| self.now.saturating_sub(held.since) >= patience;
        let lent = self.ledger.out().filter(|(group, holders)| {
            self.ledger.window(&self.plan).contains(group)
                && holders.len() < MAX_HOLDERS
                && holders.iter().all(slow)
        });
        lent.map(|(group, _)| group).take(room).collect()
    }

    /// How old a lease is before an idle worker may have its group too: twice what the idle worker
    /// itself takes, so that it can expect to be first, and at least two heartbeats.
    fn patience(&self, id: WorkerId) -> Duration {
        let own = self.workers.get(&id).and_then(|worker| worker.meter.usual());
        let usual = own.unwrap_or(self.timing.lease);
        usual.saturating_mul(2).max(self.timing.heartbeat.saturating_mul(2))
    }

    fn grant(
        &mut self,
        id: WorkerId,
        group: GroupIndex,
        records: &mut Vec<Record>,
    ) -> Option<Grant> {
        let step = self.plan.step_of(group);
        let revision = self.revisions.of_step(step)?.clone();
        self.revisions.settle(step, records);
        let epoch = LeaseEpoch(self.ids.fresh(records));
        let holder = Holder {
            worker: id,
            epoch,
            since: self.now,
            deadline: self.now + self.timing.lease,
            adopted: false,
        };
        self.ledger.grant(group, holder);
        Some(Grant {
            key: LeaseKey { group, epoch },
            step,
            version: self.plan.version_of(step),
            revision,
            lasts: self.timing.lease,
        })
    }
}
