#![allow(clippy::unwrap_used)]
use super::*;
use crate::group::tests::parts;
use proptest::prelude::*;
use std::fs;

/// A record with values that depend on the step.
pub(crate) fn record(step: u64) -> StepMetrics {
    let group = ScoredGroup::new(parts(step)).unwrap();
    StepMetrics {
        step,
        rollout: RolloutSummary::new([(&group, "execute")]).unwrap(),
        loss: LossStatistics {
            loss: 0.1 + step as f64,
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
        gradient_norm: 1.0 / 3.0,
        learning_rate: 5e-6,
        timing: Timing { learn_seconds: 2.0, ..Timing::default() }.with_speed(100, 4e9),
    }
}

#[test]
fn a_summary_by_hand() {
    let mut first = parts(1);
    let mut second = parts(2);
    // Rewards of `parts`: 0, ½, 1 repeating over samples 0 to 7 make a sum of 3.5.
    second.completions.iter_mut().for_each(|completion| completion.reward = 1.0);
    first.policy_version = PolicyVersion(4);
    let (first, second) = (ScoredGroup::new(first).unwrap(), ScoredGroup::new(second).unwrap());
    let found = RolloutSummary::new([(&first, "execute"), (&second, "refuse")]).unwrap();
    assert_eq!((found.groups, found.completions), (2, 16));
    assert_eq!(found.reward_mean, 11.5 / 16.0);
    let squares = 3.0 * 0.71875f64.powi(2) + 3.0 * 0.21875f64.powi(2) + 10.0 * 0.28125f64.powi(2);
    assert!((found.reward_std - (squares / 15.0).sqrt()).abs() < 1e-12);
    assert_eq!(found.reward_by_behavior["execute"], 3.5 / 8.0);
    assert_eq!(found.reward_by_behavior["refuse"], 1.0);
    assert_eq!(found.zero_variance_fraction, 0.5);
    assert_eq!(found.verdicts["right-call"], 8);
    // Lengths 1 to 8, twice.
    assert_eq!((found.completion_length_mean, found.completion_length_max), (4.5, 8));
    assert_eq!((found.prompt_tokens, found.completion_tokens), (6, 72));
    assert_eq!(found.truncated_fraction, 0.5);
    // −Σ log-probabilities per token: 0.25 + 0.1·(mean position), Σ positions = 84 over 36 tokens.
    assert!((found.entropy_estimate - (0.25 + 0.1 * 84.0 / 36.0)).abs() < 1e-6);
    assert_eq!(
        found.policy_versions.into_iter().collect::<Vec<_>>(),
        [PolicyVersion(2), PolicyVersion(4)]
    );
}

#[test]
fn an_empty_step_is_an_error() {
    assert_eq!(RolloutSummary::new([]), Err(RewardsError::TooFew { found: 0 }));
}

#[test]
fn a_line_is_flat_and_reads_back() {
    let record = record(3);
    let text = serde_json::to_string(&record).unwrap();
    assert!(
        !text.contains('\n') && text.starts_with("{\"step\":3,\"policy_versions\":[2]"),
        "{text}"
    );
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    for key in ["reward_mean", "loss", "ratio_mean", "gradient_norm", "entropy_estimate"] {
        assert!(value[key].is_f64(), "{key}");
    }
    assert_eq!(value["timing"]["tokens_per_second"], 50.0);
    assert!(value.get("kl").is_none());
    assert_eq!(serde_json::from_str::<StepMetrics>(&text).unwrap(), record);
}

fn write_lines(path: &std::path::Path, steps: impl IntoIterator<Item = u64>, tail: &str) {
    let mut text = String::new();
    for step in steps {
        text += &serde_json::to_string(&record(step)).unwrap();
        text.push('\n');
    }
    fs::write(path, text + tail).unwrap();
}

fn steps(path: &std::path::Path) -> Vec<u64> {
    read(path).unwrap().iter().map(|record| record.step).collect()
}

#[test]
fn resuming_cuts_what_was_not_committed_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    write_lines(&path, 1..=5, "{\"step\":6,\"rew");
    let (mut log, resumed) = MetricsLog::resume(&path, Some(&record(3))).unwrap();
    assert_eq!(resumed, Resumed { kept: 3, dropped: 3, restored: false });
    log.append(&record(4)).unwrap();
    assert_eq!(steps(&path), [1, 2, 3, 4]);
    let error = log.append(&record(6)).unwrap_err();
    assert!(matches!(error, MetricsError::Order { expected: 5, found: 6, .. }));
}

#[test]
fn a_line_that_the_crash_swallowed_is_restored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    write_lines(&path, 1..=2, "{\"st");
    let (_, resumed) = MetricsLog::resume(&path, Some(&record(3))).unwrap();
    assert_eq!(resumed, Resumed { kept: 2, dropped: 1, restored: true });
    assert_eq!(read(&path).unwrap()[2], record(3));
}

#[test]
fn before_the_first_commit_the_file_is_emptied() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let (_, resumed) = MetricsLog::resume(&path, None).unwrap();
    assert_eq!(resumed, Resumed::default());
    write_lines(&path, 1..=1, "");
    MetricsLog::resume(&path, None).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn damage_in_the_middle_and_gaps_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    write_lines(&path, 1..=1, "nonsense\n");
    let mut text = fs::read_to_string(&path).unwrap();
    text += &(serde_json::to_string(&record(2)).unwrap() + "\n");
    fs::write(&path, text).unwrap();
    let error = MetricsLog::resume(&path, Some(&record(2))).unwrap_err();
    assert!(matches!(error, MetricsError::Line { line: 2, .. }), "{error}");
    write_lines(&path, [1, 3], "");
    let error = MetricsLog::resume(&path, Some(&record(3))).unwrap_err();
    assert!(matches!(error, MetricsError::Order { expected: 2, found: 3, .. }), "{error}");
    // A history that starts late is one that was moved away.
    write_lines(&path, [3], "");
    assert!(MetricsLog::resume(&path, Some(&record(3))).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_file_cut_anywhere_is_whole_after_resuming(committed in 1u64..5, cut in 0.0f64..1.0) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        // Every line but the last commit's is durable before the next step commits.
        write_lines(&path, 1..=committed + 1, "");
        let sure = if committed > 1 {
            let durable = folder.path().join("durable");
            write_lines(&durable, 1..committed, "");
            fs::read(durable).unwrap().len()
        } else {
            0
        };
        let whole = fs::read(&path).unwrap();
        let length = sure + ((whole.len() - sure) as f64 * cut) as usize;
        fs::write(&path, &whole[..length]).unwrap();
        MetricsLog::resume(&path, Some(&record(committed))).unwrap();
        prop_assert_eq!(steps(&path), (1..=committed).collect::<Vec<_>>());
    }
}
