//! A GGUF file's vocabulary as a Hugging Face `tokenizer.json`.
//!
//! Invariant: the text is split as the model's own tokenizer does. How is known for the named kinds of
//! splitting alone (`tokenizer.ggml.pre`); another kind would give other tokens and is refused.

use serde_json::{Map, Value, json};

use super::Gguf;
use crate::files::FilesError;
use crate::tokenizer::QWEN2_SPLIT;

/// As [`QWEN2_SPLIT`], but digits in groups of up to three.
const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What llama.cpp calls the kinds of tokens that are matched whole.
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
/// A row of the embedding without a token.
const UNUSED: u64 = 5;

/// Control tokens that end a text or a turn, as llama.cpp knows them by name.
const ENDS: [&str; 6] =
    ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>"];

/// How a kind of tokenizer prepares text.
struct Splitting {
    normalizer: Value,
    pre_tokenizer: Value,
    /// A word that is a token is one, whatever its merges say.
    ignore_merges: bool,
}

impl Gguf {
    /// The content of `tokenizer.json`.
    pub(super) fn tokenizer_json(&self) -> Result<Value, FilesError> {
        let model = self.text("tokenizer.ggml.model")?.unwrap_or("no such key");
        if model != "gpt2" {
            return Err(self.format(
                "`tokenizer.ggml.model` to be gpt2 (byte-level BPE)",
                format!("{model}; octet does not have it: use the model's Hugging Face directory"),
            ));
        }
        let splitting = self.splitting()?;
        let tokens = self.texts("tokenizer.ggml.tokens")?;
        let kinds = self.token_kinds(tokens.len())?;
        let mut vocab = Map::new();
        let mut added = Vec::new();
        for (id, (token, kind)) in tokens.iter().zip(&kinds).enumerate() {
            if *kind == UNUSED {
                continue;
            }
            vocab.insert((*token).to_owned(), id.into());
            if matches!(*kind, CONTROL | USER_DEFINED) {
                added.push(json!({
                    "id": id, "content": token, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": *kind == CONTROL,
                }));
            }
        }
        let merges = self.texts("tokenizer.ggml.merges")?;
        let merges = merges.iter().map(|merge| match merge.split_once(' ') {
            Some((left, right)) => Ok(json!([left, right])),
            None => Err(self.format("two tokens and a space in each merge", format!("{merge:?}"))),
        });
        Ok(json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": splitting.normalizer,
            "pre_tokenizer": splitting.pre_tokenizer,
            "post_processor": self.post_processor(&tokens)?,
            "decoder": byte_level(true),
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null,
                "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "fuse_unk": false, "byte_fallback": false,
                "ignore_merges": splitting.ignore_merges,
                "vocab": vocab,
                "merges": merges.collect::<Result<Vec<_>, _>>()?,
            },
        }))
    }

    /// Ids of the tokens that end a completion, ascending.
    pub(super) fn ends(&self) -> Result<Vec<u32>, FilesError> {
        let mut ends = Vec::new();
        for key in ["eos_token_id", "eot_token_id", "eom_token_id"] {
            ends.extend(self.number(&format!("tokenizer.ggml.{key}"))?);
        }
        let tokens = self.texts("tokenizer.ggml.tokens")?;
        let kinds = self.token_kinds(tokens.len())?;
        let named = tokens.iter().zip(&kinds).enumerate();
        let named = named.filter(|(_, (token, kind))| **kind == CONTROL && ENDS.contains(*token));
        ends.extend(named.map(|(id, _)| id as u64));
        ends.sort_unstable();
        ends.dedup();
        let id = |id: u64| match u32::try_from(id) {
            Ok(id) if (id as usize) < tokens.len() => Ok(id),
            _ => Err(self.format(
                format!("end tokens below the vocabulary's {} tokens", tokens.len()),
                id.to_string(),
            )),
        };
        ends.into_iter().map(id).collect()
    }

    /// The kind of each token; all are ordinary where the file does not say.
    fn token_kinds(&self, tokens: usize) -> Result<Vec<u64>, FilesError> {
        let key = "tokenizer.ggml.token_type";
        let Some(kinds) = self.array(key)? else { return Ok(vec![1; tokens]) };
        if kinds.len() != tokens {
            return Err(self.format(
                format!("one entry of `{key}` for each of {tokens} tokens"),
                kinds.len().to_string(),
            ));
        }
        let kind = |value: &candle_core::quantized::gguf_file::Value| match value.to_i32() {
            Ok(kind) => kind.unsigned_abs().into(),
            Err(_) => value.to_u64().unwrap_or_default(),
        };
        Ok(kinds.iter().map(kind).collect())
    }

    fn splitting(&self) -> Result<Splitting, FilesError> {
        let split = |pattern: &str| {
            let split = json!({
                "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
                "invert": false,
            });
            json!({"type": "Sequence", "pretokenizers": [split, byte_level(false)]})
        };
        let key = "tokenizer.ggml.pre";
        match self.text(key)?.unwrap_or("no such key") {
            "qwen2" | "deepseek-r1-qwen" => Ok(Splitting {
                normalizer: json!({"type": "NFC"}),
                pre_tokenizer: split(QWEN2_SPLIT),
                ignore_merges: false,
            }),
            "llama-bpe" | "llama3" | "llama-v3" => Ok(Splitting {
                normalizer: Value::Null,
                pre_tokenizer: split(LLAMA3_SPLIT),
                ignore_merges: true,
            }),
            "smollm" => Ok(Splitting {
                normalizer: Value::Null,
                pre_tokenizer: json!({"type": "Sequence", "pretokenizers": [
                    {"type": "Digits", "individual_digits": true},
                    byte_level(true),
                ]}),
                ignore_merges: false,
            }),
            "gpt-2" => Ok(Splitting {
                normalizer: Value::Null,
                pre_tokenizer: byte_level(true),
                ignore_merges: false,
            }),
            other => Err(self.format(
                format!("`{key}` to be qwen2, llama-bpe, smollm or gpt-2"),
                format!("{other}; octet does not know how it splits text: use the model's Hugging Face directory"),
            )),
        }
    }

    /// What `transformers` adds around a text that is not a chat; nothing here reads it.
    fn post_processor(&self, tokens: &[&str]) -> Result<Value, FilesError> {
        let first = self.number("tokenizer.ggml.bos_token_id")?;
        let wanted = self.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(false);
        let token = first.and_then(|id| Some((id, *tokens.get(usize::try_from(id).ok()?)?)));
        let Some((id, token)) = token.filter(|_| wanted) else { return Ok(byte_level(true)) };
        let special = json!({"SpecialToken": {"id": token, "type_id": 0}});
        let sequence = |id: &str, kind: u32| json!({"Sequence": {"id": id, "type_id": kind}});
        let begin = json!({
            "type": "TemplateProcessing",
            "single": [special, sequence("A", 0)],
            "pair": [special, sequence("A", 0), sequence("B", 1)],
            "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
        });
        Ok(json!({"type": "Sequence", "processors": [byte_level(true), begin]}))
    }
}

/// Bytes as the vocabulary spells them; `split` also splits as GPT-2 did.
fn byte_level(split: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": split})
}
