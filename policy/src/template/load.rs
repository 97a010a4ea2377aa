//! Finding the chat template of a Hugging Face directory.
//!
//! Invariant: the order is that of `transformers`: `chat_template.jinja` (with
//! `additional_chat_templates/`), then `chat_template.json`, then `tokenizer_config.json`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Sources, TemplateError};

const JINJA: &str = "chat_template.jinja";
const JINJA_TOOL_USE: &str = "additional_chat_templates/tool_use.jinja";
const JSON: &str = "chat_template.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A template, where it was found, and the special tokens of the tokenizer's configuration.
pub(super) struct Found {
    pub(super) sources: Sources,
    pub(super) path: PathBuf,
    pub(super) tokens: Map<String, Value>,
}

pub(super) fn from_dir(dir: &Path) -> Result<Found, TemplateError> {
    let tokenizer_config = dir.join(TOKENIZER_CONFIG);
    let config = optional_object(&tokenizer_config)?.unwrap_or_default();
    let tokens = special_tokens(&config);
    let jinja = dir.join(JINJA);
    if let Some(default) = optional_text(&jinja)? {
        let tool_use = optional_text(&dir.join(JINJA_TOOL_USE))?;
        return Ok(Found { sources: Sources { default, tool_use }, path: jinja, tokens });
    }
    let json = dir.join(JSON);
    if let Some(file) = optional_object(&json)? {
        let sources = from_key(&file, &json)?.ok_or_else(|| TemplateError::Format {
            path: json.clone(),
            expected: "the key `chat_template`".into(),
            found: "no such key".into(),
        })?;
        return Ok(Found { sources, path: json, tokens });
    }
    match from_key(&config, &tokenizer_config)? {
        Some(sources) => Ok(Found { sources, path: tokenizer_config, tokens }),
        None => Err(TemplateError::Missing { dir: dir.into() }),
    }
}

/// The key `chat_template`: one text, or a list of `{"name", "template"}`.
fn from_key(file: &Map<String, Value>, path: &Path) -> Result<Option<Sources>, TemplateError> {
    let error = |found: &Value| TemplateError::Format {
        path: path.into(),
        expected:
            "`chat_template` as a text, or a list of {\"name\", \"template\"} with one named \
                   \"default\" or \"tool_use\""
                .into(),
        found: found.to_string().chars().take(80).collect(),
    };
    let named = match file.get("chat_template") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => {
            return Ok(Some(Sources { default: text.clone(), tool_use: None }));
        }
        Some(value) => value,
    };
    let list = named.as_array().ok_or_else(|| error(named))?;
    let find = |name: &str| {
        list.iter()
            .find(|entry| entry["name"] == name)
            .and_then(|entry| Some(entry["template"].as_str()?.to_owned()))
    };
    let tool_use = find("tool_use");
    let default = find("default").or_else(|| tool_use.clone()).ok_or_else(|| error(named))?;
    Ok(Some(Sources { default, tool_use }))
}

/// Texts of the special tokens, which templates use as variables.
fn special_tokens(config: &Map<String, Value>) -> Map<String, Value> {
    let mut tokens = Map::new();
    for key in TOKENS {
        let text = match config.get(key) {
            Some(Value::String(text)) => text,
            Some(Value::Object(token)) => match token.get("content") {
                Some(Value::String(text)) => text,
                _ => continue,
            },
            _ => continue,
        };
        tokens.insert(key.into(), text.as_str().into());
    }
    tokens
}

fn optional_text(path: &Path) -> Result<Option<String>, TemplateError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TemplateError::Read { path: path.into(), source }),
    }
}

fn optional_object(path: &Path) -> Result<Option<Map<String, Value>>, TemplateError> {
    let Some(text) = optional_text(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| TemplateError::Format {
        path: path.into(),
        expected: "a JSON object".into(),
        found: error.to_string(),
    })
}
