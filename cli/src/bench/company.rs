//! Who else used the machine while something was measured.
//!
//! Invariant: it only reads, and says nothing where the system does not.

use std::time::Instant;

/// Ticks of the system's processor clock a second, as Linux shows them on every architecture.
const TICKS: f64 = 100.0;

/// Watches from when it is made.
pub struct Company {
    since: Instant,
    busy: Option<u64>,
    own: Option<u64>,
}

impl Company {
    /// Begins to watch.
    pub fn watch() -> Self {
        Self { since: Instant::now(), busy: busy(), own: own() }
    }

    /// How many cores other processes used since, on average.
    pub fn others(&self) -> Option<f64> {
        let ticks = (busy()? - self.busy?) as f64 - (own()? - self.own?) as f64;
        Some((ticks / TICKS / self.since.elapsed().as_secs_f64()).max(0.0))
    }
}

/// Busy ticks of all cores.
fn busy() -> Option<u64> {
    sum_busy(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// Ticks of this process.
fn own() -> Option<u64> {
    sum_own(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// User, nice, system, and the interrupts; idle and waiting left out.
fn sum_busy(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|t| t.parse().ok()).collect();
    Some(ticks.get(..3)?.iter().sum::<u64>() + ticks.get(5..8)?.iter().sum::<u64>())
}

/// User and system, which follow the name in brackets and eleven others.
fn sum_own(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let ticks: Vec<&str> = rest.split_whitespace().collect();
    Some(ticks.get(11)?.parse::<u64>().ok()? + ticks.get(12)?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_s_words_are_understood() {
        let stat = "cpu  10 2 3 1000 50 4 5 6 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(sum_busy(stat), Some(10 + 2 + 3 + 4 + 5 + 6));
        let own = "77 (a b) c) R 1 2 3 4 5 6 7 8 9 10 120 30 0 0 20 0 4";
        assert_eq!(sum_own(own), Some(150));
        assert_eq!(sum_busy("intr 5\n"), None);
    }
}
