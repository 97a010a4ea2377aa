//! Decides who is in an epoch, and when it ends.
//!
//! Invariants: an identifier is used for one roster only, and once by each of its members; each stage but [`Stage::Together`], in which
//! nobody waits, ends at its deadline at the latest; whoever was late rests before it is asked again.
//!
//! A collective does not tell who hangs: from outside all of its members do. Who dies is silent and left
//! out of the next epoch, and so is who has not even begun when the deadline comes. Where there is nobody
//! such, all who are late rest; epochs that fail give strikes, and after [`STRIKES`] of them there is a
//! rest as well, in which versions come over gRPC.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::phase::{Eviction, Phase, Why};
use crate::words::{Epoch, Member, Order, Orders, Place, State, UniqueId};

/// Faults in a row after which a member is not asked for a while, though it reports them itself.
const STRIKES: u32 = 3;
/// How many evictions are remembered.
const EVICTIONS: usize = 16;

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

impl Default for Timing {
    /// For a few gigabytes over NVLink or a fast network, with the copies on both ends.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            name: seconds(10),
            sit: seconds(30),
            send: seconds(30),
            settle: seconds(1),
            silence: seconds(2),
            rest: seconds(60),
        }
    }
}

/// The state of the membership.
#[derive(Clone, Debug)]
pub struct Convener {
    timing: Timing,
    root: Member,
    now: Duration,
    epoch: Epoch,
    stage: Stage,
    /// Since when.
    since: Duration,
    members: BTreeMap<Member, Known>,
    evictions: VecDeque<Eviction>,
    evicted: u64,
    broadcasts: u64,
}

