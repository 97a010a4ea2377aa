#![allow(clippy::unwrap_used)]
use super::*;
use octet_policy::config::ModelConfig;
use octet_policy::lora::{Lora, Targets};
use serde_json::json;
use std::num::NonZeroUsize;
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
        device: true,
        in_memory: true,
        lora: None,
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
    assert_eq!(bytes(&plan, "gradients"), 4 * 7_615_616_512);
    assert_eq!(bytes(&plan, "weights in 32 bits"), 4 * 7_615_616_512);
    assert_eq!(bytes(&plan, "optimiser moments"), 8 * 7_615_616_512);
    assert_eq!(bytes(&plan, "published versions"), 2 * 7_615_616_512);
    // A layer keeps 3584 + 2·3584 + 2·512 + 2·18944 elements and 30 floats a row.
    let row = (3 * 3584 + 2 * 512 + 2 * 18944) * 2 + 30 * 4;
    assert_eq!(bytes(&plan, "kept activations"), 28 * 8192 * row);
    // On the machine, the gradients in passing are more than the next version and a tensor on its way to the disk.
    let host = |phase| plan.bytes(phase, Place::Host);
    assert_eq!(plan.peak(Place::Host), host(Phase::Always) + host(Phase::Learning));
    assert_eq!(host(Phase::Committing), 2 * 7_615_616_512 + 8 * 152_064 * 3584);
    let device = |phase| plan.bytes(phase, Place::Device);
    assert_eq!(plan.peak(Place::Device), device(Phase::Always) + device(Phase::Learning));
}

#[test]
fn without_a_device_all_is_on_the_machine() {
    let workload = Workload { dtype: Dtype::F32, device: false, ..workload() };
    let plan = MemoryPlan::new(&seven_billion(), &workload, Keep::Activations);
    assert_eq!(plan.peak(Place::Device), 0);
    assert_eq!(plan.peaks().count(), 1);
    assert_eq!(bytes(&plan, "weights in 32 bits"), 0);
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
fn gradients_take_the_place_of_activations_where_a_step_is_one_part() {
    let of = |batch, micro_batch_tokens, keep| {
        let workload = Workload { batch, micro_batch_tokens, ..workload() };
        MemoryPlan::new(&seven_billion(), &workload, keep)
    };
    let all = 4 * 7_615_616_512;
    // A group has 1000 + 8·512 tokens.
    assert_eq!(bytes(&of(2, 5096, Keep::Activations), "gradients"), all);
    let outside = 4 * (2 * 152_064 + 1) * 3584;
    let one = of(2, 10_192, Keep::LayerInputs);
    let kept = bytes(&one, "kept activations");
    assert_eq!(bytes(&one, "gradients"), all - kept);
    // So many activations that the layers' gradients fit into their place.
    let long = of(64, 64 * 5096, Keep::Activations);
    assert!(bytes(&long, "kept activations") > all);
    assert_eq!(bytes(&long, "gradients"), outside);
}

#[test]
fn versions_are_in_no_memory_where_files_have_them() {
    let workload = Workload { in_memory: false, lag: 2, ..workload() };
    let plan = MemoryPlan::new(&seven_billion(), &workload, Keep::Activations);
    assert_eq!((bytes(&plan, "published versions"), bytes(&plan, "next version")), (0, 0));
}

#[test]
fn lag_and_reference_cost_copies() {
    let of = |lag, reference| {
        let workload = Workload { lag, reference, ..workload() };
        MemoryPlan::new(&seven_billion(), &workload, Keep::LayerInputs)
    };
    let weights = 2 * 7_615_616_512;
    let always = |lag, reference| {
        let plan = of(lag, reference);
        plan.bytes(Phase::Always, Place::Host) + plan.bytes(Phase::Always, Place::Device)
    };
    assert_eq!(always(2, true) - always(0, false), 3 * weights);
    assert_eq!(bytes(&of(1, false), "policy that sampled"), weights);
}

#[test]
fn an_adapter_costs_what_it_has_and_a_reference_nothing() {
    let lora = Lora { rank: NonZeroUsize::new(16).unwrap(), alpha: 32.0, targets: Targets::ALL };
    let of = |reference, lag| {
        let workload = Workload { lora: Some(lora), reference, lag, ..workload() };
        MemoryPlan::new(&seven_billion(), &workload, Keep::Activations)
    };
    // A layer: rank times the sides of q and o, of k and v, and of gate, up and down.
    let trained = 28 * 16 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944));
    assert_eq!(trained, 40_370_176);
    let plan = of(false, 0);
    assert_eq!(bytes(&plan, "weights"), 2 * 7_615_616_512);
    assert_eq!(bytes(&plan, "adapter"), 2 * trained);
    assert_eq!(bytes(&plan, "gradients"), 4 * trained);
    assert_eq!(bytes(&plan, "weights in 32 bits"), 4 * trained);
    assert_eq!(bytes(&plan, "optimiser moments"), 8 * trained);
    assert_eq!(bytes(&plan, "published versions"), 2 * trained);
    assert_eq!(of(true, 0), plan, "the reference is the weights that are there");
    assert_eq!(bytes(&of(false, 1), "policy that sampled"), 2 * trained);
    let whole = MemoryPlan::new(&seven_billion(), &workload(), Keep::Activations);
    assert_eq!(bytes(&plan, "kept activations"), bytes(&whole, "kept activations"));
    assert!(plan.peak(Place::Host) * 50 < whole.peak(Place::Host));
}

#[test]
fn the_first_way_that_fits_is_taken() {
    // Large enough that learning takes more than committing.
    let (config, workload) =
        (seven_billion(), Workload { micro_batch_tokens: 65_536, ..workload() });
    let of = |keep| MemoryPlan::new(&config, &workload, keep).peak(Place::Device);
    let (large, small) = (of(Keep::Activations), of(Keep::LayerInputs));
    assert!(small < large);
    let choose = |device| MemoryPlan::choose(&config, &workload, Available { host: None, device });
    assert_eq!(choose(None).unwrap().keep(), Keep::Activations);
    assert_eq!(choose(Some(large)).unwrap().keep(), Keep::Activations);
    assert_eq!(choose(Some(large - 1)).unwrap().keep(), Keep::LayerInputs);
    let error = choose(Some(small - 1)).unwrap_err();
    assert_eq!((error.needed, error.available), (small, small - 1));
    let text = error.to_string();
    assert!(text.contains("on the device"), "{text}");
    assert!(text.contains("micro-batch of 65536 tokens") && text.contains("GiB"), "{text}");
}

#[test]
fn the_table_adds_up_for_people() {
    let plan = MemoryPlan::new(&seven_billion(), &workload(), Keep::LayerInputs);
    let table = plan.to_string();
    assert!(table.starts_with("memory of a step, 7615616512 parameters"), "{table}");
    assert!(table.contains("  weights                   14.2 GiB  on the device\n"), "{table}");
    assert!(table.ends_with("activations are computed again"), "{table}");
    for item in plan.items() {
        assert!(table.contains(item.name), "{}", item.name);
    }
    assert_eq!(Bytes(999).to_string(), "999 B");
    assert_eq!(Bytes(1536).to_string(), "1.5 KiB");
}
