//! The files that servers look for beside weights and configuration.
//!
//! Invariant: what the policy came with is kept; what is missing is added from what octet itself goes by, so that a
//! server ends completions where octet does and renders conversations as octet does.

use anyhow::{Context, Result};
use octet_policy::config::GENERATION_CONFIG_FILE;
use octet_policy::files::StagedDir;
use octet_policy::policy::Policy;
use octet_policy::template::Sources;
use serde_json::{Map, Value, json};
use std::path::Path;

const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";

/// Completes a directory in the making that the policy was saved into.
///
/// # Errors
/// A file cannot be read or written.
pub fn complete(staged: &StagedDir, policy: &Policy) -> Result<()> {
    let mut generation = object(staged.path(), GENERATION_CONFIG_FILE)?;
    ends(&mut generation, policy);
    write(staged, GENERATION_CONFIG_FILE, &generation)?;
    let mut tokenizer = object(staged.path(), TOKENIZER_CONFIG_FILE)?;
    template(&mut tokenizer, policy.template.sources());
    let context = policy.model.config().max_position_embeddings;
    tokenizer.entry("model_max_length").or_insert_with(|| context.into());
    write(staged, TOKENIZER_CONFIG_FILE, &tokenizer)
}

/// Every token that ends a completion here: servers read this file for them, and not the tokenizer's.
fn ends(generation: &mut Map<String, Value>, policy: &Policy) {
    let stops = policy.stop_tokens();
    let ends = match stops.as_slice() {
        [one] => json!(one),
        several => json!(several),
    };
    generation.insert("eos_token_id".into(), ends);
    let config = policy.model.config();
    for (key, id) in [("bos_token_id", config.bos_token_id), ("pad_token_id", config.pad_token_id)]
    {
        if let Some(id) = id {
            generation.entry(key).or_insert_with(|| id.into());
        }
    }
}

/// The chat template, where the file has none: it may lie in a file of its own, which older servers do not read.
fn template(tokenizer: &mut Map<String, Value>, sources: &Sources) {
    if tokenizer.get("chat_template").is_some_and(|template| !template.is_null()) {
        return;
    }
    let template = match &sources.tool_use {
        None => json!(sources.default),
        Some(tool_use) => json!([
            { "name": "default", "template": sources.default },
            { "name": "tool_use", "template": tool_use },
        ]),
    };
    tokenizer.insert("chat_template".into(), template);
}

fn object(directory: &Path, name: &str) -> Result<Map<String, Value>> {
    let path = directory.join(name);
    if !path.is_file() {
        return Ok(Map::new());
    }
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("reading {}: expected a JSON object", path.display()))
}

fn write(staged: &StagedDir, name: &str, content: &Map<String, Value>) -> Result<()> {
    let text = serde_json::to_string_pretty(content)?;
    Ok(staged.write(name, format!("{text}\n").as_bytes())?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_template_that_is_there_is_kept() {
        let sources = Sources { default: "a".into(), tool_use: Some("b".into()) };
        let mut kept = Map::from_iter([("chat_template".to_owned(), json!("own"))]);
        template(&mut kept, &sources);
        assert_eq!(kept["chat_template"], "own");
        let mut added = Map::from_iter([("chat_template".to_owned(), Value::Null)]);
        template(&mut added, &sources);
        assert_eq!(added["chat_template"][1], json!({"name": "tool_use", "template": "b"}));
    }
}
