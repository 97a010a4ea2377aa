//! The files that a GGUF file stands for, besides configuration and weights: tokenizer, chat template,
//! generation defaults.
//!
//! Invariant: a directory with these files loads as the same tokenizer and template here and in
//! `transformers`.

use serde_json::{Map, Value, json};

use super::Gguf;
use crate::config::GENERATION_CONFIG_FILE;
use crate::files::FilesError;
use crate::policy::PolicyError;
use crate::template::{ChatTemplate, Sources};
use crate::tokenizer::{TOKENIZER_FILE, Tokenizer};

const TEMPLATE: &str = "tokenizer.chat_template";
/// Special tokens, and the keys of their ids.
const TOKENS: [(&str, &str); 4] = [
    ("bos_token", "tokenizer.ggml.bos_token_id"),
    ("eos_token", "tokenizer.ggml.eos_token_id"),
    ("unk_token", "tokenizer.ggml.unknown_token_id"),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
];

impl Gguf {
    /// The tokenizer.
    ///
    /// # Errors
    /// A kind that is not known, or a vocabulary that is none.
    pub fn tokenizer(&self) -> Result<Tokenizer, PolicyError> {
        let json = self.tokenizer_json()?.to_string();
        Ok(Tokenizer::from_bytes(json.as_bytes(), &self.path)?)
    }

    /// The chat template.
    ///
    /// # Errors
    /// There is none, or it is not valid.
    pub fn template(&self) -> Result<ChatTemplate, PolicyError> {
        let sources = self.sources()?.ok_or_else(|| {
            let advice = "no such key; import it with a template of your own: \
                          octet model import FILE DIR --chat-template TEMPLATE.jinja";
            self.format(format!("a chat template under `{TEMPLATE}`"), advice)
        })?;
        Ok(ChatTemplate::from_parts(sources, self.special_tokens()?, &self.path)?)
    }

    /// Names and contents of the files that belong beside `config.json` and the weights.
    ///
    /// # Errors
    /// As [`Gguf::tokenizer`]; a missing chat template is none.
    pub fn companions(&self) -> Result<Vec<(&'static str, Vec<u8>)>, FilesError> {
        let pretty = |value: &Value| format!("{value:#}\n").into_bytes();
        let mut tokens: Map<String, Value> = self.special_tokens()?;
        tokens.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
        tokens.insert("clean_up_tokenization_spaces".into(), false.into());
        let architecture = self.architecture()?.model_type();
        if let Some(context) = self.number(&format!("{architecture}.context_length"))? {
            tokens.insert("model_max_length".into(), context.into());
        }
        let mut files = vec![
            (TOKENIZER_FILE, self.tokenizer_json()?.to_string().into_bytes()),
            ("tokenizer_config.json", pretty(&json!(tokens))),
            (GENERATION_CONFIG_FILE, pretty(&self.generation_json()?)),
        ];
        if let Some(sources) = self.sources()? {
            files.push(("chat_template.jinja", sources.default.into_bytes()));
            if let Some(tool_use) = sources.tool_use {
                files.push(("additional_chat_templates/tool_use.jinja", tool_use.into_bytes()));
            }
        }
        Ok(files)
    }

    fn sources(&self) -> Result<Option<Sources>, FilesError> {
        let tool_use = self.text(&format!("{TEMPLATE}.tool_use"))?.map(str::to_owned);
        let default = self.text(TEMPLATE)?.map(str::to_owned);
        let default = default.or_else(|| tool_use.clone());
        Ok(default.map(|default| Sources { default, tool_use }))
    }

    /// Texts of the special tokens, by the names that templates have for them.
    fn special_tokens(&self) -> Result<Map<String, Value>, FilesError> {
        let tokens = self.texts("tokenizer.ggml.tokens")?;
        let mut texts = Map::new();
        for (name, key) in TOKENS {
            let id = self.number(key)?.and_then(|id| usize::try_from(id).ok());
            if let Some(text) = id.and_then(|id| tokens.get(id)) {
                texts.insert(name.into(), (*text).into());
            }
        }
        Ok(texts)
    }
}
