//! What workers tell: that they join, that they live, that they give leases back.
//!
//! Invariant: nothing that a worker says makes a group done, and nothing that it fails to say keeps
//! a group from being leased again.

use std::time::Duration;

use octet_proto::{ConfigDigest, PolicyVersion, WorkerId};

use super::leasing::LeaseKey;
use super::ledger::{Claim, Holder};
use super::record::Record;
use super::refusal::Refusal;
use super::status::{self, Queue, Wait};
use super::weights::Sources;
use super::worker::Worker;
use super::{MAX_WORKERS, Machine, check_text};
use crate::plan::MAX_WINDOW;

/// The most policy versions of a worker that are remembered.
const MAX_VERSIONS: usize = 64;

/// A worker that registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerJoin {
    /// What people call it; need not be unique.
    pub name: String,
    /// Digest of its configuration.
    pub config_digest: ConfigDigest,
    /// How many groups it samples at once.
    pub capacity: u64,
    /// Where it serves weights; empty when it does not.
    pub weights_endpoint: String,
}

/// A worker's heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beat {
    /// Policy versions that it holds.
    pub versions: Vec<PolicyVersion>,
    /// Groups that it works on, with their epochs. What is not named is not renewed.
    pub leases: Vec<LeaseKey>,
    /// What it waits for.
    pub waits: Vec<Wait>,
    /// Tokens sampled since it started.
    pub sampled_tokens: u64,
    /// How full its queues are.
    pub queues: Vec<Queue>,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// Named leases that are not the worker's: done, or somebody else's.
    pub revoked: Vec<LeaseKey>,
    /// The newest published policy version.
    pub newest_version: PolicyVersion,
    /// Whether the run is complete.
    pub complete: bool,
    /// Where to fetch the versions that the worker lacks.
    pub sources: Vec<Sources>,
}

impl Machine {
    /// Takes a worker in, at any time of the run.
    pub fn register_worker(
        &mut self,
        now: Duration,
        join: WorkerJoin,
        records: &mut Vec<Record>,
    ) -> Result<WorkerId, Refusal> {
        self.tick(now);
        check_text("name", &join.name)?;
        check_text("weights_endpoint", &join.weights_endpoint)?;
        check_text("config_digest", join.config_digest.as_str())?;
        self.check_digest(&format!("worker {}", join.name), &join.config_digest)?;
        if !(1..=MAX_WINDOW).contains(&join.capacity) {
            return Err(Refusal::BadField {
                field: "capacity",
                expected: format!("1 to {MAX_WINDOW} groups"),
                found: join.capacity.to_string(),
            });
        }
        if self.workers.len() >= MAX_WORKERS {
            return Err(Refusal::TooMany { what: "workers", limit: MAX_WORKERS });
        }
        let id = WorkerId(self.ids.fresh(records));
        let worker = Worker::new(join.name, join.capacity, join.weights_endpoint, self.now);
        self.workers.insert(id, worker);
        Ok(id)
    }

    /// Renews the leases that the worker names, and takes up again those that ran out, or that a
    /// restart of the coordinator forgot, unless the group is done or went to somebody else.
    pub fn heartbeat(&mut self, now: Duration, id: WorkerId, beat: Beat) -> Result<Pulse, Refusal> {
        self.tick(now);
        let worker = self.workers.get_mut(&id).ok_or(Refusal::UnknownWorker { worker: id })?;
        worker.seen = self.now;
        worker.versions = beat.versions;
        worker.versions.truncate(MAX_VERSIONS);
        worker.waits = status::bounded(beat.waits);
        worker.sampled_tokens = beat.sampled_tokens;
        worker.queues = status::bounded_queues(beat.queues);
        let limit = worker.limit();
        let mut load = self.ledger.load(id);
        let mut revoked = Vec::new();
        for lease in beat.leases {
            let claimed = Holder {
                worker: id,
                epoch: lease.epoch,
                since: self.now,
                deadline: self.now + self.timing.lease,
                adopted: true,
            };
            // A lease that was never given cannot be taken up again.
            let given = self.ids.issued(lease.epoch.get())
                && self.plan.step_of(lease.group) < self.revisions.settled_below();
            let claim = if given {
                self.ledger.claim(&self.plan, lease.group, claimed, load < limit)
            } else {
                Claim::Lost
            };
            match claim {
                Claim::Renewed => {}
                Claim::TakenUp => load += 1,
                Claim::Lost => revoked.push(lease),
            }
        }
        if let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.allowance() < load) {
            worker.works_on(load);
        }
        self.measure_spread();
        Ok(Pulse {
            revoked,
            sources: self.sources(id),
            newest_version: PolicyVersion(self.committed().unwrap_or(0)),
            complete: self.is_complete(),
        })
    }

    /// Opens the groups that a worker gives back, all of them when it leaves.
    ///
    /// Leaving is idempotent; a worker that is not known has left.
    pub fn release(
        &mut self,
        now: Duration,
        id: WorkerId,
        leases: &[LeaseKey],
        leaving: bool,
    ) -> Result<(), Refusal> {
        self.tick(now);
        if !self.workers.contains_key(&id) && !leaving {
            return Err(Refusal::UnknownWorker { worker: id });
        }
        for lease in leases {
            self.ledger.release(lease.group, lease.epoch, id);
        }
        if leaving {
            self.workers.remove(&id);
            self.broadcasts.worker_gone(self.now, id);
            self.ledger.end_where(|held| held.worker == id);
        } else if let Some(worker) = self.workers.get_mut(&id) {
            worker.seen = self.now;
        }
        Ok(())
    }
}
