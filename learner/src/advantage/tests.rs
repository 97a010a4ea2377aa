#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn values(rewards: &[f64], estimator: Estimator) -> Vec<f64> {
    GroupRewards::new(rewards.to_vec()).unwrap().advantages(estimator).values().to_vec()
}

fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-12, "expected {expected}, found {found}");
    }
}

#[test]
fn normalised_divides_by_the_sample_deviation_plus_epsilon() {
    // Mean 0.5, squared deviations 4 × 0.25 = 1, divisor 3: std = 1/√3.
    let std = (1.0f64 / 3.0).sqrt();
    let found = values(&[1.0, 0.0, 1.0, 0.0], Estimator::Normalised { epsilon: 1e-4 });
    let up = 0.5 / (std + 1e-4);
    assert_close(&found, &[up, -up, up, -up]);
}

#[test]
fn centred_only_subtracts_the_mean() {
    assert_close(&values(&[1.0, 0.5, 0.0, 0.5], Estimator::Centred), &[0.5, 0.0, -0.5, 0.0]);
}

#[test]
fn leave_one_out_compares_with_the_others() {
    // 1 − mean(0, 0.5, 0.5), 0 − mean(1, 0.5, 0.5), 0.5 − mean(1, 0, 0.5) twice.
    let expected = [1.0 - 1.0 / 3.0, -2.0 / 3.0, 0.0, 0.0];
    assert_close(&values(&[1.0, 0.0, 0.5, 0.5], Estimator::LeaveOneOut), &expected);
}

#[test]
fn equal_rewards_give_exact_zeros_and_are_flagged() {
    // The mean of three times 0.1 is not 0.1 in binary.
    for estimator in
        [Estimator::Normalised { epsilon: 1e-4 }, Estimator::Centred, Estimator::LeaveOneOut]
    {
        let advantages = GroupRewards::new(vec![0.1; 3]).unwrap().advantages(estimator);
        assert!(advantages.is_zero_variance());
        assert_eq!(advantages.values(), &[0.0; 3]);
    }
    let spread = GroupRewards::new(vec![0.0, 0.5]).unwrap().advantages(Estimator::Centred);
    assert!(!spread.is_zero_variance());
}

#[test]
fn unusable_rewards_are_named() {
    assert_eq!(GroupRewards::new(vec![1.0]), Err(RewardsError::TooFew { found: 1 }));
    let error = GroupRewards::new(vec![0.0, f64::NAN]).unwrap_err();
    assert!(error.to_string().contains("sample 1, found NaN"), "{error}");
    let error = GroupRewards::new(vec![f64::MAX, f64::MIN]).unwrap_err();
    assert!(matches!(error, RewardsError::Overflow { .. }));
}

proptest! {
    #[test]
    fn advantages_sum_to_zero_and_keep_the_order(rewards in prop::collection::vec(-1.0f64..1.0, 2..16)) {
        let group = GroupRewards::new(rewards.clone()).unwrap();
        for estimator in [Estimator::Normalised { epsilon: 1e-4 }, Estimator::Centred, Estimator::LeaveOneOut] {
            let advantages = group.advantages(estimator);
            let scale: f64 = advantages.values().iter().map(|value| value.abs()).sum();
            prop_assert!(advantages.values().iter().sum::<f64>().abs() <= 1e-12 * (1.0 + scale));
            for a in 0..rewards.len() {
                for b in 0..rewards.len() {
                    if rewards[a] > rewards[b] {
                        prop_assert!(advantages.values()[a] >= advantages.values()[b]);
                    }
                }
            }
        }
    }

    #[test]
    fn shifting_all_rewards_changes_no_advantage(rewards in prop::collection::vec(0.0f64..1.0, 8), shift in -8i32..8) {
        let shifted: Vec<f64> = rewards.iter().map(|reward| reward + f64::from(shift)).collect();
        let (a, b) = (values(&rewards, Estimator::Centred), values(&shifted, Estimator::Centred));
        for (a, b) in a.iter().zip(&b) {
            prop_assert!((a - b).abs() < 1e-12);
        }
    }
}
