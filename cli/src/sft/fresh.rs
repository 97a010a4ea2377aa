//! A policy with random weights: vocabulary, template, configuration, initial values.
//!
//! Invariant: a pure function of the recipe.

use super::corpus::text;
use super::recipe::{Fresh, Recipe};
use anyhow::{Context, Result};
use octet_dataset::ColdStart;
use octet_policy::config::{Dtype, ModelConfig};
use octet_policy::files::{StagedDir, write_model};
use octet_policy::template::ChatTemplate;
use octet_policy::tokenizer::{BpeOptions, Tokenizer, WORD_SPLIT, tokenizer_config, train_bpe};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::json;
use std::borrow::Cow;
use std::path::Path;

/// Writes the directory of a fresh policy.
pub fn make(recipe: &Recipe, fresh: &Fresh, target: &Path) -> Result<()> {
    let source = std::fs::read_to_string(&fresh.chat_template)
        .with_context(|| format!("reading the chat template {}", fresh.chat_template.display()))?;
    let template = ChatTemplate::from_source(&source, &fresh.chat_template)?;
    let staged = StagedDir::create(target)?;
    let tokenizer = vocabulary(recipe, fresh, &template)?;
    staged.write("tokenizer.json", &tokenizer)?;
    let about =
        tokenizer_config(&source, "<|im_end|>", "<|endoftext|>", fresh.max_position_embeddings);
    staged.write("tokenizer_config.json", format!("{about:#}\n").as_bytes())?;
    staged.write("chat_template.jinja", source.as_bytes())?;
    let tokenizer = Tokenizer::from_bytes(&tokenizer, &target.join("tokenizer.json"))?;
    let config = config(fresh, &tokenizer)?;
    let mut random = ChaCha8Rng::seed_from_u64(recipe.seed);
    write_model(&staged, &config, Dtype::F32, |spec| {
        Cow::Owned(if spec.shape.len() == 1 {
            vec![if spec.name.ends_with("bias") { 0.0 } else { 1.0 }; spec.len()]
        } else {
            // Projections back into the residual stream start smaller, by GPT-2's rule.
            let back =
                spec.name.ends_with("o_proj.weight") || spec.name.ends_with("down_proj.weight");
            let layers = fresh.num_hidden_layers as f32;
            let range = fresh.initializer_range as f32;
            let deviation = range / if back { (2.0 * layers).sqrt() } else { 1.0 };
            (0..spec.len()).map(|_| normal(&mut random) * deviation).collect()
        })
    })?;
    Ok(staged.commit()?)
}

fn vocabulary(recipe: &Recipe, fresh: &Fresh, template: &ChatTemplate) -> Result<Vec<u8>> {
    let stage = recipe.stage.last().context("a recipe needs a [[stage]]")?;
    let corpus = ColdStart::new(stage.corpus(recipe.seed ^ 0x70_6b, 1.0));
    let texts = (0..fresh.tokenizer_drills)
        .map(|i| text(template, corpus.drill(i)))
        .collect::<Result<Vec<_>>>()?;
    let options = BpeOptions { split: WORD_SPLIT.into(), ..BpeOptions::bundled(fresh.vocab_size) };
    Ok(train_bpe(texts, &options)?)
}

fn config(fresh: &Fresh, tokenizer: &Tokenizer) -> Result<ModelConfig> {
    let value = json!({
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": tokenizer.id_count(),
        "hidden_size": fresh.hidden_size,
        "intermediate_size": fresh.intermediate_size,
        "num_hidden_layers": fresh.num_hidden_layers,
        "num_attention_heads": fresh.num_attention_heads,
        "num_key_value_heads": fresh.num_key_value_heads,
        "max_position_embeddings": fresh.max_position_embeddings,
        "rope_theta": fresh.rope_theta,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "tie_word_embeddings": true,
        "use_sliding_window": false,
        "attention_dropout": 0.0,
        "initializer_range": fresh.initializer_range,
        "bos_token_id": null,
        "eos_token_id": tokenizer.require("<|im_end|>", "the end of a turn")?,
        "pad_token_id": tokenizer.require("<|endoftext|>", "padding")?,
        "torch_dtype": "float32",
    });
    Ok(ModelConfig::from_value(value, Path::new("config.json"))?)
}

/// A standard normal number, by Box and Muller.
fn normal(random: &mut ChaCha8Rng) -> f32 {
    let unit = |r: &mut ChaCha8Rng| (f64::from(r.next_u32()) + 0.5) / f64::from(u32::MAX);
    let (u, v) = (unit(random), unit(random));
    ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}
