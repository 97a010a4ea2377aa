//! Training a byte-level BPE tokenizer and writing it as Hugging Face files.
//!
//! Invariant: the same texts (in any order) and options give the same bytes, in any process; every
//! byte has a token, so no text is unknown; a digit is always a token of its own.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    PreTokenizerWrapper,
};

use super::{TokenizerError, bpe};

/// How Qwen2 splits text before merging: letters with one leading sign or space, single digits,
/// runs of signs, white space.
pub const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A split that never joins letters with what stands before them, so that a word has the same
/// tokens after a space, a quote or an underscore. Copying is easier to learn; prose gets longer.
pub const WORD_SPLIT: &str = r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A token that is never split or merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecialToken {
    /// Its text.
    pub content: String,
    /// Left out of decoded text on request. False for `<tool_call>`, which readers of a completion
    /// need.
    pub hidden: bool,
}

/// What to train.
#[derive(Clone, Debug)]
pub struct BpeOptions {
    /// Number of tokens, special ones and the 256 bytes included.
    pub vocab_size: usize,
    /// The special tokens; their ids are 0, 1, ... in this order.
    pub special_tokens: Vec<SpecialToken>,
    /// Regular expression whose matches are merged apart from each other: [`QWEN2_SPLIT`] or
    /// [`WORD_SPLIT`].
    pub split: String,
    /// A pair must occur so often to become a token.
    pub min_count: u64,
}

/// The special tokens of the bundled policy, in id order.
pub fn bundled_special_tokens() -> Vec<SpecialToken> {
    [
        ("<|endoftext|>", true),
        ("<|im_start|>", true),
        ("<|im_end|>", true),
        ("<tool_call>", false),
        ("</tool_call>", false),
    ]
    .into_iter()
    .map(|(content, hidden)| SpecialToken { content: content.into(), hidden })
    .collect()
}

impl BpeOptions {
    /// Options of the bundled policy at a vocabulary size.
    pub fn bundled(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            special_tokens: bundled_special_tokens(),
            split: QWEN2_SPLIT.into(),
            min_count: 2,
        }
    }
}

/// Learns a vocabulary and returns the bytes of its `tokenizer.json`. The vocabulary is smaller
/// than asked for when the texts have no more pairs to merge.
pub fn train_bpe<I>(texts: I, options: &BpeOptions) -> Result<Vec<u8>, TokenizerError>
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    let failed = |e: &dyn std::fmt::Display| TokenizerError::Train(e.to_string());
    let mut tokens: Vec<String> =
        options.special_tokens.iter().map(|token| token.content.clone()).collect();
    if tokens.iter().any(String::is_empty) {
        return Err(TokenizerError::Train("a special token is the empty string".into()));
    }
    // The alphabet is a hash set: sort it.
    let alphabet = BTreeMap::from_iter(ByteLevel::alphabet().into_iter().map(|c| (c, ())));
    tokens.extend(alphabet.keys().map(char::to_string));
    if options.vocab_size < tokens.len() {
        return Err(TokenizerError::Train(format!(
            "expected a vocab_size of at least {} (special tokens and bytes), found {}",
            tokens.len(),
            options.vocab_size
        )));
    }

    let shape = pre_tokenizer(&options.split);
    let splitter: PreTokenizerWrapper = serde_json::from_value(shape).map_err(|e| failed(&e))?;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for text in texts {
        for piece in without_special(text.as_ref(), &options.special_tokens) {
            let mut normalized = NormalizedString::from(piece);
            NFC.normalize(&mut normalized).map_err(|e| failed(&e))?;
            let mut split = PreTokenizedString::from(normalized);
            splitter.pre_tokenize(&mut split).map_err(|e| failed(&e))?;
            for (word, _, _) in split.get_splits(OffsetReferential::Original, OffsetType::None) {
                match counts.get_mut(word) {
                    Some(count) => *count += 1,
                    None => drop(counts.insert(word.into(), 1)),
                }
            }
        }
    }
    let merges = bpe::learn(&counts, tokens, options.vocab_size, options.min_count);
    let file = tokenizer_json(&merges, options);
    serde_json::to_vec_pretty(&file).map_err(|e| failed(&e))
}

/// A `tokenizer_config.json` for a tokenizer of [`train_bpe`] that `transformers` loads.
pub fn tokenizer_config(template: &str, eos: &str, pad: &str, context: usize) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": false,
        "bos_token": null,
        "eos_token": eos,
        "pad_token": pad,
        "unk_token": null,
        "chat_template": template,
    })
}

/// The stretches of text between special tokens, found leftmost and longest as when encoding.
fn without_special<'t>(text: &'t str, special: &[SpecialToken]) -> Vec<&'t str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    loop {
        let next = special
            .iter()
            .filter_map(|token| Some((rest.find(&token.content)?, token.content.len())))
            .min_by_key(|(at, length)| (*at, std::cmp::Reverse(*length)));
        let (piece, after) = match next {
            Some((at, length)) => (&rest[..at], Some(&rest[at + length..])),
            None => (rest, None),
        };
        if !piece.is_empty() {
            pieces.push(piece);
        }
        match after {
            Some(after) => rest = after,
            None => return pieces,
        }
    }
}

fn pre_tokenizer(split: &str) -> Value {
    json!({
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": false},
            byte_level(),
        ],
    })
}

fn byte_level() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false})
}

fn tokenizer_json(merges: &bpe::Merges, options: &BpeOptions) -> Value {
    let added = options.special_tokens.iter().enumerate().map(|(id, token)| {
        json!({
            "id": id, "content": token.content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": token.hidden,
        })
    });
    let vocab: Map<String, Value> =
        merges.tokens.iter().enumerate().map(|(id, t)| (t.clone(), id.into())).collect();
    let token = |id: u32| merges.tokens[id as usize].as_str();
    let pairs = merges.pairs.iter().map(|(left, right)| json!([token(*left), token(*right)]));
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": pre_tokenizer(&options.split),
        "post_processor": byte_level(),
        "decoder": byte_level(),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocab, "merges": pairs.collect::<Vec<_>>(),
        },
    })
}
