//! Configurations as published, and each refusal.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn qwen() -> Value {
    json!({
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": 896,
        "initializer_range": 0.02, "intermediate_size": 4864, "max_position_embeddings": 32768,
        "max_window_layers": 21, "model_type": "qwen2", "num_attention_heads": 14,
        "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": true,
        "torch_dtype": "bfloat16", "transformers_version": "4.43.1", "use_cache": true,
        "use_sliding_window": false, "vocab_size": 151936
    })
}

fn llama() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu",
        "hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 131072,
        "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32,
        "num_hidden_layers": 16, "num_key_value_heads": 8, "pad_token_id": -1,
        "rms_norm_eps": 1e-05, "tie_word_embeddings": true, "dtype": "bfloat16",
        "rope_parameters": {
            "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3",
            "rope_theta": 500000.0
        },
        "vocab_size": 128256
    })
}

fn qwen3() -> Value {
    json!({
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
        "hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 3072,
        "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
        "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000,
        "sliding_window": null, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "use_sliding_window": false, "vocab_size": 151936
    })
}

fn parse(value: Value) -> Result<ModelConfig, ConfigError> {
    ModelConfig::from_value(value, Path::new("model/config.json"))
}

fn with(mut base: Value, key: &str, value: Value) -> Value {
    base[key] = value;
    base
}

#[test]
fn published_sizes_are_reproduced() {
    // The parameter counts that the model cards of Qwen2.5-0.5B and Llama-3.2-1B give, and what the
    // weight file of Qwen3-0.6B holds without its second copy of the embedding.
    assert_eq!(parse(qwen()).unwrap().param_count(), 494_032_768);
    assert_eq!(parse(llama()).unwrap().param_count(), 1_235_814_400);
    assert_eq!(parse(qwen3()).unwrap().param_count(), 596_049_920);
}

#[test]
fn qwen3_reads_as_published() {
    let config = parse(qwen3()).unwrap();
    assert_eq!(config.architecture, Architecture::Qwen3);
    assert!(config.qk_norm && !config.qkv_bias && !config.output_bias);
    assert_eq!(config.head_dim, 128);
    let mut silent = qwen3();
    silent.as_object_mut().unwrap().shift_remove("head_dim");
    assert_eq!(parse(silent).unwrap().head_dim, 128, "not hidden_size / num_attention_heads");
    let biased = parse(with(qwen3(), "attention_bias", json!(true))).unwrap();
    assert!(biased.qkv_bias && biased.output_bias);
}

#[test]
fn qwen_reads_as_published() {
    let config = parse(qwen()).unwrap();
    assert_eq!(config.architecture, Architecture::Qwen2);
    assert_eq!(config.head_dim, 64);
    assert!(config.qkv_bias && !config.output_bias && config.tie_word_embeddings);
    assert_eq!(config.eos_token_ids, [151_645]);
    assert_eq!(config.pad_token_id, None);
    assert_eq!(config.dtype, Some(Dtype::Bf16));
    assert_eq!(config.rope, Rope { theta: 1e6, scaling: None });
}

#[test]
fn llama_reads_both_rope_layouts_alike() {
    let new = parse(llama()).unwrap();
    let mut old = llama();
    let mut scaling = old["rope_parameters"].take();
    scaling.as_object_mut().unwrap().shift_remove("rope_theta");
    old["rope_scaling"] = scaling;
    old["rope_theta"] = json!(500_000);
    let old = parse(old).unwrap();
    assert_eq!(new.rope, old.rope);
    assert_eq!(new.rope.theta, 500_000.0);
    assert_eq!(new.rope.scaling.as_ref().unwrap().factor, 32.0);
    assert_eq!(new.eos_token_ids, [128_001, 128_008, 128_009]);
    assert_eq!(new.pad_token_id, None, "-1 stands for none");
}

#[test]
fn scaled_frequencies_keep_high_and_divide_low() {
    let config = parse(llama()).unwrap();
    let plain = Rope { theta: 500_000.0, scaling: None }.frequencies(64);
    let scaled = config.rope.frequencies(64);
    assert_eq!(scaled.len(), 32);
    assert_eq!(scaled[0], 1.0);
    assert_eq!(scaled[31], plain[31] / 32.0);
    let between = |i: usize| scaled[i] < plain[i] && scaled[i] > plain[i] / 32.0;
    assert!((0..32).any(between), "the smooth band is empty");
}

#[test]
fn unknown_keys_survive_saving() {
    let config = parse(with(qwen(), "somebody_elses_key", json!({"a": [1]}))).unwrap();
    let saved = config.to_json(Dtype::F32);
    assert_eq!(saved["somebody_elses_key"], json!({"a": [1]}));
    assert_eq!(saved["torch_dtype"], "float32");
    assert_eq!(parse(saved).unwrap().dtype, Some(Dtype::F32));
    let saved = parse(llama()).unwrap().to_json(Dtype::F32);
    assert_eq!(saved["dtype"], "float32");
    assert!(saved.get("torch_dtype").is_none());
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    let cases = [
        (with(qwen(), "model_type", json!("mamba")), "model_type", "\"mamba\""),
        (with(qwen(), "architectures", json!(["Qwen2ForRewardModel"])), "architectures", "Reward"),
        (with(qwen(), "hidden_act", json!("gelu")), "hidden_act", "gelu"),
        (with(qwen(), "use_sliding_window", json!(true)), "use_sliding_window", "true"),
        (with(qwen(), "layer_types", json!(["sliding_attention"])), "layer_types", "sliding"),
        (with(qwen(), "rope_scaling", json!({"type": "yarn", "factor": 4.0})), "rope_type", "yarn"),
        (with(qwen(), "num_key_value_heads", json!(3)), "num_key_value_heads", "3"),
        (with(qwen(), "hidden_size", json!(897)), "hidden_size", "897"),
        (with(qwen(), "hidden_size", json!("896")), "hidden_size", "\"896\""),
        (with(qwen(), "vocab_size", json!(0)), "vocab_size", "0"),
        (with(qwen(), "vocab_size", json!(null)), "vocab_size", "no such key"),
        (with(qwen(), "eos_token_id", json!(200_000)), "eos_token_id", "200000"),
        (with(qwen(), "rms_norm_eps", json!(-1.0)), "rms_norm_eps", "-1"),
        (with(qwen(), "torch_dtype", json!("int8")), "torch_dtype", "int8"),
        (with(llama(), "mlp_bias", json!(true)), "mlp_bias", "true"),
        (with(llama(), "quantization_config", json!({})), "quantization_config", "{}"),
    ];
    for (value, key, found) in cases {
        let error = parse(value).unwrap_err().to_string();
        assert!(error.contains("model/config.json"), "{error}");
        assert!(error.contains(key) && error.contains(found), "{key}: {error}");
    }
}
