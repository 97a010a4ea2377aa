//! What a measurement is called elsewhere: one table, from octet's names to those of TRL and of verl.
//!
//! Invariants: `metrics.jsonl` keeps octet's names; only what is shown to a tracker is renamed. A name stands for
//! the same quantity there, or the page `docs/tracking.md` says what differs; what the other has no name for keeps
//! octet's. No two names become one.

use serde::{Deserialize, Serialize};

/// Whose names are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Names {
    /// Those that TRL's `GRPOTrainer` logs, and its `DPOTrainer` for pairs.
    #[default]
    Trl,
    /// Those that verl logs.
    Verl,
    /// Those of `metrics.jsonl`.
    Octet,
}

/// A quantity that has a name elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Renamed {
    /// octet's name: the path in a line of `metrics.jsonl`, with slashes.
    pub octet: &'static str,
    /// TRL's.
    pub trl: Option<&'static str>,
    /// verl's, as it is stored in MLflow.
    pub verl: Option<&'static str>,
}

const fn row(
    octet: &'static str,
    trl: Option<&'static str>,
    verl: Option<&'static str>,
) -> Renamed {
    Renamed { octet, trl, verl }
}

/// All that are renamed.
pub const TABLE: &[Renamed] = &[
    row("reward_mean", Some("reward"), Some("critic/rewards/mean")),
    row("reward_std", Some("reward_std"), None),
    row("zero_variance_fraction", Some("frac_reward_zero_std"), None),
    row("completion_length_mean", Some("completions/mean_length"), Some("response_length/mean")),
    row("completion_length_max", Some("completions/max_length"), Some("response_length/max")),
    row(
        "truncated_fraction",
        Some("completions/clipped_ratio"),
        Some("response_length/clip_ratio"),
    ),
    row("entropy", Some("entropy"), Some("actor/entropy")),
    row("loss", Some("loss"), Some("actor/loss")),
    row("kl", Some("kl"), Some("actor/kl_loss")),
    row("clip_fraction", Some("clip_ratio/region_mean"), Some("actor/pg_clipfrac")),
    row("clip_fraction_low", Some("clip_ratio/low_mean"), None),
    row("clip_fraction_high", Some("clip_ratio/high_mean"), None),
    row("gradient_norm", Some("grad_norm"), Some("actor/grad_norm")),
    row("learning_rate", Some("learning_rate"), Some("actor/lr")),
    row("logprob_gap_max", Some("sampling/sampling_logp_difference/max"), None),
    row("timing/step_seconds", Some("step_time"), Some("timing_s/step")),
    row("timing/sample_wait_seconds", None, Some("timing_s/gen")),
    row("timing/learn_seconds", None, Some("timing_s/update_actor")),
    row("preference/chosen_reward", Some("rewards/chosen"), None),
    row("preference/rejected_reward", Some("rewards/rejected"), None),
    row("preference/accuracy", Some("rewards/accuracies"), None),
    row("preference/margin", Some("rewards/margins"), None),
    row("eval/reward", Some("eval_reward"), Some("val-core/held-out/reward/mean_at_1")),
    row("eval/accuracy", Some("eval_accuracy"), Some("val-core/held-out/acc/mean_at_1")),
];

impl Names {
    /// What a quantity is called in MLflow. The name holds only what MLflow takes.
    pub fn of(self, octet: &str) -> String {
        let row = TABLE.iter().find(|row| row.octet == octet);
        let theirs = row.and_then(|row| match self {
            Self::Trl => row.trl,
            Self::Verl => row.verl,
            Self::Octet => None,
        });
        key(theirs.unwrap_or(octet))
    }

    /// What a quantity is called in TensorBoard: as `transformers` and verl write it there.
    pub fn tag(self, octet: &str) -> String {
        let name = self.of(octet);
        match (self, name.strip_prefix("eval_")) {
            (Self::Trl, Some(rest)) => format!("eval/{rest}"),
            (Self::Trl, None) if !name.starts_with("eval/") => format!("train/{name}"),
            _ => name,
        }
    }
}

/// The longest key that MLflow takes, in characters.
pub const MOST_KEY: usize = 250;

/// A key with nothing in it that MLflow refuses: letters, digits, `_ - . / :` and blanks, and a path that is
/// written in its shortest form.
pub fn key(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-. /:".contains(c);
    let parts = name.split('/').filter(|part| !matches!(*part, "" | "." | ".."));
    let parts: Vec<String> = parts
        .map(|part| part.chars().map(|c| if allowed(c) { c } else { '_' }).collect())
        .collect();
    let whole = parts.join("/");
    let key: String = if whole.chars().count() <= MOST_KEY {
        whole
    } else {
        // Two long names stay two.
        let digest = &blake3::hash(name.as_bytes()).to_hex()[..8];
        whole.chars().take(MOST_KEY - 9).chain(format!("_{digest}").chars()).collect()
    };
    if key.is_empty() { "_".into() } else { key }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_names_become_one() {
        for names in [Names::Trl, Names::Verl, Names::Octet] {
            let shown: BTreeSet<String> = TABLE.iter().map(|row| names.of(row.octet)).collect();
            assert_eq!(shown.len(), TABLE.len(), "{names:?}");
            let tags: BTreeSet<String> = TABLE.iter().map(|row| names.tag(row.octet)).collect();
            assert_eq!(tags.len(), TABLE.len(), "{names:?}");
        }
    }

    #[test]
    fn tensorboard_shows_them_as_the_others_do() {
        assert_eq!(Names::Trl.tag("reward_mean"), "train/reward");
        assert_eq!(Names::Trl.tag("eval/reward"), "eval/reward");
        assert_eq!(
            Names::Trl.tag("eval/by_behavior/execute/reward"),
            "eval/by_behavior/execute/reward"
        );
        assert_eq!(Names::Verl.tag("reward_mean"), "critic/rewards/mean");
        assert_eq!(Names::Octet.tag("reward_mean"), "reward_mean");
    }

    /// The page and the table are one.
    #[test]
    fn the_page_has_the_table() {
        let page = include_str!("../../docs/tracking.md");
        for Renamed { octet, trl, verl } in TABLE {
            let cell = |name: &Option<&str>| match name {
                Some(name) => format!("`{name}`"),
                None => "–".into(),
            };
            let line = format!("| `{octet}` | {} | {} |", cell(trl), cell(verl));
            assert!(page.contains(&line), "docs/tracking.md lacks the line {line}");
        }
    }

    proptest! {
        #[test]
        fn a_key_is_what_mlflow_takes(name in "\\PC{0,300}") {
            let key = key(&name);
            prop_assert!((1..=MOST_KEY).contains(&key.chars().count()), "{key}");
            prop_assert!(key.chars().all(|c| c.is_ascii_alphanumeric() || "_-. /:".contains(c)));
            let whole = key.split('/').all(|part| !matches!(part, "" | "." | ".."));
            prop_assert!(whole, "{key}");
        }
    }
}
