//! Whether a group costs `P + 8·C`: learning measured over prompts of 64 to 2,048 tokens, beside what the count
//! of operations predicts.
//!
//! Invariant: the prediction has one constant, the speed, and it is that of all prompts together (their geometric
//! mean), so a cost that grew otherwise would show at both ends.

use super::learning::{Rig, plan};
use super::report::{Findings, Quantity, Samples};
use super::settings::Settings;
use super::{Bench, room};
use anyhow::{Result, bail};
use octet_learner::step::ModelCost;
use serde_json::{Map, json};
use std::num::NonZeroUsize;

/// Tokens of the prompts.
const PROMPTS: [usize; 6] = [64, 128, 256, 512, 1024, 2048];
/// Tokens of each completion.
const COMPLETION: usize = 32;
/// Completions of a group.
const COMPLETIONS: usize = 8;
/// Groups that are learned together.
const GROUPS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

/// The work of one prompt length.
pub fn settings(of: &Settings, prompt: usize) -> Settings {
    Settings { groups: GROUPS, completions: COMPLETIONS, prompt, new: COMPLETION, ..*of }
}

/// The longest prompt that the context takes.
pub fn longest(bench: &Bench) -> Option<usize> {
    prompts(bench.subject.config.max_position_embeddings).last().copied()
}

fn prompts(context: usize) -> &'static [usize] {
    let fit = PROMPTS.iter().take_while(|prompt| **prompt + COMPLETION <= context).count();
    &PROMPTS[..fit]
}

/// Measures.
pub fn measure(bench: &Bench) -> Result<Findings> {
    let s = &bench.settings;
    let context = bench.subject.config.max_position_embeddings;
    let prompts = prompts(context);
    let Some(longest) = prompts.last() else {
        let least = PROMPTS[0] + COMPLETION;
        bail!(
            "the sweep wants a context of at least {least} tokens, and {} has {context}",
            bench.subject.name
        );
    };
    let passes = (prompts.len() * (1 + s.repeats) * GROUPS.get()) as u64;
    let bar = bench.begin("sweep", passes);
    let plan = plan(bench, &settings(s, *longest))?;
    let mut rig = Rig::new(bench, &settings(s, *longest), &plan)?;
    let mut measured = Vec::with_capacity(prompts.len());
    let (result, _) = room::peak_of(|| -> Result<()> {
        for &prompt in prompts {
            let batch = rig.batch(bench, &settings(s, prompt))?;
            let mut samples = Samples::default();
            for repetition in 0..=s.repeats {
                let times = rig.accumulate(&batch, &bar)?;
                if repetition > 0 {
                    samples.push(times.forward + times.backward);
                }
            }
            measured.push(samples.median());
        }
        Ok(())
    });
    result?;
    bar.finish_and_clear();

    let cost = ModelCost::new(&bench.subject.config);
    let costs = prompts.iter().map(|&prompt| {
        GROUPS.get() as f64 * cost.learn(prompt, std::iter::repeat_n(COMPLETION, COMPLETIONS))
    });
    let costs: Vec<f64> = costs.collect();
    let predicted = predict(&costs, &measured);
    let headline = format!(
        "{GROUPS} groups × {COMPLETIONS} completions of {COMPLETION} tokens: forward and backward, measured and predicted"
    );
    let mut found = Findings::new("sweep", headline, Map::new());
    for (name, value) in
        [("groups", GROUPS.get()), ("completions", COMPLETIONS), ("new", COMPLETION)]
    {
        found.condition(name, json!(value));
    }
    let mut worst = 0f64;
    for ((&prompt, &measured), &predicted) in prompts.iter().zip(&measured).zip(&predicted) {
        let off = 100.0 * (measured / predicted - 1.0);
        if off.abs() > worst.abs() {
            worst = off;
        }
        for (quantity, value) in [
            (Quantity::Seconds, measured),
            (Quantity::Predicted, predicted),
            (Quantity::Difference, off),
        ] {
            let mut own = Map::new();
            own.insert("prompt".into(), json!(prompt));
            found.add_under("cost", quantity, value, Some(format!("prompt {prompt}")), own);
        }
    }
    found.add("worst", Quantity::Difference, worst);
    Ok(found)
}

/// Seconds of each cost at one speed: the geometric mean of the speeds that were measured.
fn predict(costs: &[f64], measured: &[f64]) -> Vec<f64> {
    let logs = costs.iter().zip(measured).map(|(cost, seconds)| (cost / seconds).ln());
    let speed = (logs.sum::<f64>() / costs.len().max(1) as f64).exp();
    costs.iter().map(|cost| cost / speed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_as_predicted_is_off_by_nothing_and_another_one_shows() {
        let costs = [1.0, 2.0, 4.0];
        let same: Vec<f64> = costs.iter().map(|cost| 3.0 * cost).collect();
        for (found, wanted) in predict(&costs, &same).iter().zip(&same) {
            assert!((found / wanted - 1.0).abs() < 1e-12);
        }
        // Seconds that grow with the square: a quarter of the prediction at one end, four times at the other.
        let square = [1.0, 4.0, 16.0];
        let found = predict(&costs, &square);
        assert!((square[0] / found[0] - 0.5).abs() < 1e-9, "{found:?}");
        assert!((square[2] / found[2] - 2.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn prompts_end_with_the_context() {
        assert_eq!(prompts(4096), PROMPTS);
        assert_eq!(prompts(600), [64, 128, 256, 512]);
        assert!(prompts(95).is_empty());
    }
}
