//! The order in which a run visits its examples.
//!
//! Invariant: a group's example is a pure function of `(seed, n, g)`; nothing that happened earlier
//! in the run takes part, so a resumed run visits what the uninterrupted one would have.

use crate::draw::{Draw, Purpose};

/// The order of the `n` examples in this epoch: a permutation of `0..n`.
pub fn epoch_order(seed: u64, epoch: u64, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    Draw::keyed(Purpose::EpochOrder, seed, epoch, 0).shuffle(&mut order);
    order
}

/// The epoch and the example's index for group `g`, or `None` where there are no examples.
///
/// Draws the whole epoch's order; to walk many groups, keep the [`epoch_order`] of an epoch.
pub fn example_for_group(g: u64, seed: u64, n: usize) -> Option<(u64, usize)> {
    let size = u64::try_from(n).ok().filter(|&size| size > 0)?;
    let epoch = g / size;
    let order = epoch_order(seed, epoch, n);
    order.get((g % size) as usize).map(|&index| (epoch, index))
}
