//! How many of the open groups one worker is given.
//!
//! Invariant: an idle worker that asks gets at least one group when one is open, unless the others
//! are expected to have sampled all of them in less than half the time that it takes for one; and a
//! worker is refused open groups only while workers that have room for them are expected to be faster.

/// A worker as the division sees it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    /// How many leases it holds.
    pub held: u64,
    /// How many it is given.
    pub limit: u64,
    /// How many it may hold at all.
    pub most: u64,
    /// Groups per second, when measured.
    pub speed: Option<f64>,
    /// Seconds that one lease is expected to take, when measured.
    pub lease_s: Option<f64>,
    /// Whether it can be counted on: it asks for more, or what it works on is not late.
    pub at_work: bool,
}

/// What a worker is given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Share {
    /// So many groups; none when they are kept for others.
    Groups(u64),
    /// Nothing: the others take less than half as long, in seconds, for all as it does for one.
    TooSlow { alone_s: f64, others_s: f64 },
}

/// How many of `open` groups the worker `me` is given, `want` at the most, beside the other active
/// workers. Unfinished work is divided by speed among those who can be counted on, so that all would
/// finish it at the same time. Where a speed is a guess, what the others have no room for is not kept
/// for them.
pub(crate) fn share(open: u64, want: u64, me: Load, others: &[Load]) -> Share {
    let room = me.limit.saturating_sub(me.held).min(want).min(open);
    if room == 0 {
        return Share::Groups(0);
    }
    let others: Vec<Load> = others.iter().copied().filter(|load| load.at_work).collect();
    if let Some(refused) = too_slow(open, me, &others) {
        return refused;
    }
    let everyone = || others.iter().chain(std::iter::once(&me));
    let known: Vec<f64> = everyone().filter_map(|load| load.speed).collect();
    let mean = known.iter().sum::<f64>() / known.len() as f64;
    let weight = |load: &Load| {
        // Until anybody is measured, a worker is as fast as it is wide.
        load.speed.unwrap_or(if known.is_empty() { load.limit as f64 } else { mean })
    };
    let total: f64 = everyone().map(weight).sum();
    let unfinished = open + everyone().map(|load| load.held).sum::<u64>();
    let target = |load: &Load| ((unfinished as f64 * weight(load) / total).ceil()) as u64;
    let mut fair = target(&me).saturating_sub(me.held);
    if known.len() <= others.len() {
        let kept = |load: &Load| target(load).min(load.limit).saturating_sub(load.held);
        fair = fair.max(open.saturating_sub(others.iter().map(kept).sum()));
    }
    Share::Groups(fair.max(u64::from(me.held == 0)).min(room))
}

/// Whether the step would wait for a group of this worker longer than for everything else.
fn too_slow(open: u64, me: Load, others: &[Load]) -> Option<Share> {
    let alone_s = me.lease_s?;
    let measured = |load: &Load| Some((load.speed?, load.lease_s?, load.held));
    let (mut speed, mut quickest, mut held) = (0.0, f64::INFINITY, 0);
    for (other, lease_s, holds) in others.iter().filter_map(measured) {
        speed += other;
        quickest = lease_s.min(quickest);
        held += holds;
    }
    if speed <= 0.0 {
        return None;
    }
    let others_s = ((open + held) as f64 / speed).max(quickest);
    (alone_s > 2.0 * others_s).then_some(Share::TooSlow { alone_s, others_s })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(held: u64, limit: u64, speed: Option<f64>) -> Load {
        Load { held, limit, most: limit, speed, lease_s: None, at_work: true }
    }

    fn groups(open: u64, want: u64, me: Load, others: &[Load]) -> u64 {
        match share(open, want, me, others) {
            Share::Groups(groups) => groups,
            refused @ Share::TooSlow { .. } => panic!("{refused:?}"),
        }
    }

    #[test]
    fn alone_a_worker_gets_what_it_wants_and_can_hold() {
        assert_eq!(groups(100, 16, load(0, 32, None), &[]), 16);
        assert_eq!(groups(100, 64, load(20, 32, None), &[]), 12);
        assert_eq!(groups(3, 64, load(0, 32, None), &[]), 3);
        assert_eq!(groups(3, 0, load(0, 32, None), &[]), 0);
        assert_eq!(groups(3, 8, load(32, 32, None), &[]), 0);
    }

    #[test]
    fn the_tail_of_a_step_is_divided_by_speed() {
        let slow = load(0, 16, Some(1.0));
        let fast = load(0, 16, Some(9.0));
        assert_eq!(groups(10, 8, slow, &[fast]), 1);
        assert_eq!(groups(10, 16, fast, &[slow]), 9);
        // The slow one holds its part already and leaves the rest.
        assert_eq!(groups(9, 8, load(1, 16, Some(1.0)), &[fast]), 0);
    }

    #[test]
    fn equals_get_equal_parts() {
        let other = load(0, 32, None);
        assert_eq!(groups(32, 32, load(0, 32, None), &[other]), 16);
        assert_eq!(groups(32, 32, load(0, 32, None), &[other, other]), 11);
    }

    #[test]
    fn what_nobody_is_known_to_do_sooner_is_not_kept_for_others() {
        let full = load(4, 4, Some(100.0));
        assert_eq!(groups(20, 16, load(2, 32, Some(1.0)), &[full]), 0, "0.24 s for all of them");
        assert_eq!(groups(20, 16, load(2, 32, None), &[full]), 16);
        let hangs = Load { at_work: false, ..full };
        assert_eq!(groups(20, 16, load(2, 32, Some(1.0)), &[hangs]), 16);
    }

    #[test]
    fn an_idle_worker_is_sent_away_only_by_those_who_can_be_counted_on() {
        let slow = Load { lease_s: Some(20.0), ..load(0, 8, Some(0.05)) };
        let fast = Load { lease_s: Some(1.0), ..load(0, 8, Some(4.0)) };
        let refused = Share::TooSlow { alone_s: 20.0, others_s: 2.0 };
        assert_eq!(share(8, 8, slow, &[fast]), refused);
        // For 100 groups the fast one takes 25 s, and the slow one is of use with its part.
        assert_eq!(groups(100, 8, slow, &[fast]), 2);
        // One that hangs, or of which nothing is known, is no reason.
        assert_eq!(groups(8, 8, slow, &[Load { at_work: false, ..fast }]), 8);
        assert_eq!(groups(8, 8, slow, &[load(0, 8, None)]), 4);
        assert_eq!(groups(8, 8, Load { lease_s: None, ..slow }, &[fast]), 1);
    }
}
