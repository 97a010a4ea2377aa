#![allow(clippy::unwrap_used)]
use super::*;
use octet_dataset::Behaviour;

fn setting() -> Setting {
    Setting {
        data: "rows.jsonl".into(),
        rows: 40,
        function: "tool-call".into(),
        samples: 1,
        temperature: 0.0,
        max_tokens: 96,
        seed: 1,
    }
}

/// 40 rows, of which the last ten want a refusal; `right` says which get the full reward, others get ½.
fn outcomes(right: impl Fn(usize) -> bool) -> Vec<Outcome> {
    let outcome = |row: usize| Outcome {
        row,
        behaviour: if row < 30 { Behaviour::Execute } else { Behaviour::Refuse },
        completion: String::new(),
        reward: if right(row) { 1.0 } else { 0.5 },
        verdict: "right-call".into(),
        detail: String::new(),
    };
    (0..40).map(outcome).collect()
}

fn run(method: &str, seed: u64, right: impl Fn(usize) -> bool) -> RunNumbers {
    RunNumbers {
        method: method.into(),
        seed,
        objective: "grpo".into(),
        weights_digest: format!("{method}-{seed}"),
        start: outcomes(|row| row < 10),
        after: outcomes(right),
        cost: Cost { steps: 2, seconds: 60.0, sampled_tokens: 1000, learned_tokens: 500 },
        curve: vec![(1.0, 0.25), (2.0, 0.5 + seed as f64 / 4.0)],
    }
}

fn contest(runs: &[RunNumbers], seeds: &[u64]) -> Contest {
    Contest::of(setting(), &["one".to_owned(), "two".to_owned()], seeds, runs)
}

#[test]
fn numbers_over_two_seeds_by_hand() {
    let runs = [
        run("one", 1, |row| row < 20),
        run("two", 1, |row| row < 32),
        run("one", 2, |row| row < 24),
        run("two", 2, |row| row < 28),
    ];
    let found = contest(&runs, &[1, 2]);
    let one = &found.methods[0];
    let names: Vec<(&str, usize)> =
        one.groups.iter().map(|group| (group.name.as_str(), group.rows)).collect();
    assert_eq!(names, [("execute", 30), ("refuse", 10), ("all", 40)]);
    let all = &one.groups[2];
    assert_eq!((all.before, all.reward_before), (0.25, 0.625));
    assert_eq!(all.accuracy.each, [0.5, 0.6]);
    assert!((all.accuracy.mean - 0.55).abs() < 1e-12);
    assert!((all.accuracy.std.unwrap() - 0.005f64.sqrt()).abs() < 1e-12);
    assert_eq!(all.reward.each, [0.75, 0.8]);
    assert!((all.estimate.unwrap().value - 0.55).abs() < 1e-12);
    assert!((one.change.unwrap().change.value - 0.3).abs() < 1e-12);
    assert_eq!(one.curve, [(1.0, 0.25), (2.0, 0.875)]);
    assert_eq!(one.weights, ["one-1", "one-2"]);
    assert_eq!(found.methods[1].groups[1].accuracy.each, [0.2, 0.0]);

    assert_eq!(found.comparisons.len(), 1);
    let comparison = &found.comparisons[0];
    assert_eq!((comparison.method.as_str(), comparison.with.as_str()), ("two", "one"));
    assert!((comparison.accuracy.unwrap().change.value - 0.2).abs() < 1e-12);
    assert!((comparison.reward.unwrap().change.value - 0.1).abs() < 1e-12);
    let by_seed: Vec<i64> =
        comparison.by_seed.iter().map(|change| (change * 1000.0).round() as i64).collect();
    assert_eq!(by_seed, [300, 100]);
    // Rows are right by degrees, so it is the bootstrap's.
    assert_eq!(comparison.only_right, None);
    assert_eq!(comparison.p, comparison.accuracy.map(|change| change.p));
    assert!(comparison.p.unwrap() < 0.01);
}

#[test]
fn with_one_completion_a_row_the_test_is_mcnemars() {
    // Three rows right in the second alone, none in the first: 2 · ½³.
    let runs = [run("one", 7, |row| row < 20), run("two", 7, |row| row < 23)];
    let found = contest(&runs, &[7]);
    assert_eq!(found.comparisons[0].only_right, Some([0, 3]));
    assert!((found.comparisons[0].p.unwrap() - 0.25).abs() < 1e-12);
    assert_eq!(found.methods[0].groups[2].accuracy.std, None);
}

#[test]
fn several_comparisons_are_raised_by_holm() {
    let mut runs = vec![run("one", 1, |row| row < 20), run("two", 1, |row| row < 23)];
    runs.push(run("three", 1, |row| row < 26));
    let methods = ["one", "two", "three"].map(str::to_owned);
    let found = Contest::of(setting(), &methods, &[1], &runs);
    // 2 · ½⁶ thrice, then 2 · ½³ twice.
    for (found, wanted) in found.comparisons.iter().zip([
        ("two", "one", 0.5),
        ("three", "one", 0.09375),
        ("three", "two", 0.5),
    ]) {
        assert_eq!((found.method.as_str(), found.with.as_str()), (wanted.0, wanted.1));
        assert!((found.p.unwrap() - wanted.2).abs() < 1e-12, "{found:?}");
    }
    assert_eq!(found.comparisons.len(), 3);
}

#[test]
fn a_policy_that_did_not_change_differs_by_nothing() {
    let runs = [run("one", 1, |row| row < 10), run("two", 1, |row| row < 10)];
    let found = contest(&runs, &[1]);
    assert_eq!(found.methods[0].change.unwrap().change.interval, [0.0, 0.0]);
    assert_eq!(found.comparisons[0].p, Some(1.0));
}
