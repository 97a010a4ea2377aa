//! What a whole step needs besides weights: a tokenizer of words, rows whose prompts have an exact length, and a
//! reward that teaches something.
//!
//! Invariant: the directory is a Hugging Face directory like any other, so a run loads, commits and publishes
//! it as it would any policy. No token ends a completion.

use super::settings::Settings;
use super::shape::Subject;
use anyhow::Result;
use octet_dataset::Example;
use octet_policy::config::{Dtype, ModelConfig};
use octet_policy::files::{StagedDir, write_model};
use octet_reward_service::{RewardFunction, RewardRange, ScoreError, ToolCall, Verdict};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::path::Path;

/// Writes a policy with the subject's weights.
pub fn policy(subject: &Subject, seed: u64, target: &Path) -> Result<()> {
    let model = subject.model(seed)?;
    let mut raw = subject.config.raw.clone();
    raw.insert("eos_token_id".into(), Value::Null);
    let config = ModelConfig::from_value(Value::Object(raw), target)?;
    let staged = StagedDir::create(target)?;
    staged.write("tokenizer.json", tokenizer(config.vocab_size).to_string().as_bytes())?;
    staged.write(
        "chat_template.jinja",
        b"{% for message in messages %}{{ message.content }}{% endfor %}",
    )?;
    let params = model.params();
    let mut values = Vec::with_capacity(params.specs().len());
    for at in 0..params.specs().len() {
        values.push(params.read(at, <[f32]>::to_vec)?);
    }
    let mut values = values.into_iter();
    write_model(&staged, &config, Dtype::F32, |_| Cow::Owned(values.next().unwrap_or_default()))?;
    Ok(staged.commit()?)
}

/// A word a token: token 17 is `w17`.
fn tokenizer(vocabulary: usize) -> Value {
    let words = (0..vocabulary).map(|id| (format!("w{id}"), json!(id)));
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": null,
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": words.collect::<Map<_, _>>(), "unk_token": "w0"},
    })
}

/// Rows of a data set, one line each.
pub fn rows(subject: &Subject, settings: &Settings, count: usize) -> String {
    let mut text = String::new();
    for prompt in settings.prompts(subject, count, settings.prompt) {
        let words: Vec<String> = prompt.iter().map(|id| format!("w{id}")).collect();
        let row = json!({
            "prompt": [{"role": "user", "content": words.join(" ")}],
            "reward_model": {"ground_truth": {"behavior": "refuse"}},
        });
        text.push_str(&row.to_string());
        text.push('\n');
    }
    text
}

/// Scores as `tool-call` does, which finds nothing in random words, and then gives 0 or 1 by the words' digest:
/// groups whose rewards are equal would not be learned.
pub struct Lots;

impl RewardFunction for Lots {
    fn name(&self) -> &str {
        "bench"
    }

    fn digest(&self) -> String {
        blake3::hash(b"bench").to_hex().to_string()
    }

    fn range(&self) -> RewardRange {
        RewardRange::UNIT
    }

    fn score(&self, example: &Example, completion: &str) -> Result<Verdict, ScoreError> {
        let verdict = ToolCall.score(example, completion)?;
        let lot = blake3::hash(completion.as_bytes()).as_bytes()[0] % 2;
        Ok(Verdict { reward: f64::from(lot), ..verdict })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::bench::shape::Shape;
    use candle_core::{DType, Device};
    use octet_policy::policy::Policy;

    #[test]
    fn prompts_have_exactly_the_tokens_that_were_asked_for() {
        let subject = Subject::shape(Shape::Tiny).unwrap();
        let settings = crate::bench::tests::settings();
        let home = tempfile::tempdir().unwrap();
        let target = home.path().join("policy");
        policy(&subject, 7, &target).unwrap();
        let policy = Policy::load(&target, DType::F32, &Device::Cpu).unwrap();
        assert!(policy.stop_tokens().is_empty());
        let text = rows(&subject, &settings, 3);
        assert_eq!(text.lines().count(), 3);
        let wanted = settings.prompts(&subject, 3, settings.prompt);
        for (line, wanted) in text.lines().zip(wanted) {
            let example = Example::from_json(line).unwrap();
            let found = crate::evaluation::prompt_of(&policy, &example).unwrap();
            assert_eq!(found, wanted);
            // A completion is words again, which have a reward.
            let words = policy.completion_text(&found[..9]).unwrap();
            let reward = octet_reward_service::score(&Lots, &example, &words).unwrap().reward;
            assert!(reward == 0.0 || reward == 1.0);
        }
    }
}
