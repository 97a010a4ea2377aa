//! Hand-computed values, finite differences of each objective's own loss, and the promises about
//! micro-batches. TRL's values are in `tests/trl_parity.rs`.
#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn settings(low: f64, high: f64, kl_beta: f64) -> Settings {
    Settings::new(ClipRange::new(low, high).unwrap(), kl_beta).unwrap()
}

fn ln(value: f64) -> f32 {
    value.ln() as f32
}

fn assert_close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-6, "expected {expected}, found {found}");
}

fn assert_gradient(found: &CompletionLoss, expected: &[f64]) {
    assert_eq!(found.gradient.len(), expected.len());
    for (found, expected) in found.gradient.iter().zip(expected) {
        assert_close(f64::from(*found), *expected);
    }
}

/// Three tokens sampled at probability 0.5, now at ratios 0.5, 1.0 and 1.5.
fn three() -> (Vec<f32>, Vec<f32>) {
    (vec![ln(0.5); 3], vec![ln(0.25), ln(0.5), ln(0.75)])
}

#[test]
fn grpo_clips_the_side_that_the_advantage_pushes_to() {
    let (sampled, current) = three();
    let batch = BatchShape::new([3, 7], 10).unwrap();
    let settings = settings(0.2, 0.2, 0.0);
    // A = 2: min picks 0.5, 1.0 and the clipped 1.2.
    let up = grpo(&Terms::new(2.0, &sampled, &current).unwrap(), &settings, &batch).unwrap();
    assert_gradient(&up, &[-0.1, -0.2, 0.0]);
    assert_close(up.statistics.loss, -2.0 * (0.5 + 1.0 + 1.2) / 10.0);
    assert_eq!((up.statistics.clipped_low, up.statistics.clipped_high), (0, 1));
    // A = −2: the clipped 0.8, then 1.0 and 1.5.
    let down = grpo(&Terms::new(-2.0, &sampled, &current).unwrap(), &settings, &batch).unwrap();
    assert_gradient(&down, &[0.0, 0.2, 0.3]);
    assert_close(down.statistics.loss, 2.0 * (0.8 + 1.0 + 1.5) / 10.0);
    assert_eq!((down.statistics.clipped_low, down.statistics.clipped_high), (1, 0));
    assert_close(down.statistics.ratio_max, 1.5);
    assert_close(down.statistics.ratio_sum, 3.0);
}

#[test]
fn dr_grpo_divides_by_the_constant_length() {
    let (sampled, current) = three();
    let batch = BatchShape::new([3, 7], 16).unwrap();
    let terms = Terms::new(2.0, &sampled, &current).unwrap();
    let loss = dr_grpo(&terms, &settings(0.2, 0.2, 0.0), &batch).unwrap();
    assert_gradient(&loss, &[-1.0 / 32.0, -2.0 / 32.0, 0.0]);
    assert_close(loss.statistics.loss, -2.0 * 2.7 / 32.0);
}

#[test]
fn dapo_clips_higher_above() {
    let sampled = vec![ln(0.5); 2];
    let current = vec![ln(0.625), ln(0.65)];
    let batch = BatchShape::new([2], 8).unwrap();
    let terms = Terms::new(1.0, &sampled, &current).unwrap();
    let (low, high) = Objective::Dapo.default_clip();
    let loss = dapo(&terms, &settings(low, high, 0.0), &batch).unwrap();
    // 1.25 is inside 1.28, 1.3 is not.
    assert_gradient(&loss, &[-0.625, 0.0]);
    assert_close(loss.statistics.loss, -(1.25 + 1.28) / 2.0);
}

#[test]
fn rloo_multiplies_the_ratios_and_averages_completions() {
    let sampled = vec![ln(0.5), ln(0.5)];
    let current = vec![ln(0.55), ln(0.5)];
    let batch = BatchShape::new([2, 5, 5, 5], 8).unwrap();
    let terms = Terms::new(3.0, &sampled, &current).unwrap();
    let loss = rloo(&terms, &settings(0.2, 0.2, 0.0), &batch).unwrap();
    assert_gradient(&loss, &[-3.0 * 1.1 / 4.0; 2]);
    assert_close(loss.statistics.loss, -3.0 * 1.1 / 4.0);
    // Two tokens at 1.1 each make 1.21: clipped, both of them.
    let current = vec![ln(0.55); 2];
    let terms = Terms::new(3.0, &sampled, &current).unwrap();
    let loss = rloo(&terms, &settings(0.2, 0.2, 0.0), &batch).unwrap();
    assert_eq!(loss.gradient, [0.0, 0.0]);
    assert_eq!((loss.statistics.ratios, loss.statistics.clipped_high), (1, 1));
}

