use super::*;
use octet_learner::metrics::{RolloutSummary, Timing};
use octet_learner::objective::LossStatistics;

fn step(step: u64, reward: f64, verdicts: &[(&str, u64)]) -> StepMetrics {
    StepMetrics {
        step,
        rollout: RolloutSummary {
            policy_versions: BTreeSet::new(),
            reward_revisions: BTreeSet::new(),
            groups: 1,
            completions: 10,
            reward_mean: reward,
            reward_std: 0.1,
            reward_by_behavior: BTreeMap::from([("execute".into(), reward)]),
            zero_variance_fraction: 0.5,
            verdicts: verdicts.iter().map(|(name, times)| ((*name).into(), *times)).collect(),
            completion_length_mean: 20.0,
            completion_length_max: 30,
            truncated_fraction: 0.0,
            entropy_estimate: 0.2,
            prompt_tokens: 100,
            completion_tokens: 200,
        },
        loss: LossStatistics {
            loss: -0.1,
            ratio_mean: 1.0,
            ratio_max: 1.0,
            clip_fraction_low: 0.0,
            clip_fraction_high: 0.0,
            log_ratio_max: 0.0,
            kl: None,
            entropy: None,
            preference: None,
        },
        logprob_gap_max: 0.0,
        gradient_norm: 1.0,
        learning_rate: 1e-4,
        timing: Timing {
            sample_wait_seconds: 1.0,
            learn_seconds: 1.0,
            commit_seconds: Some(0.5),
            publish_seconds: Some(0.5),
            tokens_per_second: 300.0,
            flops_per_second: 1e9,
        },
    }
}

fn column<'a>(curves: &'a Curves, name: &str) -> Vec<&'a str> {
    let at = curves.numbers.head.iter().position(|head| head == name);
    let cell = |row: &'a NumberRow| at.map(|at| row.cells[at - 1].as_str());
    curves.numbers.rows.iter().filter_map(cell).collect()
}

#[test]
fn what_a_curve_shows_is_in_the_table_under_its_column() {
    let steps = [step(1, 0.25, &[("a", 10)]), step(2, 0.75, &[("a", 5), ("b", 5)])];
    let curves = draw(&steps, &[], &[]);
    assert_eq!(column(&curves, "Mean reward: execute"), ["0.250", "0.750"]);
    assert_eq!(column(&curves, "Verdicts: b"), ["0", "0.500"]);
    // 300 tokens in a second each of waiting and learning, and half a second each of commit and publication.
    assert_eq!(column(&curves, "Tokens per second: a whole step"), ["100", "100"]);
    for figure in curves.learning.iter().chain(&curves.speed) {
        for line in &figure.chart.lines {
            let last = column(&curves, &curves.numbers.head[line.column]);
            assert_eq!(last.last(), Some(&line.last.as_str()), "{} of {}", line.name, figure.title);
        }
    }
}

#[test]
fn what_is_always_0_is_named_and_not_drawn_and_what_is_not_there_is_neither() {
    let curves = draw(&[step(1, 0.5, &[]), step(2, 0.5, &[])], &[], &[]);
    assert!(curves.zero.contains(&"Log-probability gap".to_owned()), "{:?}", curves.zero);
    let ids: Vec<&str> = curves.learning.iter().map(|figure| figure.id.as_str()).collect();
    assert!(!ids.contains(&"gap") && !ids.contains(&"kl"), "{ids:?}");
    let reward = &draw(&[step(1, 0.0, &[("a", 10)])], &[], &[]).learning[0];
    assert_eq!((reward.id.as_str(), reward.chart.lines.len()), ("reward", 2));
    assert!(!curves.numbers.head.iter().any(|head| head.starts_with("KL")));
}

#[test]
fn a_long_run_is_averaged_and_says_of_how_many_steps() {
    let steps: Vec<StepMetrics> = (1..=721).map(|at| step(at, (at % 4) as f64, &[])).collect();
    let curves = draw(&steps, &[], &[]);
    assert_eq!(curves.numbers.together, 4);
    assert_eq!(curves.numbers.rows.len(), 181);
    assert_eq!((curves.numbers.rows[0].steps.as_str(), curves.numbers.rows[0].step), ("1 to 4", 4));
    assert_eq!(curves.numbers.rows[180].steps, "721");
    assert_eq!(column(&curves, "Mean reward: all")[0], "1.500");
}

#[test]
fn many_verdicts_are_six_lines() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let verdicts: Vec<(&str, u64)> = names.into_iter().zip([3, 1, 1, 1, 1, 1, 1, 1]).collect();
    let curves = draw(&[step(1, 0.5, &verdicts)], &[], &[]);
    assert_eq!(column(&curves, "Verdicts: a"), ["0.300"]);
    assert_eq!(column(&curves, "Verdicts: all others"), ["0.300"]);
    assert!(column(&curves, "Verdicts: f").is_empty());
}
