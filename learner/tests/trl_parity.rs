//! The objectives against TRL's own code, and AdamW against PyTorch's: see `make_trl_fixtures.py`.
#![allow(clippy::unwrap_used)]

use octet_learner::adamw::{AdamW, Hyperparameters, Parameter, TensorSpec};
use octet_learner::advantage::{DEFAULT_EPSILON, GroupRewards};
use octet_learner::objective::{
    BatchShape, CompletionLoss, Lesson, Objective, PolicyLoss, Tally, Terms,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixtures {
    objectives: Objectives,
    preferences: Preferences,
    adamw: Updates,
}

#[derive(Deserialize)]
struct Objectives {
    max_tokens: usize,
    rewards: Vec<Vec<f64>>,
    sampled: Vec<Vec<f32>>,
    current: Vec<Vec<f32>>,
    reference: Vec<Vec<f32>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    objective: Objective,
    clip_low: f64,
    clip_high: f64,
    kl_beta: f64,
    advantages: Vec<f64>,
    loss: f64,
    gradient: Vec<Vec<f64>>,
    clip_fraction_low: Option<f64>,
    clip_fraction_high: Option<f64>,
    kl: Option<f64>,
}

/// Pairs of rows of [`Objectives`], chosen and rejected, and what TRL's `DPOTrainer` makes of them.
#[derive(Deserialize)]
struct Preferences {
    pairs: Vec<[usize; 2]>,
    cases: Vec<PreferenceCase>,
}

#[derive(Deserialize)]
struct PreferenceCase {
    objective: Objective,
    beta: f64,
    loss: f64,
    gradient: Vec<Vec<f64>>,
    chosen_reward: f64,
    rejected_reward: f64,
    accuracy: f64,
    margin: f64,
}

#[derive(Deserialize)]
struct Updates {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    weight_decay: f64,
    max_gradient_norm: f64,
    start: Vec<Vec<f32>>,
    steps: Vec<UpdateStep>,
}

#[derive(Deserialize)]
struct UpdateStep {
    learning_rate: f64,
    gradients: Vec<Vec<f32>>,
    gradient_norm: f64,
    values: Vec<Vec<f32>>,
}

fn fixtures() -> Fixtures {
    serde_json::from_str(include_str!("fixtures/trl.json")).unwrap()
}

fn assert_close(what: &str, found: f64, expected: f64, tolerance: f64) {
    let allowed = tolerance * (1.0 + expected.abs());
    assert!((found - expected).abs() <= allowed, "{what}: expected {expected}, found {found}");
}

#[test]
fn every_objective_has_a_case() {
    let fixtures = fixtures();
    let cases = fixtures.objectives.cases.iter().map(|case| case.objective);
    let preferences = fixtures.preferences.cases.iter().map(|case| case.objective);
    let all: Vec<Objective> = cases.chain(preferences).collect();
    for objective in Objective::ALL {
        assert!(all.contains(&objective), "{objective}");
    }
}

#[test]
fn advantages_losses_gradients_and_clip_fractions_are_trls() {
    let fixtures = fixtures().objectives;
    for case in &fixtures.cases {
        let settings = case
            .objective
            .settings(Some(case.clip_low), Some(case.clip_high), case.kl_beta)
            .unwrap();
        let policy_loss = PolicyLoss::new(case.objective, settings, DEFAULT_EPSILON).unwrap();
        let advantages: Vec<f64> = fixtures
            .rewards
            .iter()
            .flat_map(|rewards| {
                let rewards = GroupRewards::new(rewards.clone()).unwrap();
                let lesson = policy_loss.lesson(&rewards);
                (0..rewards.rewards().len())
                    .map(|at| lesson.weight(at).unwrap())
                    .collect::<Vec<_>>()
            })
            .collect();
        let batch =
            BatchShape::new(fixtures.sampled.iter().map(Vec::len), fixtures.max_tokens).unwrap();
        let name = case.objective.name();
        let mut tally = Tally::default();
        for (row, advantage) in advantages.iter().enumerate() {
            assert_close(name, *advantage, case.advantages[row], 1e-12);
            let terms = Terms::new(*advantage, &fixtures.sampled[row], &fixtures.current[row])
                .unwrap()
                .with_reference(&fixtures.reference[row])
                .unwrap();
            let found = policy_loss.evaluate(&terms, &batch).unwrap();
            assert_eq!(found.gradient.len(), case.gradient[row].len());
            for (found, expected) in found.gradient.iter().zip(&case.gradient[row]) {
                assert_close(name, f64::from(*found), *expected, 1e-7);
            }
            tally.add(&found.statistics);
        }
        let found = tally.statistics();
        assert_close(name, found.loss, case.loss, 1e-12);
        for (found, expected) in [
            (Some(found.clip_fraction_low), case.clip_fraction_low),
            (Some(found.clip_fraction_high), case.clip_fraction_high),
            (found.kl, case.kl),
        ] {
            if let (Some(found), Some(expected)) = (found, expected) {
                assert_close(name, found, expected, 1e-12);
            }
        }
    }
}

#[test]
fn losses_gradients_and_metrics_of_preferences_are_trls() {
    let Fixtures { objectives: numbers, preferences, .. } = fixtures();
    let samples = numbers.rewards[0].len();
    let terms = |row: usize| {
        Terms::new(1.0, &numbers.sampled[row], &numbers.current[row])
            .unwrap()
            .with_reference(&numbers.reference[row])
            .unwrap()
    };
    for case in &preferences.cases {
        let settings = case.objective.settings(None, None, 0.0).unwrap();
        let settings = settings.with_dpo_beta(case.beta).unwrap();
        let policy_loss = PolicyLoss::new(case.objective, settings, DEFAULT_EPSILON).unwrap();
        let lessons = numbers.rewards.iter().enumerate().map(|(group, rewards)| {
            (group * samples, policy_loss.lesson(&GroupRewards::new(rewards.clone()).unwrap()))
        });
        let lessons: Vec<(usize, Lesson)> = lessons.collect();
        let picked: Vec<usize> = lessons
            .iter()
            .zip(&preferences.pairs)
            .flat_map(|((first, lesson), pair)| match lesson {
                Lesson::Preference { chosen, rejected } => {
                    assert_eq!([first + chosen, first + rejected], *pair);
                    pair.to_vec()
                }
                Lesson::Best(best) => {
                    assert_eq!(first + best, pair[0]);
                    vec![pair[0]]
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let lengths = picked.iter().map(|row| numbers.sampled[*row].len());
        let batch = BatchShape::new(lengths, numbers.max_tokens).unwrap();
        let name = case.objective.name();
        let mut tally = Tally::default();
        let mut gradient: Vec<Vec<f32>> =
            case.gradient.iter().map(|row| vec![0.0; row.len()]).collect();
        let mut take = |row: usize, found: CompletionLoss| {
            tally.add(&found.statistics);
            gradient[row] = found.gradient;
        };
        for [chosen, rejected] in preferences.pairs.iter().copied() {
            if case.objective == Objective::Dpo {
                let (one, two) = (terms(chosen), terms(rejected));
                let pair = policy_loss.evaluate_pair(&one, &two, &batch).unwrap();
                take(chosen, pair.chosen);
                take(rejected, pair.rejected);
            } else {
                take(chosen, policy_loss.evaluate(&terms(chosen), &batch).unwrap());
            }
        }
        for (found, expected) in gradient.iter().flatten().zip(case.gradient.iter().flatten()) {
            assert_close(name, f64::from(*found), *expected, 1e-7);
        }
        let found = tally.statistics();
        assert_close(name, found.loss, case.loss, 1e-12);
        let Some(seen) = found.preference else {
            assert_eq!(case.objective, Objective::Sft);
            continue;
        };
        for (found, expected) in [
            (seen.chosen_reward, case.chosen_reward),
            (seen.rejected_reward, case.rejected_reward),
            (seen.accuracy, case.accuracy),
            (seen.margin, case.margin),
        ] {
            assert_close(name, found, expected, 1e-12);
        }
    }
}

#[test]
fn adamw_is_torchs_over_five_clipped_steps() {
    let fixtures = fixtures().adamw;
    let hyperparameters = Hyperparameters {
        beta1: fixtures.beta1,
        beta2: fixtures.beta2,
        epsilon: fixtures.epsilon,
        weight_decay: fixtures.weight_decay,
        max_gradient_norm: Some(fixtures.max_gradient_norm),
        muon: None,
    };
    let spec =
        |name: &str, shape: &[usize]| TensorSpec { name: name.to_owned(), shape: shape.to_vec() };
    let specs = vec![spec("q_proj.weight", &[3, 5]), spec("q_proj.bias", &[5])];
    let mut optimizer = AdamW::new(hyperparameters, specs).unwrap();
    let mut values = fixtures.start;
    for step in fixtures.steps {
        let mut parameters: Vec<Parameter<'_>> = values
            .iter_mut()
            .zip(&step.gradients)
            .map(|(values, gradient)| Parameter { values, gradient })
            .collect();
        let update = optimizer.update(&mut parameters, step.learning_rate).unwrap();
        assert_close("gradient norm", update.gradient_norm, step.gradient_norm, 1e-6);
        for (found, expected) in values.iter().flatten().zip(step.values.iter().flatten()) {
            assert_close("value", f64::from(*found), f64::from(*expected), 1e-6);
        }
    }
}