#[test]
fn gspo_takes_the_geometric_mean() {
    let sampled = vec![ln(0.5), ln(0.5)];
    // √(1.21 · 1) = 1.1.
    let current = vec![ln(0.605), ln(0.5)];
    let batch = BatchShape::new([2, 9], 9).unwrap();
    let terms = Terms::new(1.0, &sampled, &current).unwrap();
    let loss = gspo(&terms, &settings(0.2, 0.2, 0.0), &batch).unwrap();
    assert_gradient(&loss, &[-1.1 / 4.0; 2]);
    assert_close(loss.statistics.loss, -0.55);
}

#[test]
fn cispo_keeps_the_gradient_of_clipped_tokens() {
    let (sampled, current) = three();
    let batch = BatchShape::new([3], 8).unwrap();
    let terms = Terms::new(2.0, &sampled, &current).unwrap();
    let loss = cispo(&terms, &settings(1.0, 0.2, 0.0), &batch).unwrap();
    assert_gradient(&loss, &[-2.0 * 0.5 / 3.0, -2.0 / 3.0, -2.0 * 1.2 / 3.0]);
    let by_hand = 0.5 * 0.25f64.ln() + 0.5f64.ln() + 1.2 * 0.75f64.ln();
    assert_close(loss.statistics.loss, -2.0 * by_hand / 3.0);
    assert_eq!((loss.statistics.clipped_low, loss.statistics.clipped_high), (0, 1));
}

#[test]
fn k3_is_zero_at_equality_and_by_hand_elsewhere() {
    assert_eq!(k3(-1.5, -1.5), (0.0, 0.0));
    // reference = 2 × current's probability: 2 − ln 2 − 1, slope 1 − 2.
    let (value, slope) = k3(0.25f64.ln(), 0.5f64.ln());
    assert_close(value, 1.0 - 2f64.ln());
    assert_close(slope, -1.0);
}

#[test]
fn kl_is_weighed_like_the_tokens_of_its_objective() {
    let (sampled, current) = ([ln(0.5); 2], [ln(0.25); 2]);
    let reference = [ln(0.5); 2];
    let batch = BatchShape::new([2, 3, 3], 10).unwrap();
    // Advantage 0 leaves KL alone; its slope is −1 at every token.
    let terms = Terms::new(0.0, &sampled, &current).unwrap().with_reference(&reference).unwrap();
    for (objective, weight) in [
        (Objective::Grpo, 1.0 / 8.0),
        (Objective::DrGrpo, 1.0 / 30.0),
        (Objective::Dapo, 1.0 / 8.0),
        (Objective::Rloo, 1.0 / 3.0),
        (Objective::Gspo, 1.0 / 6.0),
        (Objective::Cispo, 1.0 / 8.0),
    ] {
        let settings = objective.settings(None, None, 0.5).unwrap();
        let loss =
            PolicyLoss::new(objective, settings, 1e-4).unwrap().evaluate(&terms, &batch).unwrap();
        assert_gradient(&loss, &[-0.5 * weight; 2]);
        assert_close(loss.statistics.loss, 0.5 * weight * 2.0 * (1.0 - 2f64.ln()));
        assert_close(loss.statistics.kl.unwrap(), 2.0 * (1.0 - 2f64.ln()));
    }
}

#[test]
fn without_a_coefficient_the_reference_is_only_measured() {
    let (sampled, current) = three();
    let batch = BatchShape::new([3], 8).unwrap();
    let plain = Terms::new(1.0, &sampled, &current).unwrap();
    let measured = plain.with_reference(&sampled).unwrap();
    let settings = settings(0.2, 0.2, 0.0);
    let (plain, measured) =
        (grpo(&plain, &settings, &batch).unwrap(), grpo(&measured, &settings, &batch).unwrap());
    assert_eq!(plain.gradient, measured.gradient);
    assert_eq!(plain.statistics.loss, measured.statistics.loss);
    assert!(plain.statistics.kl.is_none() && measured.statistics.kl.unwrap() > 0.0);
}

#[test]
fn on_policy_ratios_are_exactly_one() {
    let logprobs = [-0.1f32, -3.7, -0.000_1];
    let batch = BatchShape::new([3], 8).unwrap();
    let terms = Terms::new(1.0, &logprobs, &logprobs).unwrap();
    for objective in Objective::ALL.into_iter().filter(|objective| !objective.picks()) {
        let settings = objective.settings(None, None, 0.0).unwrap();
        let loss =
            PolicyLoss::new(objective, settings, 1e-4).unwrap().evaluate(&terms, &batch).unwrap();
        assert_eq!(loss.statistics.ratio_max, 1.0, "{objective}");
        assert_eq!(loss.statistics.log_ratio_max, 0.0);
        assert!(loss.gradient.iter().all(|slope| *slope == loss.gradient[0] && *slope < 0.0));
    }
}

