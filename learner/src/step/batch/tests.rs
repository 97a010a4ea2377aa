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
fn groups() -> Vec<ScoredGroup> {
    let groups = (0..5).map(|index| {
        let mut parts = parts(index);
        if index == 2 {
            parts.completions.iter_mut().for_each(|completion| completion.reward = 0.5);
        }
        ScoredGroup::new(parts).unwrap()
    });
    groups.collect()
}

fn batch(kl_beta: f64) -> StepBatch {
    StepBatch::new(0, groups(), loss(kl_beta), 16).unwrap()
}

fn completions<'a>(run: &'a [&'a Prepared]) -> impl Iterator<Item = &'a ScoredCompletion> {
    run.iter().flat_map(|prepared| prepared.completions())
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
fn each_step_measures_other_groups_and_at_least_one() {
    let batch = batch(0.0);
    let at = |step, every, inert| {
        let every = NonZeroU64::new(every).unwrap();
        indices(batch.spread(step, every, inert, 78)).concat()
    };
    assert_eq!([0, 1, 2].map(|step| at(step, 2, false)), [vec![0, 3], vec![1, 4], vec![0, 3]]);
    assert_eq!((at(7, 1, false), at(7, 1, true)), (vec![0, 1, 3, 4], vec![0, 1, 2, 3, 4]));
    // Fewer groups than one is measured of: they take turns.
    let mut turns: Vec<Vec<u64>> = (6..10).map(|step| at(step, 16, false)).collect();
    turns.sort();
    assert_eq!(turns, [[0], [1], [3], [4]]);
    assert_eq!(at(u64::MAX, u64::MAX, true).len(), 1);
    let nothing = StepBatch { groups: Vec::new(), ..batch };
    assert!(nothing.spread(3, NonZeroU64::MIN, true, 78).is_empty());
}

#[test]
fn slopes_do_not_depend_on_the_cut() {
    let batch = batch(0.0);
    let predict = |run: &[&Prepared]| Learned {
        logprobs: completions(run).flat_map(|c| c.logprobs.iter().map(|l| l - 0.01)).collect(),
        entropies: completions(run).flat_map(|c| vec![0.5; c.tokens.len()]).collect(),
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
    let advantage = batch.groups[0].lesson.weight(0).unwrap();
    let expected = -(libm::exp(f64::from(-0.26f32) + 0.25) * advantage) / 180.0;
    assert!((f64::from(whole[0]) - expected).abs() < 1e-9, "{} {expected}", whole[0]);
    assert_eq!(tally.statistics().entropy, Some(0.5));
    for limit in [1, 50, 78] {
        assert_eq!(at(limit), (whole.clone(), tally.clone()), "{limit}");
    }
}

/// Rewards of `parts` are 0, ½, 1, 0, ½, 1, 0, ½: sample 2 is the best, sample 0 the worst; they have 3
/// tokens and 1. Group 2 has equal rewards, ½.
fn picked(objective: Objective) -> StepBatch {
    let settings = objective.settings(None, None, 0.0).unwrap();
    let loss = PolicyLoss::new(objective, settings, DEFAULT_EPSILON).unwrap();
    StepBatch::new(0, groups(), loss, 16).unwrap()
}

#[test]
fn what_is_not_picked_goes_through_no_model() {
    let batch = picked(Objective::Dpo);
    assert_eq!(indices(batch.learned(14)), [vec![0, 1], vec![3, 4]]);
    assert_eq!(indices(batch.inert(1000)), [[2]]);
    let tokens = batch.learned(1)[0][0].tokens();
    assert_eq!(tokens.suffixes.iter().map(Vec::len).collect::<Vec<_>>(), [1, 3]);
    // A group that teaches nothing is measured whole.
    assert_eq!(batch.inert(1)[0][0].tokens().suffixes.len(), 8);

    let batch = picked(Objective::Sft);
    assert_eq!(indices(batch.learned(18)), [vec![0, 1, 2], vec![3, 4]]);
    // The first of equals, which has one token.
    assert_eq!(batch.learned(1)[2][0].size(), 3 + 1);
}

#[test]
fn pairs_are_learned_together_and_divided_by_their_number() {
    let batch = picked(Objective::Dpo);
    let at = |limit| {
        let mut tally = Tally::default();
        let mut slopes = Vec::new();
        for run in batch.learned(limit) {
            let tokens = completions(&run).map(|c| c.tokens.len()).sum();
            let all = |value: f32| Learned {
                logprobs: vec![value; tokens],
                entropies: vec![0.5; tokens],
            };
            // The chosen one gained 3 · ½, the rejected one ½: a margin of β.
            let found = batch.slopes(&run, &all(-0.5), Some(&all(-1.0)), &mut tally).unwrap();
            slopes.extend(found);
        }
        (slopes, tally.statistics())
    };
    let (slopes, seen) = at(1000);
    let slope = (0.1 / (1.0 + 0.1f64.exp()) / 4.0) as f32;
    let of_pair = [slope, -slope, -slope, -slope];
    assert_eq!(slopes.len(), 16);
    for (found, expected) in slopes.iter().zip(of_pair.iter().cycle()) {
        assert!((found - expected).abs() < 1e-8, "{slopes:?}");
    }
    let preference = seen.preference.unwrap();
    assert_eq!((preference.pairs, preference.accuracy), (4, 1.0));
    assert!((preference.margin - 0.1).abs() < 1e-12);
    assert!((seen.loss - (1.0 + (-0.1f64).exp()).ln()).abs() < 1e-12);
    for limit in [1, 10] {
        assert_eq!(at(limit), (slopes.clone(), seen.clone()));
    }
}

#[test]
fn a_step_without_a_pair_is_a_step() {
    let equal = |index| {
        let mut parts = parts(index);
        parts.completions.iter_mut().for_each(|completion| completion.reward = 0.0);
        ScoredGroup::new(parts).unwrap()
    };
    for objective in [Objective::Dpo, Objective::Sft] {
        let settings = objective.settings(None, None, 0.0).unwrap();
        let loss = PolicyLoss::new(objective, settings, DEFAULT_EPSILON).unwrap();
        let batch = StepBatch::new(0, (0..3).map(equal).collect(), loss, 16).unwrap();
        assert!(batch.learned(1000).is_empty());
        assert_eq!(indices(batch.inert(1000)), [[0, 1, 2]]);
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
