//! Decides who is in an epoch, and when it ends.
//!
//! Invariants: an identifier is used for one roster only, and once by each of its members; each stage but [`Stage::Together`], in which
//! nobody waits, ends at its deadline at the latest; whoever was late rests before it is asked again.
//!
//! A collective does not tell who hangs: from outside all of its members do. Who dies is silent and left
//! out of the next epoch; where nobody is, the epochs that fail give strikes, and after [`STRIKES`] of them
//! there is a rest, in which versions come over gRPC.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::words::{Epoch, Member, Order, Orders, Place, State, UniqueId};

/// Faults in a row after which a member is not asked for a while, though it reports them itself.
const STRIKES: u32 = 3;

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Drawing an identifier.
    pub name: Duration,
    /// Forming the communicator.
    pub sit: Duration,
    /// Broadcasting one version.
    pub send: Duration,
    /// Between a break and the next epoch: whoever has not been heard of by then is not in it.
    pub settle: Duration,
    /// How long a member may be silent before it is forgotten.
    pub silence: Duration,
    /// How long one that was late is not asked.
    pub rest: Duration,
}

/// The state of the membership.
#[derive(Clone, Debug)]
pub struct Convener {
    timing: Timing,
    root: Member,
    now: Duration,
    epoch: Epoch,
    stage: Stage,
    members: BTreeMap<Member, Known>,
}

#[derive(Clone, Debug)]
struct Known {
    state: State,
    seen: Duration,
    strikes: u32,
    rests_until: Duration,
    /// The last epoch whose communicator it was told to form.
    told: Epoch,
}

#[derive(Clone, Debug)]
enum Stage {
    /// No communicator; the next epoch may begin when this time has come.
    Apart { since: Duration },
    /// The learner draws the identifier.
    Naming { until: Duration },
    /// The roster forms the communicator.
    Sitting { table: Table, until: Duration },
    /// The communicator is up and idle.
    Together { table: Table },
    /// The roster broadcasts a version.
    Sending { table: Table, version: u64, until: Duration },
}

/// The roster of an epoch with its identifier; the learner is the first.
#[derive(Clone, Debug)]
struct Table {
    id: UniqueId,
    roster: Vec<Member>,
}

impl Convener {
    /// Begins with nobody. `root` is the learner, which alone sends.
    pub fn new(root: Member, timing: Timing) -> Self {
        Self {
            timing,
            root,
            now: Duration::ZERO,
            epoch: Epoch::default(),
            stage: Stage::Apart { since: Duration::ZERO },
            members: BTreeMap::new(),
        }
    }

    /// The epoch that counts.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The members of the epoch's communicator, the learner first; empty while there is none.
    pub fn roster(&self) -> &[Member] {
        match &self.stage {
            Stage::Apart { .. } | Stage::Naming { .. } => &[],
            Stage::Sitting { table, .. }
            | Stage::Together { table }
            | Stage::Sending { table, .. } => &table.roster,
        }
    }

    /// When the stage is given up; none while nobody waits for anybody.
    pub fn deadline(&self) -> Option<Duration> {
        match self.stage {
            Stage::Apart { .. } | Stage::Together { .. } => None,
            Stage::Naming { until }
            | Stage::Sitting { until, .. }
            | Stage::Sending { until, .. } => Some(until),
        }
    }

    /// Takes a member's state in and tells it what to do. Time that goes backwards stands still.
    pub fn report(&mut self, now: Duration, member: Member, state: State) -> Orders {
        self.now = self.now.max(now);
        let fresh = Known {
            state,
            seen: self.now,
            strikes: 0,
            rests_until: Duration::ZERO,
            told: Epoch::default(),
        };
        let known = self.members.entry(member).or_insert(fresh);
        (known.state, known.seen) = (state, self.now);
        // It was told of the epoch and does not know it: another process under the same name, for which the
        // place in the communicator is taken. (Or its orders were lost, which costs an epoch.)
        let reborn = known.told == self.epoch && state.heard < self.epoch;
        if state.heard > self.epoch {
            // This convener has replaced one that had come further.
            self.epoch = state.heard;
            self.stage = Stage::Apart { since: self.now };
        }
        let broken = state.failed == Some(self.epoch) && self.roster().contains(&member);
        if broken && let Some(known) = self.members.get_mut(&member) {
            known.strikes += 1;
            if known.strikes >= STRIKES {
                known.rests_until = self.now + self.timing.rest;
            }
            self.stage = Stage::Apart { since: self.now };
        }
        if reborn && self.roster().contains(&member) {
            self.stage = Stage::Apart { since: self.now };
        }
        self.tick(now);
        let orders = self.orders(member);
        if let (Order::Sit(..) | Order::Send(..), Some(known)) =
            (orders.order, self.members.get_mut(&member))
        {
            known.told = self.epoch;
        }
        orders
    }

    /// A member leaves for good, or its node was given up.
    pub fn leave(&mut self, now: Duration, member: Member) {
        self.now = self.now.max(now);
        self.members.remove(&member);
        self.tick(now);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Duration) {
        self.now = self.now.max(now);
        let (now, silence) = (self.now, self.timing.silence);
        self.members.retain(|_, known| now.saturating_sub(known.seen) < silence);
        if self.roster().iter().any(|member| !self.members.contains_key(member)) {
            self.stage = Stage::Apart { since: now };
        }
        self.end_late();
        // Each stage may be over as soon as it has begun.
        while self.advance() {}
    }

