//! Sampling: prompts alone, decoding alone, and both as a worker does it.
//!
//! Invariant: the sampler is driven as the rollout worker's engine drives it: groups are handed over as soon
//! as there is room, then one step after the other. No token ends a completion, so the work is the same in
//! every repetition.

use super::report::{Findings, Quantity, Samples};
use super::{Bench, room};
use anyhow::Result;
use indicatif::ProgressBar;
use octet_learner::step::ModelCost;
use octet_policy::kernel::head::Shaping;
use octet_policy::model::Model;
use octet_policy::sampler::{GroupRequest, Sampler, Sampling};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What one pass over all groups took.
#[derive(Default)]
struct Pass {
    all: Duration,
    /// Steps in which no prompt was computed.
    decoding: Duration,
    decoded: Decoded,
}

/// What was computed in steps without a prompt.
#[derive(Default, Clone, Copy)]
struct Decoded {
    steps: u64,
    rows: u64,
    operations: f64,
    /// Keys that rows saw beyond their own prompt, and those of prompts once a group.
    keys: u64,
}

/// Measures.
pub fn measure(bench: &Bench) -> Result<Findings> {
    let (s, config) = (&bench.settings, &bench.subject.config);
    let passes = 1 + s.repeats;
    let bar = bench.begin("sampling", (passes * s.groups.get() * s.completions) as u64);
    let mut model = bench.subject.model(s.seed)?;
    model.freeze()?;
    let model = Arc::new(model);
    let prompts = s.prompts(&bench.subject, s.groups.get(), s.prompt);
    let (mut prefill, mut decode, mut whole) =
        (Samples::default(), Samples::default(), Samples::default());
    let mut decoded = Decoded::default();
    let (result, peak) = room::peak_of(|| -> Result<()> {
        for repetition in 0..passes {
            // A completion of one token is drawn from its prompt alone.
            let first = pass(bench, &model, &prompts, 1, &ProgressBar::hidden())?;
            let all = pass(bench, &model, &prompts, s.new, &bar)?;
            if repetition > 0 {
                prefill.push(first.all);
                decode.push(all.decoding);
                whole.push(all.all);
                decoded = all.decoded;
            }
        }
        Ok(())
    });
    result?;
    bar.finish_and_clear();

    let headline = format!("{}, {} rows together", s.work(), s.rows);
    let mut found = Findings::new("sampling", headline, s.conditions());
    found.condition("rows", json!(s.rows));
    let (cost, machine) = (ModelCost::new(config), bench.machine);
    let groups = s.groups.get() as f64;
    let seconds = prefill.median();
    found.time("prefill", &prefill);
    found.add("prefill", Quantity::Tokens, groups * s.prompt as f64 / seconds);
    found.flops("prefill", groups * cost.prefill(s.prompt), seconds, machine.gflops);

    let seconds = decode.median();
    found.time("decode", &decode);
    found.add("decode", Quantity::Tokens, decoded.rows as f64 / seconds);
    found.flops("decode", decoded.operations, seconds, machine.gflops);
    let per_key = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim;
    let floats = decoded.steps as f64 * cost.weights() + decoded.keys as f64 * per_key as f64;
    let bandwidth = 4.0 * floats / seconds / 1e9;
    found.add("decode", Quantity::Bandwidth, bandwidth);
    found.add("decode", Quantity::BandwidthShare, 100.0 * bandwidth / machine.bandwidth);

    let (seconds, new) = (whole.median(), groups * (s.completions * s.new) as f64);
    found.time("whole", &whole);
    found.add("whole", Quantity::Tokens, new / seconds);
    let lengths = std::iter::repeat_n(s.new, s.completions);
    found.flops("whole", groups * cost.sample(s.prompt, lengths), seconds, machine.gflops);
    found.memory(peak, room::sampling(config, s));
    Ok(found)
}

/// Samples every prompt once, `new` tokens a completion.
fn pass(
    bench: &Bench,
    model: &Arc<Model>,
    prompts: &[Vec<u32>],
    new: usize,
    bar: &ProgressBar,
) -> Result<Pass> {
    let s = &bench.settings;
    let sampling = Sampling {
        seed: s.seed,
        completions: s.completions,
        shaping: Shaping::default(),
        max_tokens: new,
        stop_tokens: Vec::new(),
    };
    let cost = ModelCost::new(model.config());
    let mut sampler = Sampler::new(sampling, s.rows);
    let mut waiting = prompts.iter().enumerate();
    // How many tokens the completions of each group under way have.
    let mut ages: Vec<usize> = Vec::new();
    let mut pass = Pass::default();
    loop {
        let mut joined = 0;
        while sampler.has_room() || sampler.pending() == 0 {
            let Some((group, prompt)) = waiting.next() else { break };
            let (group, prompt, model) = (group as u64, prompt.clone(), Arc::clone(model));
            sampler.submit(GroupRequest { group, prompt, model });
            joined += 1;
        }
        if sampler.pending() == 0 {
            return Ok(pass);
        }
        let start = Instant::now();
        let ended = sampler.step()?;
        let took = start.elapsed();
        pass.all += took;
        if joined == 0 {
            pass.decoding += took;
            pass.decoded.step(&cost, s.prompt, s.completions, &ages);
        }
        ages.iter_mut().for_each(|age| *age += 1);
        // A prompt gives its completions' first token, and the same step decodes the second.
        ages.extend(std::iter::repeat_n(2, joined));
        ages.retain(|&age| age < new);
        bar.inc(ended.len() as u64);
    }
}

impl Decoded {
    /// Counts a step in which groups whose completions have so many tokens got one more.
    fn step(&mut self, cost: &ModelCost, prompt: usize, completions: usize, ages: &[usize]) {
        self.steps += 1;
        for &age in ages {
            self.rows += completions as u64;
            self.operations += completions as f64 * cost.decode(prompt + age);
            self.keys += (prompt + completions * age) as u64;
        }
    }
}
