//! Which groups are done, which are out, and with whom.
//!
//! Invariants: a group of an allowed step is spooled, or leased, or open, and open is what is
//! neither of the other two, so none can be lost; the learner's word alone makes a group spooled;
//! of one group at most [`MAX_HOLDERS`] leases are out, to different workers.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use octet_proto::{GroupIndex, LeaseEpoch, StepIndex, WorkerId};

use crate::plan::RunPlan;

/// The most leases of one group that may be out: the first, and those of workers that help when all
/// earlier ones are late.
pub const MAX_HOLDERS: usize = 4;

/// One lease, as its holder has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub worker: WorkerId,
    pub epoch: LeaseEpoch,
    pub since: Duration,
    pub deadline: Duration,
    /// `since` is not when the work began: the lease was taken up again from a heartbeat, or the
    /// learner was away.
    pub adopted: bool,
}

/// A group with the leases of it.
#[derive(Debug, Clone, Default)]
struct Out {
    holders: Vec<Holder>,
}

/// The state of all groups that are allowed.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    /// Steps that the learner has committed; unknown until it registers.
    committed: Option<u64>,
    /// Groups in the spool that no committed step has consumed.
    spooled: BTreeSet<GroupIndex>,
    out: BTreeMap<GroupIndex, Out>,
    /// Of a group: the smallest epoch that may be taken up again.
    fences: BTreeMap<GroupIndex, LeaseEpoch>,
}

/// What is to become of a lease that a worker says it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is the worker's, renewed.
    Renewed,
    /// It is the worker's again, or under its new id.
    TakenUp,
    /// It is not: the worker has to stop.
    Lost,
}

