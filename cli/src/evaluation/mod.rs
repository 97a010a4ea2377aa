//! Scoring a policy on a data set: sample, score, count.
//!
//! Invariant: a row's result depends on the policy, the row, the sampling and the reward function, not on
//! the other rows. A prompt that the policy's context does not hold is a wrong answer with a name, not an end of
//! the evaluation.

pub mod charts;
mod facets;
pub mod interval;
pub mod markdown;
pub mod record;
pub mod study;
pub mod suite;
pub mod table;

use anyhow::{Context, Result};
use octet_dataset::{Behaviour, Example};
use octet_policy::policy::Policy;
use octet_policy::sampler::{GroupRequest, Sampler, Sampling};
use octet_reward_service::{RewardFunction, score};
use std::sync::Arc;

/// One sampled and scored completion.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The row of the data set.
    pub row: usize,
    /// What the row wanted.
    pub behaviour: Behaviour,
    /// What the policy wrote.
    pub completion: String,
    /// Its reward.
    pub reward: f64,
    /// The reward's label.
    pub verdict: String,
    /// The reward's line for a person.
    pub detail: String,
}

/// Rows that can be sampled at once.
const ROWS_TOGETHER: usize = 128;

/// The verdict on rows whose prompt leaves no room in the policy's context.
pub const TOO_LONG: &str = "prompt-too-long";

/// Samples `sampling.completions` completions of each row and scores them.
pub fn evaluate(
    policy: &Policy,
    rows: &[Example],
    function: &dyn RewardFunction,
    sampling: Sampling,
    mut progress: impl FnMut(usize),
) -> Result<Vec<Outcome>> {
    let mut model = policy.model.clone();
    model.freeze()?;
    let model = Arc::new(model);
    let context = model.config().max_position_embeddings;
    let samples = sampling.completions;
    let mut outcomes = Vec::new();
    let mut sampler = Sampler::new(sampling, ROWS_TOGETHER);
    for (row, example) in rows.iter().enumerate() {
        let prompt =
            prompt_of(policy, example).with_context(|| format!("rendering row {}", row + 1))?;
        if prompt.len() >= context {
            let outcome = Outcome {
                row,
                behaviour: example.behaviour(),
                completion: String::new(),
                reward: 0.0,
                verdict: TOO_LONG.to_owned(),
                detail: format!("{} tokens of prompt in a context of {context}", prompt.len()),
            };
            outcomes.extend(std::iter::repeat_n(outcome, samples));
            continue;
        }
        sampler.submit(GroupRequest { group: row as u64, prompt, model: model.clone() });
    }
    while sampler.pending() > 0 {
        for done in sampler.step()? {
            let row = done.group as usize;
            let completion = policy.completion_text(&done.tokens)?;
            let verdict = score(function, &rows[row], &completion)?;
            outcomes.push(Outcome {
                row,
                behaviour: rows[row].behaviour(),
                completion,
                reward: verdict.reward,
                verdict: verdict.label.into_owned(),
                detail: verdict.detail,
            });
            progress(outcomes.len());
        }
    }
    outcomes.sort_by_key(|o| o.row);
    Ok(outcomes)
}

/// Token ids of an example's prompt.
pub fn prompt_of(policy: &Policy, example: &Example) -> Result<Vec<u32>> {
    let messages: Vec<serde_json::Value> =
        example.prompt.iter().map(|m| serde_json::Value::Object(m.json().clone())).collect();
    Ok(policy.prompt_tokens(&messages, &example.tools)?)
}
