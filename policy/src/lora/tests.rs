#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::json;
use std::path::Path;

fn config() -> ModelConfig {
    let config = json!({
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 64,
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 16,
        "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        "tie_word_embeddings": true, "eos_token_id": 2,
    });
    ModelConfig::from_value(config, Path::new("config.json")).unwrap()
}

fn lora(rank: usize, targets: Targets) -> Lora {
    Lora { rank: NonZeroUsize::new(rank).unwrap(), alpha: 8.0, targets }
}

#[test]
fn a_set_of_projections_has_one_form() {
    let read = |text: &str| serde_json::from_str::<Targets>(text);
    let some = read(r#"["v_proj", "q_proj"]"#).unwrap();
    assert_eq!(some, Targets::of([Target::Q, Target::V]));
    assert_eq!(serde_json::to_string(&some).unwrap(), r#"["q_proj","v_proj"]"#);
    let names = Target::ALL.map(Target::name);
    for all in [json!("all-linear"), json!(names)] {
        let all = Targets::deserialize(all).unwrap();
        assert_eq!(
            (all, serde_json::to_string(&all).unwrap().as_str()),
            (Targets::ALL, "\"all-linear\"")
        );
    }
    assert_eq!(read("\"down_proj\"").unwrap(), Targets::of([Target::Down]));
    for (bad, words) in [
        (r#"["q_proj", "lm_head"]"#, "\"lm_head\", expected a list of q_proj"),
        ("[]", "invalid length 0, expected a list of q_proj"),
        ("\"all\"", "or \"all-linear\""),
        ("3", "invalid type: integer `3`"),
    ] {
        let error = read(bad).unwrap_err().to_string();
        assert!(error.contains(words), "{bad}: {error}");
    }
}

#[test]
fn tensors_are_named_and_shaped_as_pefts() {
    let specs = lora(4, Targets::of([Target::K, Target::Down])).tensor_specs(&config());
    let expected = [
        ("model.layers.0.self_attn.k_proj.lora_A.weight", [4, 16]),
        ("model.layers.0.self_attn.k_proj.lora_B.weight", [8, 4]),
        ("model.layers.0.mlp.down_proj.lora_A.weight", [4, 24]),
        ("model.layers.0.mlp.down_proj.lora_B.weight", [16, 4]),
    ];
    for (spec, (name, shape)) in specs.iter().zip(expected) {
        assert_eq!((spec.name.as_str(), &spec.shape[..]), (name, &shape[..]));
    }
    assert_eq!(specs.len(), 8);
    assert_eq!(
        lora(4, Targets::of([Target::K, Target::Down])).param_count(&config()),
        2 * 4 * (16 + 8 + 24 + 16)
    );
}

#[test]
fn draws_depend_on_seed_and_place_alone() {
    let fresh = |seed, targets| FreshLora { lora: lora(4, targets), seed }.values(&config());
    let all = fresh(1, Targets::ALL);
    // Down is the last of seven: tensors 12 and 13.
    assert_eq!(fresh(1, Targets::of([Target::Down]))[0], all[12]);
    assert_ne!(fresh(2, Targets::ALL)[0], all[0]);
    assert_ne!(all[0], all[2], "another projection");
    assert_ne!(all[0], all[14], "another layer");
    for pair in all.chunks_exact(2) {
        let bound = 1.0 / ((pair[0].len() / 4) as f32).sqrt();
        let most = pair[0].iter().fold(0f32, |most, x| most.max(x.abs()));
        let mean = pair[0].iter().sum::<f32>() / pair[0].len() as f32;
        assert!(
            most < bound && most > 0.8 * bound && mean.abs() < 0.3 * bound,
            "{most} {mean} {bound}"
        );
        assert!(pair[1].iter().all(|b| *b == 0.0));
    }
    // As with sampling: a run's first version never changes.
    let bits: Vec<u32> = all[0][..3].iter().map(|x| x.to_bits()).collect();
    assert_eq!(bits, PINNED);
}

const PINNED: [u32; 3] = [3_167_053_072, 3_174_187_064, 1_040_367_278];

#[test]
fn what_a_model_cannot_have_is_refused() {
    let config = config();
    assert_eq!(lora(8, Targets::ALL).check(&config), Ok(()));
    let error = lora(9, Targets::ALL).check(&config).unwrap_err();
    assert_eq!(error, LoraError::Rank { most: 8, found: 9 });
    assert_eq!(lora(9, Targets::of([Target::Up])).check(&config), Ok(()));
    let off = Lora { alpha: 0.0, ..lora(4, Targets::ALL) };
    assert!(off.check(&config).unwrap_err().to_string().contains("above 0, found 0"));
}
