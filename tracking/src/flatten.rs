//! From the JSON that a run writes to names and values.
//!
//! Invariants: a number is shown under the path where it stands, whatever a later version adds there. A value that
//! a server would cut is cut here, with a mark that says so.

use crate::event::Number;
use serde_json::Value;

/// The longest value of a parameter that MLflow keeps, in characters; it cuts longer ones in silence.
pub const MOST_PARAM: usize = 6000;
/// The longest value of a tag, likewise.
pub const MOST_TAG: usize = 8000;

/// Sets of which there is usually one: shown as the newest in it.
const SETS: [&str; 2] = ["policy_versions", "reward_revisions"];

/// A configuration as parameters: dotted keys, and lists as JSON. What is not set is left out.
pub fn params(config: &Value) -> Vec<(String, String)> {
    fn walk(value: &Value, path: &str, into: &mut Vec<(String, String)>) {
        let text = match value {
            Value::Object(entries) if !entries.is_empty() => {
                for (name, value) in entries {
                    let path =
                        if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    walk(value, &path, into);
                }
                return;
            }
            Value::Null => return,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        into.push((crate::names::key(path), cut(&text, MOST_PARAM)));
    }
    let mut flat = Vec::new();
    walk(config, "", &mut flat);
    flat
}

/// A step's line of `metrics.jsonl`: the step, and what was measured.
///
/// # Errors
/// It is no JSON object with a number `step`.
pub fn step(line: &str) -> Result<(u64, Vec<(String, Number)>), String> {
    let line: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let step = line.get("step").and_then(Value::as_u64).ok_or("no number `step`")?;
    let mut values = numbers(&line, "");
    values.retain(|(name, _)| name != "step");
    for set in SETS {
        let newest = line.get(set).and_then(Value::as_array);
        let newest = newest.into_iter().flatten().filter_map(Value::as_f64).reduce(f64::max);
        values.extend(newest.map(|newest| (set.trim_end_matches('s').to_owned(), Number(newest))));
    }
    let sum = |names: &[&str]| {
        let found = names.iter().filter_map(|wanted| {
            values.iter().find(|(name, _)| name == wanted).map(|(_, Number(value))| *value)
        });
        let found: Vec<f64> = found.collect();
        (!found.is_empty()).then(|| Number(found.iter().sum()))
    };
    let clipped = sum(&["clip_fraction_low", "clip_fraction_high"]);
    let seconds = sum(&[
        "timing/sample_wait_seconds",
        "timing/learn_seconds",
        "timing/commit_seconds",
        "timing/publish_seconds",
    ]);
    values.extend(clipped.map(|clipped| ("clip_fraction".into(), clipped)));
    values.extend(seconds.map(|seconds| ("timing/step_seconds".into(), seconds)));
    // Where the entropy itself was not computed, its estimate from the sampled tokens stands for it.
    if !values.iter().any(|(name, _)| name == "entropy")
        && let Some((name, _)) = values.iter_mut().find(|(name, _)| name == "entropy_estimate")
    {
        *name = "entropy".into();
    }
    Ok((step, values))
}

/// All numbers of a JSON value under their paths, lists left out.
pub fn numbers(value: &Value, prefix: &str) -> Vec<(String, Number)> {
    fn walk(value: &Value, path: &str, into: &mut Vec<(String, Number)>) {
        match value {
            Value::Object(entries) => {
                for (name, value) in entries {
                    let path =
                        if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                    walk(value, &path, into);
                }
            }
            Value::Number(number) => {
                into.extend(number.as_f64().map(|number| (path.to_owned(), Number(number))));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(value, prefix, &mut found);
    found
}

/// A text of at most so many characters; a mark at its end says that it was longer.
pub fn cut(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let mark = format!("… [cut by octet, {count} characters]");
    let kept = most.saturating_sub(mark.chars().count());
    text.chars().take(kept).chain(mark.chars()).take(most).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_configuration_becomes_dotted_keys() {
        let config = json!({"run": {"seed": 1, "steps": null, "name": "x"}, "learner": {"betas": [0.9, 0.95], "empty": {}}});
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let expected = [
            pair("run.seed", "1"),
            pair("run.name", "x"),
            pair("learner.betas", "[0.9,0.95]"),
            pair("learner.empty", "{}"),
        ];
        assert_eq!(params(&config), expected);
    }

    #[test]
    fn a_line_of_metrics_becomes_numbers_under_their_paths() {
        let line = json!({
            "step": 3, "policy_versions": [1, 2], "reward_mean": 0.5, "verdicts": {"right-call": 7},
            "clip_fraction_low": 0.25, "clip_fraction_high": 0.5, "entropy_estimate": 0.7,
            "timing": {"sample_wait_seconds": 1.0, "learn_seconds": 2.0}
        });
        let (step, values) = step(&line.to_string()).unwrap();
        let of = |name: &str| values.iter().find(|(n, _)| n == name).map(|(_, value)| value.0);
        assert_eq!(step, 3);
        assert_eq!(of("step"), None);
        assert_eq!(of("policy_version"), Some(2.0));
        assert_eq!(of("verdicts/right-call"), Some(7.0));
        assert_eq!(of("clip_fraction"), Some(0.75));
        assert_eq!(of("timing/step_seconds"), Some(3.0));
        assert_eq!((of("entropy"), of("entropy_estimate")), (Some(0.7), None));
    }

    #[test]
    fn a_line_without_a_step_is_refused() {
        assert!(step("{}").is_err() && step("[1]").is_err() && step("{").is_err());
    }

    proptest! {
        #[test]
        fn a_text_is_cut_only_where_it_must_be(text in "\\PC{0,80}", most in 40usize..60) {
            let count = text.chars().count();
            let cut = cut(&text, most);
            if count <= most {
                prop_assert_eq!(cut, text);
            } else {
                prop_assert_eq!(cut.chars().count(), most);
                prop_assert!(cut.ends_with(&format!("[cut by octet, {count} characters]")), "{}", cut);
            }
        }
    }
}
