//! Who broadcasts weights to whom: the convener between the run's own events.
//!
//! Invariants: a worker is told to wait for a broadcast only while one is under way that it takes part
//! in, and never beyond its deadline; whoever is not registered is in no epoch. While no member says
//! that it can take part, nothing here has any effect.

use std::collections::BTreeMap;
use std::time::Duration;

use octet_broadcast::wire::Parcel;
use octet_broadcast::{Convener, Epoch, Member, Order, Orders, Phase, State, Timing};
use octet_proto::{PolicyVersion, WorkerId};

use super::Machine;
use super::ids::LearnerId;
use super::status::Wait;

/// The learner's place, whoever it is: numbers of nodes count from 1.
const ROOT: Member = Member(0);
/// How many versions are remembered that a broadcast could be of.
const MOST_PARCELS: usize = 4;
/// The most characters of a fault that are logged.
const MAX_FAULT: usize = 512;

/// The broadcasts of a run.
#[derive(Debug, Clone)]
pub(crate) struct Broadcasts {
    convener: Convener,
    /// What broadcasts of the learner's newest versions carry: one may be under way when the next version
    /// is published.
    parcels: BTreeMap<PolicyVersion, Parcel>,
}

/// What a member says with its heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its state.
    pub state: State,
    /// What a broadcast of the version that it holds carries, in bytes; the learner's word alone counts.
    pub parcel_bytes: u64,
    /// Its last fault; empty when there was none.
    pub fault: String,
}

/// What a member is told in answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What it shall do.
    pub orders: Orders,
    /// What is to be broadcast, if something is.
    pub parcel: Option<Parcel>,
}

/// The broadcasts at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BroadcastView {
    /// The epoch that counts.
    pub epoch: Epoch,
    /// What it is doing.
    pub phase: Phase,
    /// Names of the communicator's members, the learner first.
    pub roster: Vec<String>,
    /// For how long it has been doing that.
    pub since_ago: Duration,
    /// Until that is given up; none while nobody waits.
    pub until_in: Option<Duration>,
    /// Versions that a whole roster received since the coordinator started.
    pub broadcasts: u64,
    /// Who was left out lately, the newest last.
    pub evictions: Vec<EvictionView>,
    /// How many were since the coordinator started.
    pub evicted: u64,
}

/// A member that an epoch ended without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvictionView {
    /// The epoch.
    pub epoch: Epoch,
    /// The member's name.
    pub member: String,
    /// Why.
    pub why: String,
    /// How long ago.
    pub ago: Duration,
    /// Until it is asked again.
    pub rests_in: Duration,
}

impl Broadcasts {
    /// With the usual clocks, as far as the run's own do not say otherwise.
    pub(super) fn usual(run: crate::plan::Timing) -> Self {
        let settle = run.heartbeat.saturating_mul(2);
        Self::new(Timing { settle, silence: run.lease, ..Timing::default() })
    }

    fn new(timing: Timing) -> Self {
        Self { convener: Convener::new(ROOT, timing), parcels: BTreeMap::new() }
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, now: Duration) {
        self.watch(|convener| convener.tick(now));
    }

    /// Another learner speaks for the root from now on.
    pub(super) fn learner_anew(&mut self, now: Duration) {
        self.parcels.clear();
        self.watch(|convener| convener.leave(now, ROOT));
    }

    /// A worker is gone.
    pub(super) fn worker_gone(&mut self, now: Duration, worker: WorkerId) {
        self.watch(|convener| convener.leave(now, member(worker)));
    }

    /// Until when a broadcast may still bring a version to a worker.
    pub(super) fn brings(&self, worker: WorkerId, version: PolicyVersion) -> Option<Duration> {
        let brings = self.convener.brings(member(worker));
        brings.filter(|(brought, _)| *brought == version.get()).map(|(_, until)| until)
    }

    /// Does something that may begin an epoch or end one, and logs it.
    fn watch<T>(&mut self, event: impl FnOnce(&mut Convener) -> T) -> T {
        let before = (self.convener.epoch(), self.convener.phase(), self.convener.counts().0);
        let answer = event(&mut self.convener);
        let after = (self.convener.epoch(), self.convener.phase(), self.convener.counts().0);
        if before != after {
            let (epoch, phase, members) = (after.0.0, after.1, self.convener.roster().len());
            tracing::debug!(epoch, %phase, members, "broadcasts");
        }
        let fresh = usize::try_from(after.2.saturating_sub(before.2)).unwrap_or(usize::MAX);
        let all = self.convener.evictions().len();
        for eviction in self.convener.evictions().skip(all.saturating_sub(fresh)) {
            let (epoch, member) = (eviction.epoch.0, eviction.member.0);
            tracing::warn!(epoch, member, why = %eviction.why, "a broadcast epoch ends without a member");
        }
        answer
    }
}

