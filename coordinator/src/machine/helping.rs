//! Which groups a worker samples though another one has them already.
//!
//! A step ends with its slowest group. A worker with room, and nothing open to begin that the learner
//! waits for, is given a second lease of a group whose holder is late, or is known to need far longer.
//! Both leases are valid to their end: a group sampled twice is the same group to the bit, the learner
//! takes the first delivery, and the other holder learns at its next heartbeat that it may stop.
//! Fencing the first holder instead would throw its work away, and a helper that dies would then cost
//! the step more than the slow worker.
//!
//! Invariant: nobody helps who does not expect to be first, and each further helper waits until all
//! before it are late, twice as late each time, so that a group which everybody finds hard is not
//! sampled by everybody.

use std::ops::Range;
use std::time::Duration;

use octet_proto::{GroupIndex, WorkerId};

use super::Machine;
use super::learner::Learner;
use super::ledger::{Holder, MAX_HOLDERS};
use super::worker::Meter;

/// A worker helps one that is not late, too, if that needs so many times longer than the helper.
const SOONER: f64 = 1.5;

/// How long leases take, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How long one usually takes.
    usual: Duration,
    /// The age from which on one is late.
    pub late: Duration,
}

impl Machine {
    /// The leased groups of a range that a worker may sample too, its part of them and at most `room`.
    pub(super) fn helps(
        &self,
        id: WorkerId,
        room: u64,
        helpers: u64,
        range: Range<GroupIndex>,
    ) -> Vec<GroupIndex> {
        // What is sampled waits for the learner then, and not for its holder.
        let silent = |learner: &Learner| self.ago(learner.seen) >= self.timing.lease;
        if self.learner.as_ref().is_none_or(silent) {
            return Vec::new();
        }
        let me = self.pace(id, self.quickest());
        let kept_waiting = self.ledger.out_of(range).filter(|(_, holders)| {
            let patience = 1u32 << (holders.len() - 1).min(MAX_HOLDERS);
            holders.len() < MAX_HOLDERS
                && holders
                    .iter()
                    .all(|held| held.worker != id && self.waits_for(held, me, patience))
        });
        let mut groups: Vec<GroupIndex> = kept_waiting.map(|(group, _)| group).collect();
        // Other idle workers help as well.
        let part = (groups.len() as u64).div_ceil(helpers.max(1)).min(room);
        groups.truncate(usize::try_from(part).unwrap_or(usize::MAX));
        groups
    }

    /// Whether a worker of this pace expects to be before the holder of a lease. `patience` lengthens
    /// what counts as late.
    fn waits_for(&self, held: &Holder, me: Pace, patience: u32) -> bool {
        let age = self.ago(held.since);
        let meter = self.workers.get(&held.worker).map(|worker| &worker.meter);
        // Of a holder that has delivered nothing yet the helper's own pace is expected.
        let late = meter.and_then(Meter::late).unwrap_or(me.late);
        let late = late.max(self.timing.heartbeat).saturating_mul(patience);
        let left = meter.and_then(Meter::usual).unwrap_or_default().saturating_sub(age);
        age >= late || left >= me.usual.mul_f64(SOONER).saturating_mul(patience)
    }

    /// The pace of a worker, and where it is not known yet, another one.
    pub(super) fn pace(&self, id: WorkerId, or: Pace) -> Pace {
        self.workers.get(&id).and_then(|worker| Pace::of(&worker.meter)).unwrap_or(or)
    }

    /// The pace of the quickest worker; before anybody's is known, a lease's time is taken for it.
    pub(super) fn quickest(&self) -> Pace {
        let known = self.workers.values().filter_map(|worker| Pace::of(&worker.meter));
        let usual = self.timing.lease;
        known.min_by_key(|pace| pace.usual).unwrap_or(Pace { usual, late: 2 * usual })
    }
}

impl Pace {
    fn of(meter: &Meter) -> Option<Self> {
        Some(Self { usual: meter.usual()?, late: meter.late()? })
    }
}
