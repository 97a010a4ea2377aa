//! Training, loading and checking tokenizers.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use octet_policy::config::ModelConfig;
use octet_policy::tokenizer::{
    BpeOptions, QWEN2_SPLIT, SpecialToken, SpecialTokens, Tokenizer, WORD_SPLIT,
    bundled_special_tokens, train_bpe,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Texts with many equally frequent pairs, so that ties decide, and merges that spell a token
/// twice ("abc" as ab+c and a+bc).
fn texts() -> Vec<String> {
    let mut texts = Vec::new();
    for i in 0..300u64 {
        let word: String = (0..6)
            .map(|k| char::from(b'a' + ((i * 7919 + k * k * 31 + (i >> k)) % 26) as u8))
            .collect();
        texts.push(format!(
            "<|im_start|>user\n{word}_get {{\"{word}\": {i}, \"x\": \"abc\"}} bcab cabc\n"
        ));
        texts.push(format!(
            "<tool_call>{{\"name\": \"{word}_get\", \"arguments\": {{}}}}</tool_call>"
        ));
    }
    texts
}

fn tokenizer(split: &str) -> Tokenizer {
    let options = BpeOptions { split: split.into(), ..BpeOptions::bundled(600) };
    Tokenizer::from_bytes(&train_bpe(texts(), &options).unwrap(), Path::new("trained")).unwrap()
}

#[test]
fn training_is_a_function_of_the_texts() {
    let options = BpeOptions::bundled(700);
    let first = train_bpe(texts(), &options).unwrap();
    for _ in 0..3 {
        assert_eq!(train_bpe(texts(), &options).unwrap(), first);
    }
    let mut reversed = texts();
    reversed.reverse();
    assert_eq!(train_bpe(reversed, &options).unwrap(), first, "the order of texts must not matter");
    // The digest of another process's training: hash seeds differ, the bytes may not.
    let digest = first
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    assert_eq!(digest, 11_001_751_317_988_523_057, "the trained tokenizer changed");
}

#[test]
fn special_tokens_come_first_and_are_parsed_in_text() {
    let tokenizer = tokenizer(QWEN2_SPLIT);
    for (id, token) in (0..).zip(bundled_special_tokens()) {
        assert_eq!(tokenizer.token_id(&token.content), Some(id));
        assert_eq!(tokenizer.encode(&token.content).unwrap(), [id]);
    }
    assert_eq!(tokenizer.id_count(), 600);
    let ids = tokenizer.encode("<|im_start|>a<tool_call>b</tool_call><|im_end|>").unwrap();
    let all = tokenizer.decode(&ids, SpecialTokens::Keep).unwrap();
    assert_eq!(all, "<|im_start|>a<tool_call>b</tool_call><|im_end|>");
    let visible = tokenizer.decode(&ids, SpecialTokens::Skip).unwrap();
    assert_eq!(visible, "a<tool_call>b</tool_call>");
}

#[test]
fn digits_stay_apart() {
    let tokenizer = tokenizer(QWEN2_SPLIT);
    let ids = tokenizer.encode("2024 117").unwrap();
    let pieces: Vec<_> = ids.iter().map(|id| tokenizer.token(*id).unwrap()).collect();
    assert_eq!(pieces, ["2", "0", "2", "4", "Ġ", "1", "1", "7"]);
}

#[test]
fn word_split_spells_a_word_alike_everywhere() {
    let tokenizer = tokenizer(WORD_SPLIT);
    let word = tokenizer.encode("abc").unwrap();
    for text in [" abc", "\"abc\"", "_abc", "(abc)"] {
        let ids = tokenizer.encode(text).unwrap();
        assert!(ids.windows(word.len()).any(|w| w == word), "{text}: {ids:?} lacks {word:?}");
    }
}

#[test]
fn impossible_options_are_refused() {
    let error = train_bpe(texts(), &BpeOptions::bundled(200)).unwrap_err().to_string();
    assert!(error.contains("at least 261") && error.contains("200"), "{error}");
    let split = BpeOptions { split: "(".into(), ..BpeOptions::bundled(300) };
    assert!(train_bpe(texts(), &split).is_err());
    let mut empty = BpeOptions::bundled(300);
    empty.special_tokens.push(SpecialToken { content: String::new(), hidden: true });
    assert!(train_bpe(texts(), &empty).is_err());
}

#[test]
fn a_file_that_is_no_tokenizer_is_named() {
    for bytes in [&b"not json"[..], b"{}", b"\xff\xfe"] {
        let error = Tokenizer::from_bytes(bytes, Path::new("m/tokenizer.json")).unwrap_err();
        assert!(error.to_string().contains("m/tokenizer.json"), "{error}");
    }
    let error = Tokenizer::from_dir(Path::new("/nonexistent")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/tokenizer.json"), "{error}");
}

fn config(vocab: usize, eos: Value) -> ModelConfig {
    let value = json!({
        "model_type": "qwen2", "vocab_size": vocab, "hidden_size": 8, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 64,
        "eos_token_id": eos,
    });
    ModelConfig::from_value(value, Path::new("config.json")).unwrap()
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let tokenizer = tokenizer(QWEN2_SPLIT);
    tokenizer.check(&config(600, json!(2))).unwrap();
    tokenizer.check(&config(640, json!([0, 2]))).unwrap();
    let error = tokenizer.check(&config(599, json!(2))).unwrap_err().to_string();
    assert!(error.contains("599") && error.contains("trained"), "{error}");
    let error = tokenizer.check(&config(1000, json!([2, 999]))).unwrap_err().to_string();
    assert!(error.contains("999") && error.contains("eos_token_id"), "{error}");
    let error = tokenizer.require("<|nope|>", "ending a turn").unwrap_err().to_string();
    assert!(error.contains("<|nope|>") && error.contains("ending a turn"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_text_in_normal_form_comes_back(text in "(\\PC|[ -~\n\r\t]){0,60}") {
        use std::sync::LazyLock;
        static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| tokenizer(QWEN2_SPLIT));
        let once = TOKENIZER.decode(&TOKENIZER.encode(&text).unwrap(), SpecialTokens::Keep).unwrap();
        let twice = TOKENIZER.decode(&TOKENIZER.encode(&once).unwrap(), SpecialTokens::Keep).unwrap();
        prop_assert_eq!(&once, &twice);
        if text.is_ascii() {
            prop_assert_eq!(&once, &text);
        }
    }

    #[test]
    fn arbitrary_ids_decode_to_something(ids in proptest::collection::vec(0u32..2000, 0..40)) {
        let tokenizer = tokenizer(WORD_SPLIT);
        tokenizer.decode(&ids, SpecialTokens::Skip).unwrap();
    }
}
