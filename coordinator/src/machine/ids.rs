//! Numbers that name workers, learners and lease epochs.
//!
//! Invariant: no number is given out twice in the life of a run, restarts included. Numbers come
//! from blocks that are journaled before the first of them is used; a restart goes on above the
//! last block, so it may skip numbers and never repeats one.

use std::fmt;

use super::record::Record;

/// How many numbers are reserved by one journal write.
const BLOCK: u64 = 1024;

/// One incarnation of the learner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LearnerId(pub u64);

impl fmt::Display for LearnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The source of fresh numbers.
#[derive(Debug, Clone)]
pub(crate) struct Ids {
    next: u64,
    reserved_below: u64,
}

impl Ids {
    /// Goes on above every number that may have been given out before a restart.
    pub(crate) fn above(reserved_below: u64) -> Self {
        let next = reserved_below.max(1);
        Self { next, reserved_below: next }
    }

    /// A number that was never given out.
    pub(crate) fn fresh(&mut self, records: &mut Vec<Record>) -> u64 {
        if self.next >= self.reserved_below {
            self.reserved_below = self.next + BLOCK;
            records.push(Record::IdsReserved { below: self.reserved_below });
        }
        let id = self.next;
        self.next += 1;
        id
    }

    /// Whether `id` may have been given out.
    pub(crate) fn issued(&self, id: u64) -> bool {
        (1..self.next).contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_never_repeats_a_number() {
        let mut records = Vec::new();
        let mut ids = Ids::above(0);
        let given: Vec<u64> = (0..BLOCK + 1).map(|_| ids.fresh(&mut records)).collect();
        assert_eq!(records.len(), 2, "one record per block");
        let Some(Record::IdsReserved { below }) = records.last() else {
            panic!("expected a reservation, found {records:?}");
        };
        let mut restarted = Ids::above(*below);
        let next = restarted.fresh(&mut records);
        assert!(given.iter().all(|id| *id < next));
        assert!(restarted.issued(given[0]) && !restarted.issued(next + 1));
    }
}