    /// Ends a stage whose deadline has passed; those it waited for rest.
    fn end_late(&mut self) {
        let late: Vec<Member> = match &self.stage {
            Stage::Naming { until } if *until <= self.now => vec![self.root],
            Stage::Sitting { table, until } | Stage::Sending { table, until, .. }
                if *until <= self.now && !self.is_ready(table) =>
            {
                let ready = |member: &&Member| !self.has_done(**member);
                table.roster.iter().filter(ready).copied().collect()
            }
            _ => return,
        };
        for member in late {
            if let Some(known) = self.members.get_mut(&member) {
                known.rests_until = self.now + self.timing.rest;
            }
        }
        self.stage = Stage::Apart { since: self.now };
    }

    /// Goes one stage on, if it may.
    fn advance(&mut self) -> bool {
        let (now, timing) = (self.now, self.timing);
        let next = match &self.stage {
            Stage::Apart { since } => {
                let due = now >= *since + timing.settle;
                if !due || !self.may_sit(self.root, *since) || self.guests(*since).is_empty() {
                    return false;
                }
                self.epoch = self.epoch.next();
                Stage::Naming { until: now + timing.name }
            }
            Stage::Naming { .. } => {
                let named = self.members.get(&self.root).and_then(|root| root.state.named);
                let Some((_, id)) = named.filter(|(epoch, _)| *epoch == self.epoch) else {
                    return false;
                };
                let guests = self.guests(Duration::ZERO);
                if guests.is_empty() {
                    Stage::Apart { since: now }
                } else {
                    let roster = std::iter::once(self.root).chain(guests).collect();
                    let table = Table { id, roster };
                    Stage::Sitting { table, until: now + timing.sit }
                }
            }
            Stage::Sitting { table, .. } => {
                if !self.is_ready(table) {
                    return false;
                }
                Stage::Together { table: table.clone() }
            }
            Stage::Together { table } => match self.newest() {
                Some(version) if !self.all_hold(table, version) => {
                    Stage::Sending { table: table.clone(), version, until: now + timing.send }
                }
                // Between two versions, and only then, others may come in.
                _ if self.guests(Duration::ZERO).iter().any(|g| !table.roster.contains(g)) => {
                    Stage::Apart { since: now.saturating_sub(timing.settle) }
                }
                _ => return false,
            },
            Stage::Sending { table, .. } => {
                if !self.is_ready(table) {
                    return false;
                }
                for member in &table.roster {
                    if let Some(known) = self.members.get_mut(member) {
                        known.strikes = 0;
                    }
                }
                Stage::Together { table: table.clone() }
            }
        };
        self.stage = next;
        true
    }

    /// The newest version that the learner has.
    fn newest(&self) -> Option<u64> {
        self.members.get(&self.root).and_then(|root| root.state.holds)
    }

    fn all_hold(&self, table: &Table, version: u64) -> bool {
        table.roster.iter().all(|member| self.holds(*member, version))
    }

    fn holds(&self, member: Member, version: u64) -> bool {
        let known = self.members.get(&member);
        known.is_some_and(|known| known.state.holds.is_some_and(|held| held >= version))
    }

    /// Whether everybody of the roster has done what the stage waits for.
    fn is_ready(&self, table: &Table) -> bool {
        table.roster.iter().all(|member| self.has_done(*member))
    }

    fn has_done(&self, member: Member) -> bool {
        let Some(known) = self.members.get(&member) else { return false };
        match &self.stage {
            Stage::Sitting { .. } => known.state.seated == Some(self.epoch),
            Stage::Sending { version, .. } => known.state.done == Some((self.epoch, *version)),
            _ => true,
        }
    }

    /// Whether a member that was heard of since then may be in the next roster.
    fn may_sit(&self, member: Member, since: Duration) -> bool {
        let known = self.members.get(&member);
        known.is_some_and(|known| known.seen >= since && known.rests_until <= self.now)
    }

    /// The workers that may be in the next roster: heard of, rested, and holding what was sent before,
    /// so that nobody enters who lacks a version that no broadcast will bring.
    fn guests(&self, since: Duration) -> Vec<Member> {
        let newest = self.newest();
        let fit = |member: &Member| {
            *member != self.root
                && self.may_sit(*member, since)
                && newest.is_none_or(|version| self.holds(*member, version))
        };
        self.members.keys().copied().filter(fit).collect()
    }

    fn orders(&self, member: Member) -> Orders {
        let place = |table: &Table| {
            let rank = table.roster.iter().position(|other| *other == member)?;
            Some(Place { epoch: self.epoch, id: table.id, rank, world: table.roster.len() })
        };
        let order = match &self.stage {
            Stage::Naming { .. } if member == self.root => Order::Name(self.epoch),
            Stage::Apart { .. } | Stage::Naming { .. } => Order::Stand,
            Stage::Sitting { table, .. } | Stage::Together { table } => {
                place(table).map_or(Order::Stand, Order::Sit)
            }
            Stage::Sending { table, version, .. } => {
                place(table).map_or(Order::Stand, |place| Order::Send(place, *version))
            }
        };
        let left = self.deadline().map_or(self.timing.send, |at| at.saturating_sub(self.now));
        // A member of the roster gets the version by broadcast, or is out of it soon.
        let will_get = matches!(order, Order::Send(..));
        let catch_up = self
            .newest()
            .filter(|version| member != self.root && !will_get && !self.holds(member, *version));
        Orders { order, within: left, catch_up }
    }
}