#[test]
fn bad_inputs_are_named() {
    let batch = BatchShape::new([1], 8).unwrap();
    assert_eq!(Terms::new(1.0, &[], &[]).unwrap_err(), ObjectiveError::Empty);
    let error = Terms::new(1.0, &[0.0], &[0.0, 0.0]).unwrap_err().to_string();
    assert!(error.starts_with("expected 1 current log-probabilities"), "{error}");
    let error = Terms::new(1.0, &[0.0, 0.0], &[0.0, f32::NAN]).unwrap_err().to_string();
    assert!(error.contains("found NaN at token 1"), "{error}");
    assert!(matches!(BatchShape::new([], 8), Err(ObjectiveError::EmptyBatch { .. })));
    assert!(matches!(ClipRange::new(1.5, 0.2), Err(ObjectiveError::ClipRange { .. })));
    let terms = Terms::new(1.0, &[-1.0], &[-1.0]).unwrap();
    let error = grpo(&terms, &settings(0.2, 0.2, 0.1), &batch).unwrap_err();
    assert_eq!(error, ObjectiveError::NoReference { beta: 0.1 });
    // A negative advantage is not clipped from above: e^100 leaves f32.
    let terms = Terms::new(-1.0, &[-100.0], &[0.0]).unwrap();
    let error = grpo(&terms, &settings(0.2, 0.2, 0.0), &batch).unwrap_err();
    assert!(matches!(error, ObjectiveError::Exploded { token: 0, .. }), "{error}");
    // Where the range holds it, even an overflowing ratio is harmless.
    let terms = Terms::new(1.0, &[-1000.0], &[0.0]).unwrap();
    let loss = grpo(&terms, &settings(0.2, 0.2, 0.0), &batch).unwrap();
    assert!(loss.gradient[0] == 0.0 && loss.statistics.ratio_max.is_finite());
}

#[test]
fn names_read_back_and_the_nearest_is_offered() {
    for objective in Objective::ALL {
        assert_eq!(objective.name().parse::<Objective>(), Ok(objective));
    }
    let error = "dr_grpo".parse::<Objective>().unwrap_err();
    assert_eq!(error.nearest, "dr-grpo");
    assert_eq!(
        "capo".parse::<Objective>().unwrap_err().to_string(),
        "expected an objective (grpo, dr-grpo, dapo, rloo, gspo, cispo, dpo, sft), found \"capo\"; did you mean \"dapo\"?"
    );
    let read: Result<Objective, _> = serde_json::from_str("\"GRPO\"");
    assert!(read.unwrap_err().to_string().contains("did you mean \"grpo\""));
}

#[test]
fn inert_groups_are_those_without_variance_and_without_kl() {
    let equal = GroupRewards::new(vec![0.5; 8]).unwrap();
    let spread = GroupRewards::new(vec![0.5, 1.0]).unwrap();
    let wrong = GroupRewards::new(vec![0.0; 8]).unwrap();
    let inert = |objective: Objective, beta, rewards: &GroupRewards| {
        let settings = objective.settings(None, None, beta).unwrap();
        let loss = PolicyLoss::new(objective, settings, 1e-4).unwrap();
        loss.is_inert(&loss.lesson(rewards))
    };
    assert!(inert(Objective::Grpo, 0.0, &equal));
    assert!(!inert(Objective::Grpo, 0.0, &spread));
    assert!(!inert(Objective::Grpo, 0.1, &equal));
    assert!(inert(Objective::Dpo, 0.0, &equal) && !inert(Objective::Dpo, 0.0, &spread));
    // The best of equals is learned, unless all are worth nothing: then KL has nothing to hold, either.
    assert!(!inert(Objective::Sft, 0.0, &equal) && !inert(Objective::Sft, 0.0, &spread));
    assert!(inert(Objective::Sft, 0.0, &wrong) && inert(Objective::Sft, 0.1, &wrong));
}

#[test]
fn sft_is_the_mean_negative_log_likelihood() {
    let tokens = std::num::NonZeroU64::new(4).unwrap();
    let loss = sft(&[-1.0, -2.0, -3.0], tokens).unwrap();
    assert_eq!((loss.gradient, loss.loss), (vec![-0.25; 3], 1.5));
    assert_eq!(sft(&[], tokens), Err(ObjectiveError::Empty));
    assert!(sft(&[f32::NEG_INFINITY], tokens).is_err());
}