#[derive(Clone, Debug)]
struct Known {
    state: State,
    seen: Duration,
    strikes: u32,
    rests_until: Duration,
    /// Which process it is: another one under the same name has another number.
    session: u64,
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
            since: Duration::ZERO,
            members: BTreeMap::new(),
            evictions: VecDeque::new(),
            evicted: 0,
            broadcasts: 0,
        }
    }

    /// Whether anybody takes part, or did.
    pub fn is_in_use(&self) -> bool {
        !self.members.is_empty() || self.epoch > Epoch::default()
    }

    /// How long things may take.
    pub fn timing(&self) -> Timing {
        self.timing
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

    /// What the membership is doing.
    pub fn phase(&self) -> Phase {
        match &self.stage {
            Stage::Apart { .. } => Phase::Apart,
            Stage::Naming { .. } => Phase::Naming,
            Stage::Sitting { .. } => Phase::Forming,
            Stage::Together { .. } => Phase::Together,
            Stage::Sending { version, .. } => Phase::Sending(*version),
        }
    }

    /// Since when it does.
    pub fn since(&self) -> Duration {
        self.since
    }

    /// The members that it waits for.
    pub fn missing(&self) -> Vec<Member> {
        match &self.stage {
            Stage::Naming { .. } => vec![self.root],
            Stage::Sitting { table, .. } | Stage::Sending { table, .. } => {
                let late = table.roster.iter().filter(|member| !self.has_done(**member));
                late.copied().collect()
            }
            Stage::Apart { .. } | Stage::Together { .. } => Vec::new(),
        }
    }

    /// The version that a broadcast is about to bring to a member, and until when; if it has not come
    /// by then it never will.
    pub fn brings(&self, member: Member) -> Option<(u64, Duration)> {
        let Stage::Sending { table, version, until } = &self.stage else { return None };
        table.roster.contains(&member).then_some((*version, *until))
    }

    /// Who was left out lately, the newest last.
    pub fn evictions(&self) -> impl ExactSizeIterator<Item = &Eviction> {
        self.evictions.iter()
    }

    /// How many were, and how many versions a whole roster received.
    pub fn counts(&self) -> (u64, u64) {
        (self.evicted, self.broadcasts)
    }

    /// Takes a member's state in and tells it what to do. `session` is another number for each process that
    /// is this member. Time that goes backwards stands still.
    pub fn report(&mut self, now: Duration, member: Member, session: u64, state: State) -> Orders {
        self.now = self.now.max(now);
        let fresh =
            Known { state, seen: self.now, strikes: 0, rests_until: Duration::ZERO, session };
        let known = self.members.entry(member).or_insert(fresh);
        let reborn = known.session != session;
        (known.state, known.seen, known.session) = (state, self.now, session);
        if state.heard > self.epoch {
            // This convener has replaced one that had come further.
            self.epoch = state.heard;
            self.part();
        }
        // Whoever gives up at the deadline that it was told is no cause: it waited for others.
        self.end_late();
        let broken = state.failed == Some(self.epoch) && self.roster().contains(&member);
        if broken && let Some(known) = self.members.get_mut(&member) {
            known.strikes += 1;
            if known.strikes >= STRIKES {
                self.evict(member, Why::Faults, self.timing.rest);
            }
            self.part();
        }
        if reborn && self.roster().contains(&member) {
            // The place in the communicator is taken by what is gone.
            self.evict(member, Why::Reborn, Duration::ZERO);
            self.part();
        }
        self.tick(now);
        self.orders(member)
    }

    /// A member leaves for good, or its node was given up.
    pub fn leave(&mut self, now: Duration, member: Member) {
        self.now = self.now.max(now);
        if self.members.remove(&member).is_some() && self.roster().contains(&member) {
            self.evict(member, Why::Left, Duration::ZERO);
            self.part();
        }
        self.tick(now);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Duration) {
        self.now = self.now.max(now);
        let (now, silence) = (self.now, self.timing.silence);
        self.members.retain(|_, known| now.saturating_sub(known.seen) < silence);
        let gone = self.roster().iter().filter(|member| !self.members.contains_key(member));
        let gone: Vec<Member> = gone.copied().collect();
        for member in &gone {
            self.evict(*member, Why::Silent, Duration::ZERO);
        }
        if !gone.is_empty() {
            self.part();
        }
        self.end_late();
        // Each stage may be over as soon as it has begun.
        while self.advance() {}
    }

    /// Ends a stage whose deadline has passed. Those rest who have not begun; where all have, one of them
    /// hangs and nobody can say who, so all who are late do.
    fn end_late(&mut self) {
        let phase = self.phase();
        let late = match &self.stage {
            Stage::Naming { until } if *until <= self.now => self.missing(),
            Stage::Sitting { table, until } | Stage::Sending { table, until, .. }
                if *until <= self.now && !self.is_ready(table) =>
            {
                self.missing()
            }
            _ => return,
        };
        let idle: Vec<Member> = late.iter().copied().filter(|one| !self.has_begun(*one)).collect();
        let (who, why) = match idle.is_empty() {
            true => (late, Why::NotEnded(phase)),
            false => (idle, Why::NotBegun(phase)),
        };
        for member in who {
            self.evict(member, why, self.timing.rest);
        }
        self.part();
    }

    /// The next epoch will be without this member, at least for so long.
    fn evict(&mut self, member: Member, why: Why, rest: Duration) {
        let rests_until = self.now + rest;
        if let Some(known) = self.members.get_mut(&member) {
            known.rests_until = known.rests_until.max(rests_until);
        }
        self.evicted += 1;
        if self.evictions.len() == EVICTIONS {
            self.evictions.pop_front();
        }
        let (epoch, at) = (self.epoch, self.now);
        self.evictions.push_back(Eviction { epoch, member, why, at, rests_until });
    }

    /// Ends the epoch.
    fn part(&mut self) {
        self.stage = Stage::Apart { since: self.now };
        self.since = self.now;
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
                self.broadcasts += 1;
                Stage::Together { table: table.clone() }
            }
        };
        self.stage = next;
        self.since = now;
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

    /// Whether it has taken on what the stage waits for.
    fn has_begun(&self, member: Member) -> bool {
        let Some(known) = self.members.get(&member) else { return false };
        match &self.stage {
            Stage::Sitting { .. } => known.state.begun == Some((self.epoch, None)),
            Stage::Sending { version, .. } => {
                known.state.begun == Some((self.epoch, Some(*version)))
            }
            _ => false,
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
