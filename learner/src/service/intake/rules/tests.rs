#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::{LearnerConfig, RunShape};
use crate::group::tests::parts;
use octet_policy::kernel::head::Shaping;
use serde_json::json;
use std::num::NonZeroU64;
use std::path::Path;

/// Batches of 4 over 3 steps; a context of 64 and a vocabulary of 1000.
fn rules(lag: u64) -> Rules {
    let model = json!({
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 1000,
        "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
        "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        "tie_word_embeddings": true, "eos_token_id": 2,
    });
    let model = ModelConfig::from_value(model, Path::new("config.json")).unwrap();
    let shape = RunShape {
        steps: NonZeroU64::new(3).unwrap(),
        completions: 8,
        max_tokens: 32,
        longest_prompt: 60,
        shaping: Shaping::default(),
        adapter: None,
    };
    let config =
        LearnerConfig { batch: NonZeroU64::new(4).unwrap(), lag, ..LearnerConfig::default() };
    Rules::new(config.resolve(&shape).unwrap(), &model)
}

fn message(group: u64, version: u64) -> Message {
    let mut parts = parts(group);
    parts.policy_version = version.into();
    ScoredGroup::new(parts).unwrap().into()
}

#[test]
fn the_version_is_the_one_that_the_lag_says() {
    for (lag, group, version, committed) in [(0, 0, 0, 0), (0, 5, 1, 1), (1, 5, 0, 0), (1, 9, 1, 1)]
    {
        assert!(rules(lag).admit(message(group, version), committed).is_ok(), "{lag} {group}");
    }
    // Late, after its step was committed: still to be compared with what is in the spool.
    assert!(rules(0).admit(message(0, 0), 2).is_ok());
    for (lag, group, version, committed) in [(0, 5, 0, 1), (1, 5, 1, 1), (0, 0, 1, 3), (0, 9, 2, 1)]
    {
        let refusal = rules(lag).admit(message(group, version), committed).unwrap_err();
        assert_eq!(refusal.kind(), "wrong-version", "{refusal}");
    }
}

#[test]
fn a_group_outside_the_plan_is_unknown() {
    for group in [12, u64::MAX] {
        let mut message = message(0, 0);
        message.group = group;
        assert_eq!(rules(0).admit(message, 0).unwrap_err().kind(), "unknown-group");
    }
}

#[test]
fn what_a_step_could_not_compute_is_refused_at_the_door() {
    let mut faults: Vec<(&str, Message)> = Vec::new();
    let mut add = |what, change: &dyn Fn(&mut Message)| {
        let mut message = message(0, 0);
        change(&mut message);
        faults.push((what, message));
    };
    add("8 completions, found 7", &|m| drop(m.completions.pop()));
    add("below the vocabulary's 1000, found 1000", &|m| m.prompt_tokens[0] = 1000);
    add("below the vocabulary's 1000, found 4000", &|m| m.completions[3].tokens[0] = 4000);
    add("a prompt of at most 60 tokens, found 61", &|m| m.prompt_tokens = vec![1; 61]);
    add("at most 32 tokens in sample 2, found 33", &|m| {
        (m.completions[2].tokens, m.completions[2].logprobs) = (vec![1; 33], vec![-1.0; 33]);
    });
    // 60 + 5 = 65 positions, of which the last is never read; 6 would be one too many.
    add("at most 5 tokens in sample 1, found 6", &|m| {
        m.prompt_tokens = vec![1; 60];
        for completion in &mut m.completions {
            (completion.tokens, completion.logprobs) = (vec![1; 5], vec![-1.0; 5]);
        }
        (m.completions[1].tokens, m.completions[1].logprobs) = (vec![1; 6], vec![-1.0; 6]);
    });
    add("finite reward", &|m| m.completions[0].reward = f64::NAN);
    for (expected, message) in faults {
        let refusal = rules(0).admit(message, 0).unwrap_err();
        assert_eq!(refusal.kind(), "malformed");
        assert!(refusal.to_string().contains(expected), "{refusal}");
    }
}
