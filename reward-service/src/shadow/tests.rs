#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn group(index: u64, behaviour: Behaviour, rewards: &[(f64, Option<f64>)]) -> ShadowGroup {
    let completions = rewards.iter().map(|(active, candidate)| Shadowed {
        text: format!("{active}"),
        active: (*active, "v".to_owned()),
        candidate: candidate
            .map(|reward| (reward, "w".to_owned()))
            .ok_or_else(|| "threw: no".to_owned()),
    });
    ShadowGroup { group: index, behaviour, completions: completions.collect() }
}

#[test]
fn rank_measures_are_the_textbooks() {
    // The example in scipy's documentation of `kendalltau`, and rho by hand: 1 - 6·2 / (4·15).
    let (a, b) = ([12.0, 2.0, 1.0, 12.0, 2.0], [1.0, 4.0, 7.0, 1.0, 0.0]);
    assert!((kendall(&a, &b).unwrap() + 0.471_404_520_791_031_7).abs() < 1e-12);
    assert!((spearman(&[1.0, 2.0, 3.0, 4.0], &[1.0, 3.0, 2.0, 4.0]).unwrap() - 0.8).abs() < 1e-12);
    assert_eq!(kendall(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), Some(-1.0));
    assert_eq!((kendall(&[1.0, 1.0], &[0.0, 1.0]), spearman(&[], &[])), (None, None));
}

#[test]
fn a_report_says_what_a_swap_would_change() {
    let groups = [
        // The same order, other spacing.
        group(0, Behaviour::Execute, &[(0.0, Some(0.0)), (0.5, Some(0.1)), (1.0, Some(1.0))]),
        // The best becomes the worst.
        group(1, Behaviour::Execute, &[(0.0, Some(1.0)), (1.0, Some(0.0))]),
        // Only the candidate tells them apart, and fails once.
        group(2, Behaviour::Refuse, &[(0.0, Some(0.5)), (0.0, None)]),
        // Only the active one does.
        group(3, Behaviour::Refuse, &[(0.0, Some(0.5)), (1.0, Some(0.5))]),
    ];
    let report = ShadowReport::new(&groups);
    assert_eq!((report.groups, report.ranked, report.best_changed), (4, 2, 1));
    assert_eq!((report.kendall, report.spearman), (Some(0.0), Some(0.0)));
    assert_eq!((report.gained, report.lost), (1, 1));
    assert_eq!(report.failures, BTreeMap::from([("threw".to_owned(), 1)]));
    let refuse = report.by_behaviour[&Behaviour::Refuse];
    assert_eq!((refuse.count, refuse.active, refuse.candidate), (4, 1.0, 1.5));
    assert_eq!(refuse.difference(), 0.125);
    let first = &report.disputes[0];
    assert_eq!(
        (first.group, first.sample),
        (1, 0),
        "the largest difference, the first of its kind"
    );
    let page = report.to_string();
    for said in ["4 with 9 completions", "in 1 groups (25.0%)", "1 × threw", "+0.125"] {
        assert!(page.contains(said), "{said} in\n{page}");
    }
    let same = ShadowReport::new(&groups[..0]);
    assert!(same.to_string().contains("agree on every completion"));
}

proptest! {
    #[test]
    fn measures_are_symmetric_bounded_and_agree_with_themselves(
        pairs in proptest::collection::vec((0u8..5, 0u8..5), 0..10),
    ) {
        let (a, b): (Vec<f64>, Vec<f64>) =
            pairs.iter().map(|(a, b)| (f64::from(*a) / 4.0, f64::from(*b) / 4.0)).unzip();
        for measure in [kendall, spearman] {
            let (one, other) = (measure(&a, &b), measure(&b, &a));
            prop_assert_eq!(one.is_some(), other.is_some());
            if let (Some(one), Some(other)) = (one, other) {
                prop_assert!((one - other).abs() < 1e-12 && one.abs() <= 1.0 + 1e-12);
            }
            if let Some(itself) = measure(&a, &a) {
                prop_assert!((itself - 1.0).abs() < 1e-12);
            }
        }
        let both: Vec<_> = a.iter().zip(&b).map(|(a, b)| (*a, Some(*b))).collect();
        let back: Vec<_> = a.iter().zip(&b).map(|(a, b)| (*b, Some(*a))).collect();
        let one = ShadowReport::new(&[group(0, Behaviour::Text, &both)]);
        let other = ShadowReport::new(&[group(0, Behaviour::Text, &back)]);
        prop_assert_eq!((one.best_changed, one.gained), (other.best_changed, other.lost));
        prop_assert_eq!(one.overall.active, other.overall.candidate);
    }
}
