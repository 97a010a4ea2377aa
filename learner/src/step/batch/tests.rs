#![allow(clippy::unwrap_used)]
use super::*;
use crate::advantage::DEFAULT_EPSILON;
use crate::group::tests::parts;
use crate::objective::Objective;
use proptest::prelude::*;

fn loss(kl_beta: f64) -> PolicyLoss {
    let settings = Objective::Grpo.settings(None, None, kl_beta).unwrap();
    PolicyLoss::new(Objective::Grpo, settings, DEFAULT_EPSILON).unwrap()
}

/// Prompt of 3 tokens, completions of 1 to 8: 39 in all. Group 2 has equal rewards.
fn batch(kl_beta: f64) -> StepBatch {
    let groups = (0..5).map(|index| {
        let mut parts = parts(index);
        if index == 2 {
            parts.completions.iter_mut().for_each(|completion| completion.reward = 0.5);
        }
        ScoredGroup::new(parts).unwrap()
    });
    StepBatch::new(0, groups.collect(), loss(kl_beta), 16).unwrap()
}

fn indices(cut: Vec<Vec<&Prepared>>) -> Vec<Vec<u64>> {
    let of = |run: Vec<&Prepared>| run.iter().map(|g| g.group().group.get()).collect();
    cut.into_iter().map(of).collect()
}

#[test]
fn groups_that_teach_nothing_are_left_out() {
    assert_eq!(indices(batch(0.0).learned(78)), [vec![0, 1], vec![3, 4]]);
    assert_eq!(indices(batch(0.0).inert(78)), [vec![2]]);
    assert_eq!(indices(batch(0.0).learned(10)), [[0], [1], [3], [4]]);
    // With a KL penalty every group teaches.
    assert_eq!(indices(batch(0.1).learned(117)), [vec![0, 1, 2], vec![3, 4]]);
    assert!(batch(0.1).inert(78).is_empty());
}

#[test]
fn slopes_do_not_depend_on_the_cut() {
    let batch = batch(0.0);
    let predict = |run: &[&Prepared]| Learned {
        logprobs: completions(run)
            .flat_map(|(_, c, _)| c.logprobs.iter().map(|l| l - 0.01))
            .collect(),
        entropies: completions(run).flat_map(|(_, c, _)| vec![0.5; c.tokens.len()]).collect(),
    };
    let at = |limit| {
        let mut tally = Tally::default();
        let runs = batch.learned(limit);
        let slopes =
            runs.iter().flat_map(|run| batch.slopes(run, &predict(run), None, &mut tally).unwrap());
        (slopes.collect::<Vec<f32>>(), tally)
    };
    let (whole, tally) = at(10_000);
    // The inert group counts in the divisor: 5 groups of 36 tokens, not 4.
    assert_eq!(whole.len(), 4 * 36);
    let advantage = batch.groups[0].advantages.values()[0];
    let expected = -(libm::exp(f64::from(-0.26f32) + 0.25) * advantage) / 180.0;
    assert!((f64::from(whole[0]) - expected).abs() < 1e-9, "{} {expected}", whole[0]);
    assert_eq!(tally.statistics().entropy, Some(0.5));
    for limit in [1, 50, 78] {
        assert_eq!(at(limit), (whole.clone(), tally.clone()), "{limit}");
    }
}

#[test]
fn predictions_that_do_not_fit_are_an_error_and_no_panic() {
    let batch = batch(0.0);
    let runs = batch.learned(10_000);
    let short = Learned { logprobs: vec![-0.1; 3], entropies: vec![0.1; 3] };
    let error = batch.slopes(&runs[0], &short, None, &mut Tally::default()).unwrap_err();
    assert!(error.to_string().starts_with("group 0, sample 2: expected 3"), "{error}");
}

proptest! {
    #[test]
    fn a_cut_keeps_the_order_and_the_limit(sizes in prop::collection::vec(0usize..100, 0..40), limit in 1usize..200) {
        let runs = micro_batches(&sizes, limit);
        let flat: Vec<usize> = runs.iter().cloned().flatten().collect();
        prop_assert_eq!(flat, (0..sizes.len()).collect::<Vec<_>>());
        for (at, run) in runs.iter().enumerate() {
            let sum: usize = sizes[run.clone()].iter().sum();
            prop_assert!(!run.is_empty() && (sum <= limit || run.len() == 1));
            // No run could have taken the first of the next.
            if let Some(next) = runs.get(at + 1) {
                prop_assert!(sum + sizes[next.start] > limit);
            }
        }
    }
}
