#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn rates(schedule: Schedule, steps: u64) -> Vec<f64> {
    (0..steps).map(|step| schedule.learning_rate(step)).collect()
}

fn assert_close(found: &[f64], expected: &[f64]) {
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-12, "expected {expected}, found {found}");
    }
}

#[test]
fn warm_up_is_linear_and_reaches_the_peak() {
    let schedule = Schedule::new(0.8, 4, 6, Decay::Constant).unwrap();
    assert_close(&rates(schedule, 8), &[0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8, 0.8]);
}

#[test]
fn cosine_goes_through_its_middle_to_the_floor_and_stays() {
    let schedule = Schedule::new(1.0, 0, 4, Decay::Cosine { floor: 0.2 }).unwrap();
    let quarter = 0.2 + 0.8 * 0.5 * (1.0 + std::f64::consts::FRAC_1_SQRT_2);
    let three_quarters = 0.2 + 0.8 * 0.5 * (1.0 - std::f64::consts::FRAC_1_SQRT_2);
    assert_close(&rates(schedule, 7), &[1.0, quarter, 0.6, three_quarters, 0.2, 0.2, 0.2]);
}

#[test]
fn warm_up_may_fill_the_run() {
    let schedule = Schedule::new(1.0, 2, 2, Decay::Cosine { floor: 0.0 }).unwrap();
    assert_close(&rates(schedule, 3), &[0.5, 1.0, 1.0]);
}

#[test]
fn nonsense_is_refused() {
    assert!(matches!(
        Schedule::new(f64::NAN, 0, 1, Decay::Constant),
        Err(ScheduleError::Peak { .. })
    ));
    assert!(matches!(
        Schedule::new(1.0, 0, 1, Decay::Cosine { floor: 1.5 }),
        Err(ScheduleError::Floor { .. })
    ));
    let error = Schedule::new(1.0, 5, 3, Decay::Constant).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected at most 3 warm-up steps, as many as the run has, found 5"
    );
}

proptest! {
    #[test]
    fn rates_stay_between_zero_and_the_peak(
        peak in 0.0f64..1.0, warmup in 0u64..20, more in 0u64..100, floor in 0.0f64..=1.0, step in 0u64..1000,
    ) {
        let schedule = Schedule::new(peak, warmup, warmup + more, Decay::Cosine { floor }).unwrap();
        let rate = schedule.learning_rate(step);
        prop_assert!((0.0..=peak * (1.0 + 1e-12)).contains(&rate));
        if step >= warmup {
            prop_assert!(rate >= peak * floor * (1.0 - 1e-12));
            prop_assert!(schedule.learning_rate(step + 1) <= rate);
        }
    }
}