/// What a learner's report ended: groups, each with the leases that were out.
pub(crate) type Ended = Vec<(GroupIndex, Vec<Holder>)>;

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            committed: None,
            spooled: BTreeSet::new(),
            out: BTreeMap::new(),
            fences: BTreeMap::new(),
        }
    }

    pub(crate) fn committed(&self) -> Option<u64> {
        self.committed
    }

    /// The groups that may be out; none before the learner said where the run stands.
    pub(crate) fn window(&self, plan: &RunPlan) -> Range<GroupIndex> {
        plan.groups_allowed(self.committed.unwrap_or(plan.steps.get()))
    }

    /// The groups of the step that the learner takes next.
    pub(crate) fn current(&self, plan: &RunPlan) -> Range<GroupIndex> {
        let window = self.window(plan);
        match self.committed {
            Some(committed) if !window.is_empty() => plan.groups_of(StepIndex(committed)),
            _ => window,
        }
    }

    /// The open groups of a range, lowest first.
    pub(crate) fn open(&self, range: Range<GroupIndex>) -> impl Iterator<Item = GroupIndex> {
        groups(range).filter(|g| !self.spooled.contains(g) && !self.out.contains_key(g))
    }

    /// The open groups of a range that somebody had been given and has not any more, lowest first.
    pub(crate) fn lost(&self, range: Range<GroupIndex>) -> impl Iterator<Item = GroupIndex> {
        self.open(range).filter(|group| self.fences.contains_key(group))
    }

    /// How many groups are open.
    pub(crate) fn open_count(&self, plan: &RunPlan) -> u64 {
        let window = self.window(plan);
        // Claims from before the learner spoke are out without a window.
        let size = window.end.get().saturating_sub(window.start.get());
        let out = self.out.range(window.clone()).count() as u64;
        let spooled = self.spooled.range(window).count() as u64;
        size.saturating_sub(out + spooled)
    }

    pub(crate) fn is_spooled(&self, group: GroupIndex) -> bool {
        self.spooled.contains(&group)
    }

    pub(crate) fn spooled(&self) -> &BTreeSet<GroupIndex> {
        &self.spooled
    }

    /// The leased groups with their leases, lowest first.
    pub(crate) fn out(&self) -> impl Iterator<Item = (GroupIndex, &[Holder])> {
        self.out.iter().map(|(group, out)| (*group, out.holders.as_slice()))
    }

    /// The leased groups of a range with their leases, lowest first.
    pub(crate) fn out_of(
        &self,
        range: Range<GroupIndex>,
    ) -> impl Iterator<Item = (GroupIndex, &[Holder])> {
        self.out.range(range).map(|(group, out)| (*group, out.holders.as_slice()))
    }

    /// The leases of a group that is out.
    pub(crate) fn holders(&self, group: GroupIndex) -> Option<&[Holder]> {
        self.out.get(&group).map(|out| out.holders.as_slice())
    }

    /// How many leases every worker holds.
    pub(crate) fn loads(&self) -> BTreeMap<WorkerId, u64> {
        let mut loads = BTreeMap::new();
        for holder in self.out.values().flat_map(|out| &out.holders) {
            *loads.entry(holder.worker).or_default() += 1;
        }
        loads
    }

    pub(crate) fn load(&self, worker: WorkerId) -> u64 {
        self.loads().remove(&worker).unwrap_or(0)
    }

    /// Leases an open group, or lends a leased one to a second worker.
    pub(crate) fn grant(&mut self, group: GroupIndex, holder: Holder) {
        let out = self.out.entry(group).or_default();
        if out.holders.is_empty() {
            // The holders of earlier leases have lost the group for good.
            self.fences.insert(group, holder.epoch);
        }
        out.holders.push(holder);
    }

    /// Renews a lease, or takes one up again that ran out, or that a restart forgot, while nobody
    /// else was given the group. The epoch is the proof: whoever presents it holds the lease, so a
    /// worker that registered anew keeps what it works on.
    pub(crate) fn claim(
        &mut self,
        plan: &RunPlan,
        group: GroupIndex,
        claimed: Holder,
        room: bool,
    ) -> Claim {
        // Before the learner has spoken any group of the run may be one that is allowed.
        let allowed = match self.committed {
            Some(committed) => plan.groups_allowed(committed).contains(&group),
            None => group.get() < plan.total_groups(),
        };
        if !allowed || self.spooled.contains(&group) {
            return Claim::Lost;
        }
        let fence = self.fences.get(&group).copied();
        let mut out = match self.out.entry(group) {
            Entry::Occupied(out) => out,
            Entry::Vacant(slot) => {
                if !room || fence.is_some_and(|fence| claimed.epoch < fence) {
                    return Claim::Lost;
                }
                self.fences.insert(group, claimed.epoch);
                slot.insert(Out { holders: vec![claimed] });
                return Claim::TakenUp;
            }
        };
        let holders = &mut out.get_mut().holders;
        let twice = holders.iter().any(|h| h.worker == claimed.worker && h.epoch != claimed.epoch);
        let Some(held) = holders.iter_mut().find(|h| h.epoch == claimed.epoch) else {
            return Claim::Lost;
        };
        let moves = held.worker != claimed.worker;
        if moves && (twice || !room) {
            return Claim::Lost;
        }
        held.worker = claimed.worker;
        held.deadline = held.deadline.max(claimed.deadline);
        if moves { Claim::TakenUp } else { Claim::Renewed }
    }

    /// Gives a lease back; its epoch is worth nothing from then on.
    pub(crate) fn release(
        &mut self,
        group: GroupIndex,
        epoch: LeaseEpoch,
        worker: WorkerId,
    ) -> bool {
        let Entry::Occupied(mut out) = self.out.entry(group) else { return false };
        let holders = &mut out.get_mut().holders;
        let before = holders.len();
        holders.retain(|held| !(held.epoch == epoch && held.worker == worker));
        let released = holders.len() < before;
        if holders.is_empty() {
            out.remove();
        }
        if released {
            let fence = self.fences.entry(group).or_insert(epoch);
            *fence = (*fence).max(epoch.next());
        }
        released
    }

    /// Ends every lease that `ends` names, and tells whose those were.
    pub(crate) fn end_where(&mut self, ends: impl Fn(&Holder) -> bool) -> Vec<WorkerId> {
        let mut ended = Vec::new();
        self.out.retain(|_, out| {
            ended.extend(out.holders.extract_if(.., |held| ends(held)).map(|held| held.worker));
            !out.holders.is_empty()
        });
        ended
    }

    /// Counts the time of every lease anew: what it took until now says nothing of its holder.
    pub(crate) fn begin_anew(&mut self, now: Duration) {
        for held in self.out.values_mut().flat_map(|out| &mut out.holders) {
            held.since = now;
            held.adopted = true;
        }
    }

    /// Adds what the learner reports on top of what is known: reports may be late, lost or doubled,
    /// so a smaller number of steps is an old one.
    pub(crate) fn advance(
        &mut self,
        plan: &RunPlan,
        committed: u64,
        spooled: &[GroupIndex],
    ) -> Ended {
        let committed = self.committed.map_or(committed, |known| known.max(committed));
        self.committed = Some(committed);
        let consumed = plan.groups_of(StepIndex(committed)).start;
        self.spooled.extend(spooled.iter().filter(|group| **group >= consumed));
        self.settle(plan, consumed)
    }

    /// Takes over what a learner has on its disk, be it more or less than was known.
    pub(crate) fn follow(
        &mut self,
        plan: &RunPlan,
        committed: u64,
        spooled: &[GroupIndex],
    ) -> Ended {
        self.spooled.clear();
        self.committed = None;
        self.advance(plan, committed, spooled)
    }

    /// Ends the leases that the learner's word has overtaken.
    fn settle(&mut self, plan: &RunPlan, consumed: GroupIndex) -> Ended {
        self.spooled = self.spooled.split_off(&consumed);
        self.fences = self.fences.split_off(&consumed);
        let window = self.window(plan);
        let mut ended = Vec::new();
        self.out.retain(|group, out| {
            let done = *group < consumed || self.spooled.contains(group);
            if done {
                ended.push((*group, std::mem::take(&mut out.holders)));
            }
            !done && window.contains(group)
        });
        self.fences.retain(|group, _| window.contains(group));
        ended
    }
}

/// The groups of a range, lowest first.
pub(crate) fn groups(range: Range<GroupIndex>) -> impl Iterator<Item = GroupIndex> {
    (range.start.get()..range.end.get()).map(GroupIndex)
}
