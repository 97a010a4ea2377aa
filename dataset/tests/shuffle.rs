//! The order of examples: a permutation, keyed, and pinned to literal values.
#![allow(clippy::unwrap_used)]

use octet_dataset::{epoch_order, example_for_group};
use proptest::prelude::*;

#[test]
fn the_order_never_changes() {
    assert_eq!(epoch_order(0, 0, 10), [4, 2, 6, 9, 0, 1, 3, 5, 8, 7]);
    assert_eq!(epoch_order(7, 3, 12), [0, 8, 7, 9, 5, 1, 4, 10, 2, 11, 6, 3]);
}

#[test]
fn seed_and_epoch_both_matter() {
    let order = epoch_order(1, 1, 100);
    assert_ne!(order, epoch_order(2, 1, 100));
    assert_ne!(order, epoch_order(1, 2, 100));
    assert_eq!(order, epoch_order(1, 1, 100));
}

#[test]
fn a_group_maps_to_its_epoch_and_place() {
    for g in 0..35 {
        let (epoch, index) = example_for_group(g, 5, 10).unwrap();
        assert_eq!(epoch, g / 10);
        assert_eq!(index, epoch_order(5, epoch, 10)[(g % 10) as usize]);
    }
    assert_eq!(example_for_group(0, 5, 0), None);
}

#[test]
fn every_place_is_equally_likely() {
    // 6 permutations of 3 over 6,000 seeds: 1,000 each; 5 standard deviations are 144.
    let mut counts = std::collections::HashMap::new();
    for seed in 0..6000 {
        *counts.entry(epoch_order(seed, 0, 3)).or_insert(0i32) += 1;
    }
    assert_eq!(counts.len(), 6);
    assert!(counts.values().all(|count| (count - 1000).abs() < 144), "{counts:?}");
}

proptest! {
    #[test]
    fn an_order_is_a_permutation(seed: u64, epoch: u64, n in 0usize..300) {
        let mut order = epoch_order(seed, epoch, n);
        order.sort_unstable();
        prop_assert_eq!(order, (0..n).collect::<Vec<_>>());
    }
}
