//! SmolLM2-135M-Instruct from its GGUF file: the tokens, the log-probabilities and the text that llama.cpp has for it.
//!
//! `tests/smollm2.sh` fetches the file, asks llama.cpp, and runs this with the two paths in the environment.

#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device};
use octet_policy::config::Dtype;
use octet_policy::kernel::head::Shaping;
use octet_policy::layout::GroupTokens;
use octet_policy::policy::Policy;
use octet_policy::sampler::{GroupRequest, Sampler, Sampling};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One prompt of `tests/llama_greedy.py`.
#[derive(Deserialize)]
struct Case {
    prompt: String,
    prompt_tokens: usize,
    text: String,
    ids: Vec<u32>,
    logprobs: Vec<f32>,
    /// How far the chosen token's log-probability is above the second's.
    margins: Vec<f32>,
}

/// llama.cpp rounds activations to 8 bits before products with quantised weights, and here they are 32-bit floats:
/// where two tokens are nearer to each other than this, either may be chosen.
const ROUNDING: f32 = 0.25;

fn path(variable: &str) -> PathBuf {
    let path = std::env::var(variable);
    path.unwrap_or_else(|_| panic!("{variable} is not set: run tests/smollm2.sh")).into()
}

fn load(path: &Path) -> Policy {
    let mut policy = Policy::load(path, DType::F32, &Device::Cpu).unwrap();
    policy.model.freeze().unwrap();
    policy
}

fn greedy(policy: &Policy, prompts: &[Vec<u32>], most: usize) -> Vec<Vec<u32>> {
    let sampling = Sampling {
        seed: 1,
        completions: 1,
        shaping: Shaping { temperature: 0.0, ..Shaping::default() },
        max_tokens: most,
        stop_tokens: policy.stop_tokens(),
    };
    let model = Arc::new(policy.model.clone());
    let mut sampler = Sampler::new(sampling, prompts.len());
    for (group, prompt) in (0..).zip(prompts) {
        sampler.submit(GroupRequest { group, prompt: prompt.clone(), model: model.clone() });
    }
    let mut all = Vec::new();
    while sampler.pending() > 0 {
        all.extend(sampler.step().unwrap());
    }
    all.sort_by_key(|completion| completion.group);
    all.into_iter().map(|completion| completion.tokens).collect()
}

#[test]
#[ignore = "needs the files that tests/smollm2.sh fetches and makes"]
fn greedy_text_is_that_of_llama_cpp() {
    let policy = load(&path("OCTET_SMOLLM2"));
    let cases = std::fs::read(path("OCTET_LLAMA_CASES")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&cases).unwrap();
    let prompts: Vec<Vec<u32>> =
        cases.iter().map(|case| policy.tokenizer.encode(&case.prompt).unwrap()).collect();
    let most = cases.iter().map(|case| case.ids.len()).max().unwrap();
    let written = greedy(&policy, &prompts, most);
    let (mut same, mut gaps) = (0, Vec::new());
    for ((case, prompt), written) in cases.iter().zip(&prompts).zip(&written) {
        assert_eq!(prompt.len(), case.prompt_tokens, "{:?}", case.prompt);
        // What llama.cpp wrote, in the eyes of this model.
        let group = GroupTokens { prefix: prompt.clone(), suffixes: vec![case.ids.clone()] };
        let ours = policy.model.log_probs(&[group], Shaping::default()).unwrap().logprobs;
        gaps.extend(ours.iter().zip(&case.logprobs).map(|(a, b)| (a - b).abs()));
        let parted = written.iter().zip(&case.ids).position(|(ours, theirs)| ours != theirs);
        match parted {
            None => {
                let text = policy.completion_text(written).unwrap();
                assert!(text.starts_with(&case.text), "{text:?} against {:?}", case.text);
                same += 1;
            }
            Some(at) => {
                let margin = case.margins[at];
                eprintln!("token {at} of {:?}: another choice, {margin} behind", case.text);
                assert!(margin < ROUNDING, "token {at} of {:?}: {margin}", case.text);
            }
        }
    }
    let worst = gaps.iter().copied().fold(0.0, f32::max);
    let mean = gaps.iter().sum::<f32>() / gaps.len() as f32;
    eprintln!(
        "{same} of {} texts are the same; log-probabilities {mean} apart, at most {worst}",
        cases.len()
    );
    assert!(2 * same >= cases.len(), "only {same} of {} texts are the same", cases.len());
    assert!(mean < 0.05 && worst < 0.5, "log-probabilities {mean} apart, at most {worst}");
}

#[test]
#[ignore = "needs the file that tests/smollm2.sh fetches"]
fn saved_as_a_directory_it_writes_the_same() {
    let file = load(&path("OCTET_SMOLLM2"));
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("smollm2");
    file.save(&target, Dtype::F32).unwrap();
    let saved = load(&target);
    assert_eq!(saved.model.params().digest().unwrap(), file.model.params().digest().unwrap());
    let messages = [serde_json::json!({"role": "user", "content": "What is 12 times 12?"})];
    let prompts = [file.prompt_tokens(&messages, &[]).unwrap()];
    assert_eq!(saved.prompt_tokens(&messages, &[]).unwrap(), prompts[0]);
    assert_eq!(greedy(&saved, &prompts, 12), greedy(&file, &prompts, 12));
}
