//! The memory of a measurement: how much it will want, and how much it had at most.
//!
//! Invariant: estimates are arithmetic over the configuration and the settings, made before a weight is
//! allocated. What a learning step wants is the learner's own plan and has no second formula here.

use super::settings::Settings;
use crate::allocator;
use anyhow::{Result, bail};
use octet_learner::plan::Bytes;
use octet_learner::step::ModelCost;
use octet_policy::config::ModelConfig;

/// Prompt tokens that the sampler computes together.
const PREFILL: u64 = 2048;

/// Bytes of a model that is ready to be sampled with: its weights, those of its products packed once more, and
/// the position table.
pub fn sampled_model(config: &ModelConfig) -> u64 {
    let packed = ModelCost::new(config).weights() as u64;
    let table = config.max_position_embeddings as u64 * config.head_dim as u64;
    4 * (config.param_count() as u64 + packed + table)
}

/// Bytes that sampling holds.
pub fn sampling(config: &ModelConfig, s: &Settings) -> u64 {
    let size = |n: usize| n as u64;
    let (hidden, inner) = (size(config.hidden_size), size(config.intermediate_size));
    let queries = size(config.num_attention_heads * config.head_dim);
    let keys = size(config.num_key_value_heads * config.head_dim);
    let groups = size(s.groups.get().min(s.rows / s.completions));
    let rows = groups * size(s.completions);
    // The cache of a completion doubles when it is full, and the old one goes when the new one is filled.
    let cached = groups * size(s.prompt) + rows * 3 * size(s.new);
    let cache = size(config.num_hidden_layers) * 2 * keys * cached;
    let computed = rows.max(PREFILL.max(size(s.prompt)).min(groups * size(s.prompt)));
    let layer = computed * (4 * hidden + 3 * inner + 2 * queries + 4 * keys);
    let logits = rows * size(config.vocab_size);
    sampled_model(config) + 4 * (cache + layer + logits)
}

/// Bytes that publishing holds: weights, what is given out, what has arrived, and the model made of it.
pub fn publishing(config: &ModelConfig) -> u64 {
    12 * config.param_count() as u64 + sampled_model(config)
}

/// Refuses what will not fit.
///
/// # Errors
/// Says what was needed and what is free; nothing where the system does not say what is free.
pub fn check(what: &str, name: &str, needed: u64, free: Option<u64>) -> Result<()> {
    match free {
        Some(free) if needed > free => bail!(
            "{what} {name} in f32: expected {} of free memory, found {}; choose a smaller --shape, fewer --groups, \
             --rows or tokens, or free memory",
            Bytes(needed),
            Bytes(free)
        ),
        _ => Ok(()),
    }
}

/// Does some work, and says how many bytes were resident at most meanwhile, where the system tells. What was
/// freed before does not count.
pub fn peak_of<R>(work: impl FnOnce() -> R) -> (R, Option<u64>) {
    allocator::give_back();
    // Sets the mark back to what is resident now. Only Linux has it.
    let marked = std::fs::write("/proc/self/clear_refs", "5").is_ok();
    let result = work();
    let status = std::fs::read_to_string("/proc/self/status");
    (result, status.ok().filter(|_| marked).and_then(|text| high_water(&text)))
}

/// `VmHWM` in bytes.
fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024 * kibibytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::bench::shape::{Shape, Subject};

    #[test]
    fn the_paper_s_model_wants_more_than_its_weights_twice() {
        let config = Subject::shape(Shape::Qwen7).unwrap().config;
        // The embedding is read row by row and is no product: it is not packed.
        let weights = 4 * 7_615_616_512;
        let embedding = 4 * 152_064 * 3584;
        assert!(sampled_model(&config) >= 2 * weights - embedding);
        assert!(publishing(&config) > 5 * weights - embedding);
        let error = check("sampling", "qwen2.5-7b", sampled_model(&config), Some(24 << 30));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("qwen2.5-7b") && error.contains("found 24.0 GiB"), "{error}");
        check("sampling", "qwen2.5-7b", u64::MAX, None).unwrap();
    }

    #[test]
    fn a_peak_is_seen() {
        let (length, peak) = peak_of(|| std::hint::black_box(vec![1u8; 64 << 20]).len());
        let Some(peak) = peak else {
            eprintln!("SKIPPED: this system does not tell a process's peak of memory");
            return;
        };
        assert!(peak > length as u64, "found {peak}");
        let status = "Name:\toctet\nVmHWM:\t   1234 kB\nVmRSS:\t 1000 kB\n";
        assert_eq!(high_water(status), Some(1234 * 1024));
    }
}
