#![allow(clippy::unwrap_used)]
use super::*;
use octet_policy::config::ModelConfig;
use serde_json::json;
use std::path::Path;

/// The shape of Qwen2.5-7B.
fn seven_billion() -> ModelConfig {
    let config = json!({
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 152064,
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 32768,
        "rope_theta": 1000000.0, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        "tie_word_embeddings": false, "eos_token_id": 151645,
    });
    ModelConfig::from_value(config, Path::new("config.json")).unwrap()
}

fn workload() -> Workload {
    Workload {
        dtype: Dtype::Bf16,
        longest_prompt: 1000,
        max_tokens: 512,
        completions: 8,
        batch: 128,
        micro_batch_tokens: 8192,
        lag: 0,
        reference: false,
    }
}

fn bytes(plan: &MemoryPlan, name: &str) -> u64 {
    plan.items().iter().find(|item| item.name == name).map_or(0, |item| item.bytes)
}

#[test]
fn the_papers_model_by_hand() {
    let plan = MemoryPlan::new(&seven_billion(), &workload(), Keep::Activations);
    // 7,615,616,512 parameters, as its makers count them.
    assert_eq!(bytes(&plan, "weights"), 2 * 7_615_616_512);
    assert_eq!(bytes(&plan, "optimiser moments"), 8 * 7_615_616_512);
    assert_eq!(bytes(&plan, "published versions"), 2 * 7_615_616_512);
    // A layer keeps 4·3584 + 2·3584 + 2·512 + 2·18944 elements and 30 floats a row.
    let row = (6 * 3584 + 2 * 512 + 2 * 18944) * 2 + 30 * 4;
    assert_eq!(bytes(&plan, "kept activations"), 28 * 8192 * row);
    // The next version and a 32-bit copy on its way to the disk are more than the activations here.
    assert_eq!(plan.peak(), plan.bytes(Phase::Always) + plan.bytes(Phase::Committing));
}

#[test]
fn a_micro_batch_is_the_limit_the_largest_group_or_the_whole_step() {
    let tokens = |change: &dyn Fn(&mut Workload)| {
        let mut workload = workload();
        change(&mut workload);
        workload.tokens()
    };
    assert_eq!(tokens(&|_| ()), 8192);
    assert_eq!(tokens(&|w| w.micro_batch_tokens = 100), 1000 + 8 * 512);
    assert_eq!(tokens(&|w| w.batch = 1), 1000 + 8 * 512);
}

#[test]
fn lag_and_reference_cost_copies() {
    let of = |lag, reference| {
        let workload = Workload { lag, reference, ..workload() };
        MemoryPlan::new(&seven_billion(), &workload, Keep::LayerInputs)
    };
    let weights = 2 * 7_615_616_512;
    let always = |lag, reference| of(lag, reference).bytes(Phase::Always);
    assert_eq!(always(2, true) - always(0, false), 3 * weights);
    assert_eq!(bytes(&of(1, false), "policy that sampled"), weights);
}

#[test]
fn the_first_way_that_fits_is_taken() {
    // Large enough that learning takes more than committing.
    let (config, workload) =
        (seven_billion(), Workload { micro_batch_tokens: 65_536, ..workload() });
    let of = |keep| MemoryPlan::new(&config, &workload, keep).peak();
    let (large, small) = (of(Keep::Activations), of(Keep::LayerInputs));
    assert!(small < large);
    let choose = |available| MemoryPlan::choose(&config, &workload, available);
    assert_eq!(choose(None).unwrap().keep(), Keep::Activations);
    assert_eq!(choose(Some(large)).unwrap().keep(), Keep::Activations);
    assert_eq!(choose(Some(large - 1)).unwrap().keep(), Keep::LayerInputs);
    let error = choose(Some(small - 1)).unwrap_err();
    assert_eq!((error.needed, error.available), (small, small - 1));
    let text = error.to_string();
    assert!(text.contains("micro-batch of 65536 tokens") && text.contains("GiB"), "{text}");
}

#[test]
fn the_table_adds_up_for_people() {
    let plan = MemoryPlan::new(&seven_billion(), &workload(), Keep::LayerInputs);
    let table = plan.to_string();
    assert!(table.starts_with("memory of a step, 7615616512 parameters"), "{table}");
    assert!(table.contains("  weights                   14.2 GiB\n"), "{table}");
    assert!(table.ends_with("activations are computed again"), "{table}");
    for item in plan.items() {
        assert!(table.contains(item.name), "{}", item.name);
    }
    assert_eq!(Bytes(999).to_string(), "999 B");
    assert_eq!(Bytes(1536).to_string(), "1.5 KiB");
}
