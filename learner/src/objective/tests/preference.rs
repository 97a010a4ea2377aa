//! What is picked from a group, and the losses of what was picked: by hand, by finite differences, and
//! where numbers are extreme.
use super::*;

fn lesson(objective: Objective, rewards: &[f64]) -> Lesson {
    objective.lesson(&GroupRewards::new(rewards.to_vec()).unwrap(), 1e-4)
}

#[test]
fn the_best_and_the_worst_are_picked_and_the_first_of_equals() {
    let dpo = |rewards: &[f64]| lesson(Objective::Dpo, rewards);
    let pair = |chosen, rejected| Lesson::Preference { chosen, rejected };
    assert_eq!(dpo(&[0.5, 1.0, 0.0, 1.0, 0.0]), pair(1, 2));
    assert_eq!(dpo(&[0.0, 0.0, 0.5]), pair(2, 0));
    assert_eq!(dpo(&[1.0, 0.5]), pair(0, 1));
    assert_eq!(dpo(&[1.0, 1.0, 1.0]), Lesson::Nothing);
    let sft = |rewards: &[f64]| lesson(Objective::Sft, rewards);
    assert_eq!(sft(&[0.5, 1.0, 0.0, 1.0]), Lesson::Best(1));
    assert_eq!(sft(&[0.5, 0.5]), Lesson::Best(0));
    assert_eq!(sft(&[0.0, 0.0]), Lesson::Nothing);
    assert_eq!(sft(&[-1.0, -0.5]), Lesson::Nothing);
}

#[test]
fn what_was_picked_says_as_what() {
    let pair = lesson(Objective::Dpo, &[0.5, 1.0, 0.0]);
    let all = [0, 1, 2, 3].map(|at| (pair.weight(at), pair.picked(at)));
    assert_eq!(
        all,
        [(None, None), (Some(1.0), Some("chosen")), (Some(-1.0), Some("rejected")), (None, None)]
    );
    let best = lesson(Objective::Sft, &[0.0, 1.0]);
    assert_eq!([0, 1].map(|at| best.picked(at)), [None, Some("best")]);
    let advantages = lesson(Objective::DrGrpo, &[0.0, 1.0]);
    assert_eq!([0, 1].map(|at| advantages.weight(at)), [Some(-0.5), Some(0.5)]);
    assert_eq!(advantages.picked(1), None);
}

fn with_beta(beta: f64) -> Settings {
    settings(0.0, 0.0, 0.0).with_dpo_beta(beta).unwrap()
}

#[test]
fn dpo_by_hand() {
    // Chosen: twice as likely as for the reference at both tokens, so 4 times; rejected: half as likely.
    let (reference, twice, half) = ([ln(0.25); 2], [ln(0.5); 2], [ln(0.125)]);
    let chosen = Terms::new(1.0, &reference, &twice).unwrap().with_reference(&reference).unwrap();
    let rejected = Terms::new(-1.0, &half, &half).unwrap().with_reference(&reference[..1]).unwrap();
    // Two pairs in the step, of which this is one; β = ½, so the margin is ½·(ln 4 + ln 2) = ln √8.
    let batch = BatchShape::new([2, 1, 7, 7], 8).unwrap();
    let found = dpo(&chosen, &rejected, &with_beta(0.5), &batch).unwrap();
    let root = 8f64.sqrt();
    assert_close(found.chosen.statistics.loss, (1.0 + 1.0 / root).ln() / 2.0);
    assert_eq!(found.rejected.statistics.loss, 0.0);
    let slope = 0.5 / (1.0 + root) / 2.0;
    assert_gradient(&found.chosen, &[-slope; 2]);
    assert_gradient(&found.rejected, &[slope]);
    let preference = found.chosen.statistics.preference.unwrap();
    assert_close(preference.chosen_reward, 0.5 * 4f64.ln());
    assert_close(preference.rejected_reward, -0.5 * 2f64.ln());
    assert_eq!(found.rejected.statistics.preference, None);
    let mut tally = Tally::default();
    tally.add(&found.rejected.statistics);
    tally.add(&found.chosen.statistics);
    let seen = tally.statistics().preference.unwrap();
    assert_eq!((seen.pairs, seen.accuracy), (1, 1.0));
    assert_close(seen.margin, root.ln());
    // No ratio has a part in it.
    assert_eq!(tally.statistics().ratio_mean, 1.0);
}

