//! The memory plan against what the allocator sees.
#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device};
use octet_learner::adamw::Hyperparameters;
use octet_learner::plan::{MemoryPlan, Phase, Place, Workload};
use octet_learner::update::Updater;
use octet_policy::config::{Dtype, ModelConfig};
use octet_policy::kernel::head::Shaping;
use octet_policy::layout::GroupTokens;
use octet_policy::lora::{FreshLora, Lora};
use octet_policy::model::{Keep, Model, Params};
use serde_json::json;
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn config(family: &str, class: &str) -> ModelConfig {
    let config = json!({
        "model_type": family, "architectures": [class], "vocab_size": 600, "head_dim": 16,
        "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
        "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        "tie_word_embeddings": true, "eos_token_id": 2,
    });
    ModelConfig::from_value(config, Path::new("config.json")).unwrap()
}

fn model(config: &ModelConfig) -> Model {
    let values = config
        .tensor_specs()
        .into_iter()
        .map(|spec| (0..spec.len()).map(|i| ((i * 37 % 101) as f32 - 50.0) / 1000.0).collect());
    let params = Params::from_vecs(config, values.collect(), DType::F32, &Device::Cpu).unwrap();
    Model::new(config.clone(), params).unwrap()
}

#[test]
fn a_step_takes_no_more_than_planned_and_not_much_less() {
    for (family, class) in [("qwen2", "Qwen2ForCausalLM"), ("qwen3", "Qwen3ForCausalLM")] {
        check(&config(family, class), None);
    }
    // An adapter's learning takes what the model's takes: what it saves is held always.
    check(&config("qwen2", "Qwen2ForCausalLM"), Some(Lora::default()));
}

fn check(config: &ModelConfig, lora: Option<Lora>) {
    let tokens =
        |count: usize, from: usize| (0..count).map(|i| ((i + from) % 600) as u32).collect();
    let group = |g: usize| GroupTokens {
        prefix: tokens(120, g),
        suffixes: (0..8).map(|s| tokens(15, g + s)).collect(),
    };
    let groups: Vec<GroupTokens> = (0..4).map(group).collect();
    let of = |batch| Workload {
        dtype: Dtype::F32,
        longest_prompt: 120,
        max_tokens: 15,
        completions: 8,
        batch,
        micro_batch_tokens: 960,
        lag: 0,
        reference: false,
        device: false,
        in_memory: false,
        lora,
    };
    // A step of one part, and one of two.
    for (keep, parts) in [
        (Keep::Activations, 1),
        (Keep::LayerInputs, 1),
        (Keep::Activations, 2),
        (Keep::LayerInputs, 2),
    ] {
        let plan = MemoryPlan::new(config, &of(4 * parts), keep);
        assert_eq!(plan.tokens(), 960);
        let mut model = model(config);
        if let Some(lora) = lora {
            model = model.with_fresh_lora(&FreshLora { lora, seed: 1 }).unwrap();
        }
        let mut updater = Updater::new(model, keep, Hyperparameters::default()).unwrap();
        let mut learn = || {
            let held = HELD.load(Ordering::Relaxed);
            PEAK.store(held, Ordering::Relaxed);
            for _ in 0..parts {
                updater
                    .accumulate(&groups, Shaping::default(), |learned| {
                        Ok(vec![1e-3; learned.logprobs.len()])
                    })
                    .unwrap();
            }
            updater.apply(1e-6).unwrap();
            (PEAK.load(Ordering::Relaxed) - held) as u64
        };
        // The first pass also fills scratch memory that threads keep.
        learn();
        let (taken, planned) = (learn(), plan.bytes(Phase::Learning, Place::Host));
        let case = format!("{keep:?}, {parts} parts: {taken} bytes taken, {planned} planned");
        assert!(taken <= planned, "{case}");
        assert!(taken * 2 > planned, "{case}");
    }
}
