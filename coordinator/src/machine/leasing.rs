//! Which groups a worker is given.
//!
//! Invariants: only groups of steps that the lag allows, lowest first, each with the version and the
//! reward revision of its step; an open group of the step that the learner waits for goes before
//! anything else, and a second lease of such a group before the groups of later steps.

use std::collections::BTreeMap;
use std::time::Duration;

use octet_proto::{GroupIndex, LeaseEpoch, PolicyVersion, StepIndex, WorkerId};

use super::Machine;
use super::ledger::Holder;
use super::record::Record;
use super::refusal::Refusal;
use super::revisions::Revision;
use super::share::{Load, Share, share};
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

/// What a worker is to be given.
enum Pick {
    /// At least one.
    Groups(Vec<GroupIndex>),
    Nothing(Wait),
}

/// A worker and those beside it.
struct Loads {
    me: Load,
    /// Those that hold leases or ask for some.
    others: Vec<Load>,
    /// How many of them hold none.
    idle: u64,
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
        let worker = self.workers.get(&id).ok_or(Refusal::UnknownWorker { worker: id })?;
        if self.is_silent(worker.seen) {
            // Whoever asked may be gone, and a lease for it would only have to run out.
            let detail = "no heartbeat of the worker came since it asked".to_owned();
            return Ok(Offer::Nothing(Wait::new("heartbeat", detail)));
        }
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.asked = Some(self.now);
        }
        if self.is_complete() {
            return Ok(Offer::Complete);
        }
        let picked = match self.pick(id, want) {
            Pick::Groups(groups) => groups,
            Pick::Nothing(why) => return Ok(Offer::Nothing(why)),
        };
        let grants = picked.into_iter().filter_map(|group| self.grant(id, group, records));
        let leases = grants.collect();
        Ok(Offer::Grants(Grants { leases, sources: self.sources(id) }))
    }

    /// The groups to give to a worker: open ones, or those of a holder that keeps the run waiting.
    fn pick(&self, id: WorkerId, want: u64) -> Pick {
        let Loads { me, others, idle } = self.loads(id);
        let current = self.ledger.current(&self.plan);
        if me.held >= me.limit {
            // What another one has lost is not left lying for want of trust.
            let lost: Vec<GroupIndex> = self.ledger.lost(current).collect();
            let trusted = Load { limit: me.most.min(2 * me.limit), ..me };
            if let Share::Groups(count @ 1..) = share(lost.len() as u64, want, trusted, &others) {
                return Pick::Groups(lost.into_iter().take(count as usize).collect());
            }
            let Load { held, limit, .. } = me;
            let detail = format!(
                "the worker holds {held} leases and is given {limit} at a time; with each group that it delivers one more, up to twice its capacity"
            );
            return Pick::Nothing(Wait::new("room", detail));
        }
        let room = me.limit.saturating_sub(me.held).min(want);
        let helpers = idle + 1;
        // The learner waits for the current step alone: who can help there begins no later one.
        if self.ledger.open(current.clone()).next().is_none() {
            let helped = self.helps(id, room, helpers, current);
            if !helped.is_empty() {
                return Pick::Groups(helped);
            }
        }
        let window = self.ledger.window(&self.plan);
        let open = self.ledger.open_count(&self.plan);
        let groups: Vec<GroupIndex> = if open > 0 {
            match share(open, room, me, &others) {
                Share::Groups(count) => self.ledger.open(window).take(count as usize).collect(),
                Share::TooSlow { alone_s, others_s } => {
                    let detail = format!(
                        "the other workers sample all {open} open groups in {others_s:.1} s, and this one takes {alone_s:.1} s for one; it is tried again in a while"
                    );
                    return Pick::Nothing(Wait::new("quicker workers", detail));
                }
            }
        } else {
            self.helps(id, room, helpers, window)
        };
        if groups.is_empty() { Pick::Nothing(self.run_wait()) } else { Pick::Groups(groups) }
    }

    /// A worker and those beside it, as the division of the work sees them.
    fn loads(&self, id: WorkerId) -> Loads {
        let mut held: BTreeMap<WorkerId, (u64, Duration)> = BTreeMap::new();
        for holder in self.ledger.out().flat_map(|(_, holders)| holders) {
            let (count, oldest) = held.entry(holder.worker).or_insert((0, holder.since));
            *count += 1;
            *oldest = holder.since.min(*oldest);
        }
        let recently = self.now.saturating_sub(self.timing.heartbeat);
        let quickest = self.quickest();
        let mut loads = Loads { me: Load::default(), others: Vec::new(), idle: 0 };
        for (other, worker) in &self.workers {
            let (count, oldest) = held.get(other).copied().unwrap_or((0, self.now));
            let asks = worker.asked.is_some_and(|asked| asked >= recently);
            let in_time = self.ago(oldest) < self.pace(*other, quickest).late;
            let load = Load {
                held: count,
                limit: worker.allowance(),
                most: worker.limit(),
                speed: worker.meter.speed(),
                lease_s: worker.meter.expected_s(self.now),
                at_work: (asks && count < worker.allowance()) || (count > 0 && in_time),
            };
            if *other == id {
                loads.me = load;
            } else if count > 0 || asks {
                loads.idle += u64::from(count == 0);
                loads.others.push(load);
            }
        }
        if loads.others.is_empty() {
            // Nobody else would take what it is not given.
            loads.me.limit = loads.me.most;
        }
        loads
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
