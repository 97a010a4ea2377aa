//! How many of the open groups one worker is given.
//!
//! Invariant: an idle worker that asks gets at least one group when one is open, and a worker is
//! refused open groups only while workers that have room for them are expected to be faster.

/// A worker as the division sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// How many leases it holds.
    pub held: u64,
    /// How many it may hold.
    pub limit: u64,
    /// Groups per second, when measured.
    pub speed: Option<f64>,
}

/// How many of `open` groups the worker `me` is given, `want` at the most, beside the other active
/// workers. Unfinished work is divided by speed, so that all would finish it at the same time; what
/// the others have no room for is divided no further.
pub(crate) fn share(open: u64, want: u64, me: Load, others: &[Load]) -> u64 {
    let room = me.limit.saturating_sub(me.held).min(want).min(open);
    if room == 0 {
        return 0;
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
    let reserved: u64 =
        others.iter().map(|load| target(load).min(load.limit).saturating_sub(load.held)).sum();
    let fair = target(&me).saturating_sub(me.held).max(open.saturating_sub(reserved));
    fair.max(u64::from(me.held == 0)).min(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(held: u64, limit: u64, speed: Option<f64>) -> Load {
        Load { held, limit, speed }
    }

    #[test]
    fn alone_a_worker_gets_what_it_wants_and_can_hold() {
        assert_eq!(share(100, 16, load(0, 32, None), &[]), 16);
        assert_eq!(share(100, 64, load(20, 32, None), &[]), 12);
        assert_eq!(share(3, 64, load(0, 32, None), &[]), 3);
        assert_eq!(share(3, 0, load(0, 32, None), &[]), 0);
        assert_eq!(share(3, 8, load(32, 32, None), &[]), 0);
    }

    #[test]
    fn the_tail_of_a_step_is_divided_by_speed() {
        let slow = load(0, 16, Some(1.0));
        let fast = load(0, 16, Some(9.0));
        assert_eq!(share(10, 8, slow, &[fast]), 1);
        assert_eq!(share(10, 16, fast, &[slow]), 9);
        // The slow one holds its part already and leaves the rest.
        assert_eq!(share(9, 8, load(1, 16, Some(1.0)), &[fast]), 0);
    }

    #[test]
    fn equals_get_equal_parts() {
        let other = load(0, 32, None);
        assert_eq!(share(32, 32, load(0, 32, None), &[other]), 16);
        assert_eq!(share(32, 32, load(0, 32, None), &[other, other]), 11);
    }

    #[test]
    fn what_the_others_cannot_hold_is_not_kept_for_them() {
        let full = load(4, 4, Some(100.0));
        assert_eq!(share(20, 16, load(2, 32, Some(1.0)), &[full]), 16);
    }

    #[test]
    fn an_idle_worker_is_never_sent_away() {
        let fast = load(0, 1000, Some(1e9));
        assert_eq!(share(5, 8, load(0, 8, Some(1e-9)), &[fast]), 1);
    }
}