impl Machine {
    /// Changes the clocks of broadcasts, before the first member is heard of.
    pub fn change_broadcast_timing(&mut self, change: impl FnOnce(Timing) -> Timing) {
        self.broadcasts = Broadcasts::new(change(self.broadcasts.convener.timing()));
    }

    /// Takes in what a worker says of broadcasts; none is told what is not registered.
    pub fn broadcast_of_worker(
        &mut self,
        now: Duration,
        id: WorkerId,
        said: &Said,
    ) -> Option<Told> {
        self.tick(now);
        let name = self.workers.get(&id)?.name.clone();
        Some(self.hear(member(id), id.get(), &name, said))
    }

    /// The same of the learner. Its report comes first, so that what it has published is known.
    pub fn broadcast_of_learner(
        &mut self,
        now: Duration,
        id: LearnerId,
        said: &Said,
    ) -> Option<Told> {
        self.tick(now);
        self.learner.as_ref().filter(|learner| learner.id == id)?;
        self.know_parcel(said);
        Some(self.hear(ROOT, id.0, "the learner", said))
    }

    fn hear(&mut self, member: Member, session: u64, name: &str, said: &Said) -> Told {
        if self.is_complete() {
            // Nobody samples with the last version, and everybody goes home.
            let (order, within, catch_up) = (Order::Stand, Duration::ZERO, None);
            return Told { orders: Orders { order, within, catch_up }, parcel: None };
        }
        let now = self.now;
        let epoch = self.broadcasts.convener.epoch();
        if said.state.failed == Some(epoch) && self.broadcasts.convener.roster().contains(&member) {
            let fault: String = said.fault.chars().take(MAX_FAULT).collect();
            tracing::warn!(member = name, epoch = epoch.0, fault, "a broadcast failed");
        }
        let heard = |convener: &mut Convener| convener.report(now, member, session, said.state);
        let orders = self.broadcasts.watch(heard);
        let parcel = match orders.order {
            Order::Send(_, version) => {
                self.broadcasts.parcels.get(&PolicyVersion(version)).cloned()
            }
            _ => None,
        };
        Told { orders, parcel }
    }

    /// Notes what a broadcast of the learner's newest version carries.
    fn know_parcel(&mut self, said: &Said) {
        let newest = said.state.holds.map(PolicyVersion);
        let Some((version, known)) = newest.and_then(|v| Some((v, self.versions.get(&v)?))) else {
            return;
        };
        let (bytes, digest) = (said.parcel_bytes, known.published.digest.clone());
        let parcels = &mut self.broadcasts.parcels;
        parcels.insert(version, Parcel { version: version.get(), bytes, digest });
        while parcels.len() > MOST_PARCELS {
            parcels.pop_first();
        }
    }

    /// How the broadcasts stand; nothing while nobody takes part in any.
    pub(super) fn broadcast_view(&self) -> Option<BroadcastView> {
        let convener = &self.broadcasts.convener;
        if !convener.is_in_use() {
            return None;
        }
        let evictions = convener.evictions().map(|eviction| EvictionView {
            epoch: eviction.epoch,
            member: self.member_name(eviction.member),
            why: eviction.why.to_string(),
            ago: self.ago(eviction.at),
            rests_in: eviction.rests_until.saturating_sub(self.now),
        });
        let (evicted, broadcasts) = convener.counts();
        Some(BroadcastView {
            epoch: convener.epoch(),
            phase: convener.phase(),
            roster: convener.roster().iter().map(|member| self.member_name(*member)).collect(),
            since_ago: self.ago(convener.since()),
            until_in: convener.deadline().map(|until| until.saturating_sub(self.now)),
            broadcasts,
            evictions: evictions.collect(),
            evicted,
        })
    }

    /// Whom a broadcast waits for.
    pub(super) fn broadcast_wait(&self) -> Option<Wait> {
        let convener = &self.broadcasts.convener;
        let until = convener.deadline()?;
        let missing: Vec<String> =
            convener.missing().into_iter().map(|member| self.member_name(member)).collect();
        let (epoch, phase) = (convener.epoch(), convener.phase());
        let detail = format!("epoch {epoch}, {phase}: waits for {}", missing.join(", "));
        let within = until.saturating_sub(convener.since());
        Some(self.wait("broadcast", detail, convener.since(), within))
    }

    fn member_name(&self, member: Member) -> String {
        if member == ROOT {
            return "learner".to_owned();
        }
        let worker = self.workers.get(&WorkerId(member.0));
        worker.map_or_else(|| format!("worker {member}"), |worker| worker.name.clone())
    }
}

fn member(worker: WorkerId) -> Member {
    Member(worker.get())
}