#[test]
fn where_the_policy_is_the_reference_nobody_wins_yet() {
    let logprobs = [-0.5f32, -1.5];
    let terms = Terms::new(1.0, &logprobs, &logprobs).unwrap().with_reference(&logprobs).unwrap();
    let batch = BatchShape::new([2, 2], 8).unwrap();
    let found = dpo(&terms, &terms, &with_beta(0.1), &batch).unwrap();
    assert_close(found.chosen.statistics.loss, 2f64.ln());
    assert_gradient(&found.chosen, &[-0.05; 2]);
    let mut tally = Tally::default();
    tally.add(&found.chosen.statistics);
    let seen = tally.statistics().preference.unwrap();
    assert_eq!((seen.accuracy, seen.margin), (0.0, 0.0));
}

#[test]
fn a_pair_that_is_far_apart_is_finite() {
    let (near, far) = ([0.0f32], [-1e30f32]);
    let terms = |current, reference| {
        Terms::new(1.0, &near, current).unwrap().with_reference(reference).unwrap()
    };
    let batch = BatchShape::new([1, 1], 8).unwrap();
    let won = dpo(&terms(&near, &far), &terms(&far, &near), &with_beta(1.0), &batch).unwrap();
    assert_eq!((won.chosen.statistics.loss, won.chosen.gradient[0]), (0.0, 0.0));
    let lost = dpo(&terms(&far, &near), &terms(&near, &far), &with_beta(1.0), &batch).unwrap();
    assert!(lost.chosen.statistics.loss > 1e29);
    assert_eq!((lost.chosen.gradient[0], lost.rejected.gradient[0]), (-1.0, 1.0));
}

#[test]
fn sft_on_the_best_is_the_loss_of_octet_sft() {
    let (sampled, current) = three();
    let batch = BatchShape::new([3, 5], 16).unwrap();
    let terms = Terms::new(1.0, &sampled, &current).unwrap();
    let found = best_of_group(&terms, &settings(0.0, 0.0, 0.0), &batch).unwrap();
    let plain = sft(&current, std::num::NonZeroU64::new(8).unwrap()).unwrap();
    assert_eq!(found.gradient, plain.gradient);
    assert_close(found.statistics.loss, plain.loss);
    assert_gradient(&found, &[-0.125; 3]);
    assert_eq!(found.statistics.ratios, 0);
}

#[test]
fn what_dpo_cannot_do_is_named() {
    let terms = Terms::new(1.0, &[-1.0], &[-1.0]).unwrap();
    let batch = BatchShape::new([1, 1], 8).unwrap();
    let loss = PolicyLoss::new(Objective::Dpo, with_beta(0.1), 1e-4).unwrap();
    assert!(loss.needs_reference());
    assert_eq!(loss.evaluate(&terms, &batch), Err(ObjectiveError::Alone));
    let error = loss.evaluate_pair(&terms, &terms, &batch).unwrap_err();
    assert_eq!(error, ObjectiveError::NoReferenceForDpo);
    for beta in [0.0, -0.1, f64::NAN, f64::INFINITY] {
        let refused = settings(0.0, 0.0, 0.0).with_dpo_beta(beta);
        assert!(matches!(refused, Err(ObjectiveError::DpoBeta { .. })), "{beta}");
    }
}

proptest! {
    #[test]
    fn gradients_of_a_pair_pass_finite_differences(chosen in case(), rejected in case(), beta in 0.05f64..2.0) {
        let (settings, batch) = (with_beta(beta), BatchShape::new([9, 9, 9, 9], 16).unwrap());
        let loss = |one: &[f32], two: &[f32]| {
            dpo(&chosen.terms(one), &rejected.terms(two), &settings, &batch).unwrap()
        };
        let found = loss(&chosen.current, &rejected.current);
        for (case, gradient, first) in [
            (&chosen, &found.chosen.gradient, true),
            (&rejected, &found.rejected.gradient, false),
        ] {
            prop_assert_eq!(gradient.len(), case.current.len());
            for (token, expected) in gradient.iter().enumerate() {
                let at = |shift: f32| {
                    let mut moved = case.current.clone();
                    moved[token] += shift;
                    let by = f64::from(moved[token]) - f64::from(case.current[token]);
                    let pair = match first {
                        true => loss(&moved, &rejected.current),
                        false => loss(&chosen.current, &moved),
                    };
                    (pair.chosen.statistics.loss + pair.rejected.statistics.loss, by)
                };
                let (ahead, behind) = (at(1e-3), at(-1e-3));
                let slope = (ahead.0 - behind.0) / (ahead.1 - behind.1);
                let expected = f64::from(*expected);
                prop_assert!((slope - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{slope} {expected}");
            }
        }
    }
}