mod preference;

/// The objective's own loss as a function of the log-probabilities. For `cispo` the weights are
/// those of `base`, since its gradient holds them constant.
fn own_loss(loss: &PolicyLoss, case: &Case, current: &[f32], batch: &BatchShape) -> f64 {
    if loss.objective() != Objective::Cispo {
        return loss.evaluate(&case.terms(current), batch).unwrap().statistics.loss;
    }
    let clip = loss.settings().clip();
    let mut sum = 0.0;
    for (token, logprob) in current.iter().enumerate() {
        let ratio = f64::from(case.current[token] - case.sampled[token]).exp();
        let weight = ratio.clamp(1.0 - clip.low(), 1.0 + clip.high());
        sum += -weight * case.advantage * f64::from(*logprob);
        sum +=
            loss.settings().kl_beta() * k3(f64::from(*logprob), f64::from(case.reference[token])).0;
    }
    sum / batch.tokens() as f64
}

#[derive(Clone, Debug)]
struct Case {
    advantage: f64,
    sampled: Vec<f32>,
    current: Vec<f32>,
    reference: Vec<f32>,
}

impl Case {
    fn terms<'a>(&'a self, current: &'a [f32]) -> Terms<'a> {
        let terms = Terms::new(self.advantage, &self.sampled, current).unwrap();
        terms.with_reference(&self.reference).unwrap()
    }
}

prop_compose! {
    fn case()(advantage in -2.0f64..2.0, tokens in prop::collection::vec((-4.0f32..-0.1, -0.4f32..0.4, -0.4f32..0.4), 1..6)) -> Case {
        Case {
            advantage,
            sampled: tokens.iter().map(|token| token.0).collect(),
            current: tokens.iter().map(|token| token.0 + token.1).collect(),
            reference: tokens.iter().map(|token| token.0 + token.2).collect(),
        }
    }
}

proptest! {
    #[test]
    fn gradients_pass_finite_differences(case in case(), which in 0usize..Objective::ALL.len(), beta in prop::sample::select(vec![0.0, 0.3])) {
        let objective = Objective::ALL[which];
        prop_assume!(objective != Objective::Dpo);
        let settings = objective.settings(Some(0.2), Some(0.25), beta).unwrap();
        let loss = PolicyLoss::new(objective, settings, 1e-4).unwrap();
        let batch = BatchShape::new([case.sampled.len(), 3], 16).unwrap();
        let found = loss.evaluate(&case.terms(&case.current), &batch).unwrap();
        for token in 0..case.sampled.len() {
            let at = |shift: f32| {
                let mut current = case.current.clone();
                current[token] += shift;
                let clipped = loss.evaluate(&case.terms(&current), &batch).unwrap().statistics;
                let moved = f64::from(current[token]) - f64::from(case.current[token]);
                let sides = (clipped.clipped_low, clipped.clipped_high);
                (own_loss(&loss, &case, &current, &batch), moved, sides)
            };
            let (ahead, behind) = (at(1e-3), at(-1e-3));
            // At the edge of the range the loss has a kink and no derivative.
            prop_assume!(ahead.2 == behind.2);
            let slope = (ahead.0 - behind.0) / (ahead.1 - behind.1);
            let gradient = f64::from(found.gradient[token]);
            prop_assert!((slope - gradient).abs() < 1e-5 * (1.0 + gradient.abs()), "{objective}: {slope} {gradient}");
        }
    }

    #[test]
    fn any_cut_into_micro_batches_gives_the_same_bits(cases in prop::collection::vec(case(), 1..12), cut in 1usize..12) {
        for objective in Objective::ALL.into_iter().filter(|objective| *objective != Objective::Dpo) {
            let settings = objective.settings(None, None, 0.1).unwrap();
            let loss = PolicyLoss::new(objective, settings, 1e-4).unwrap();
            let batch = BatchShape::new(cases.iter().map(|case| case.sampled.len()), 16).unwrap();
            let run = |size: usize| {
                let mut tally = Tally::default();
                let mut gradients = Vec::new();
                for micro_batch in cases.chunks(size) {
                    for case in micro_batch {
                        let found = loss.evaluate(&case.terms(&case.current), &batch).unwrap();
                        tally.add(&found.statistics);
                        gradients.extend(found.gradient);
                    }
                }
                (gradients, tally.statistics())
            };
            prop_assert_eq!(run(cases.len()), run(cut));
        }
    }
}
