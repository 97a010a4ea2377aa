//! What goes wrong in a run, drawn from its seed.
//!
//! Invariant: every fault ends, and after the last one nothing more goes wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use turmoil::Sim;

/// Until when faults begin.
const ROUGH: u64 = 12_000;
/// How long a fault may last.
const LONGEST: u64 = 6_000;
const MAX_FAULTS: u64 = 9;

/// Splitmix64: what is drawn is a function of the seed alone.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// What goes wrong, and with whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The host stops at once, and starts again with its files.
    Crash(String),
    /// Nothing comes through between two hosts; what was under way is lost.
    Partition(String, String),
    /// Nothing comes through in one direction.
    Deaf(String, String),
    /// What is sent between two hosts comes later, all at once.
    Hold(String, String),
    /// Messages between two hosts take so many milliseconds.
    Slow(String, String, u64),
}

/// A fault and its time, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spell {
    pub from: u64,
    pub until: u64,
    pub fault: Fault,
}

/// All that goes wrong in a run.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    spells: Vec<Spell>,
    begun: usize,
    ended: Vec<bool>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Spell { from, until, fault } in &self.spells {
            writeln!(f, "  {from:>6} to {until:>6} ms: {fault:?}")?;
        }
        Ok(())
    }
}

impl Faults {
    /// Draws the faults of a run between these hosts.
    pub fn draw(dice: &mut Dice, hosts: &[String]) -> Self {
        let mut spells: Vec<Spell> = Vec::new();
        let mut busy: BTreeMap<String, u64> = BTreeMap::new();
        let mut starts: Vec<u64> =
            (0..2 + dice.below(MAX_FAULTS - 1)).map(|_| 300 + dice.below(ROUGH)).collect();
        starts.sort_unstable();
        for from in starts {
            let until = from + 100 + dice.below(LONGEST);
            let one = dice.pick(hosts).clone();
            let other = dice.pick(hosts).clone();
            let kind = dice.below(10);
            let whose = if kind < 4 { one.clone() } else { link(&one, &other) };
            // One fault at a time for each host and for each link.
            if busy.get(&whose).is_some_and(|until| *until >= from) || (kind >= 4 && one == other) {
                continue;
            }
            busy.insert(whose, until);
            let fault = match kind {
                0..4 => Fault::Crash(one),
                4 | 5 => Fault::Partition(one, other),
                6 => Fault::Deaf(one, other),
                7 | 8 => Fault::Hold(one, other),
                _ => Fault::Slow(one, other, 100 + dice.below(900)),
            };
            spells.push(Spell { from, until, fault });
        }
        Self::of(spells)
    }

    /// These faults, in the order in which they begin.
    pub fn of(spells: Vec<Spell>) -> Self {
        let ended = vec![false; spells.len()];
        Self { spells, begun: 0, ended }
    }

    /// Begins and ends what is due.
    pub fn at(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        while let Some(spell) = self.spells.get(self.begun).filter(|spell| due(spell.from, now)) {
            spell.fault.begin(sim);
            self.begun += 1;
        }
        for (spell, ended) in self.spells[..self.begun].iter().zip(&mut self.ended) {
            if !*ended && due(spell.until, now) {
                *ended = true;
                spell.fault.end(sim);
            }
        }
    }
}

fn due(at: u64, now: Duration) -> bool {
    Duration::from_millis(at) <= now
}

fn link(one: &str, other: &str) -> String {
    let (first, second) = if one < other { (one, other) } else { (other, one) };
    format!("{first} and {second}")
}

impl Fault {
    pub fn begin(&self, sim: &mut Sim<'_>) {
        match self {
            Self::Crash(host) => sim.crash(host.as_str()),
            Self::Partition(a, b) => sim.partition(a.as_str(), b.as_str()),
            Self::Deaf(from, to) => sim.partition_oneway(from.as_str(), to.as_str()),
            Self::Hold(a, b) => sim.hold(a.as_str(), b.as_str()),
            Self::Slow(a, b, ms) => {
                sim.set_link_latency(a.as_str(), b.as_str(), Duration::from_millis(*ms));
            }
        }
    }

    pub fn end(&self, sim: &mut Sim<'_>) {
        match self {
            Self::Crash(host) => sim.bounce(host.as_str()),
            Self::Partition(a, b) => sim.repair(a.as_str(), b.as_str()),
            Self::Deaf(from, to) => sim.repair_oneway(from.as_str(), to.as_str()),
            Self::Hold(a, b) => sim.release(a.as_str(), b.as_str()),
            Self::Slow(a, b, _) => {
                sim.set_link_latency(a.as_str(), b.as_str(), Duration::from_millis(5));
            }
        }
    }
}
