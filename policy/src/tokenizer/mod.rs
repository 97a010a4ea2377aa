//! Text to token ids and back, over a Hugging Face `tokenizer.json`.
//!
//! Invariant: ids depend on the text alone. Nothing is added at the ends (the chat template writes
//! every special token itself), nothing is cut or padded whatever the file asks for, and special
//! tokens written in the text are read as such.

mod bpe;
mod train;

use std::path::{Path, PathBuf};

use crate::config::ModelConfig;

pub use self::train::{
    BpeOptions, QWEN2_SPLIT, SpecialToken, WORD_SPLIT, bundled_special_tokens, tokenizer_config,
    train_bpe,
};

/// File name of the tokenizer in a Hugging Face directory.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// A loaded tokenizer. Cheap to share behind an `Arc`; all methods take `&self`.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    ids: u32,
}

/// What to do with special tokens (`<|im_end|>`, not `<tool_call>`) when decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialTokens {
    /// Write them as text.
    Keep,
    /// Leave them out.
    Skip,
}

/// Why a tokenizer, or a text, is refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; expected the tokenizer.json of a Hugging Face model", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not a tokenizer.
    #[error("{} is not a tokenizer.json: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        message: String,
    },
    /// The tokenizer has tokens that the model has no embedding for.
    #[error(
        "{} has token ids up to {highest} but the model's config.json has vocab_size {vocab_size}: \
         use the tokenizer that belongs to the model", path.display()
    )]
    TooManyTokens {
        /// The file.
        path: PathBuf,
        /// Highest id of the tokenizer.
        highest: u32,
        /// Embedding rows of the model.
        vocab_size: usize,
    },
    /// The model's configuration names an id that the tokenizer lacks.
    #[error(
        "{} has no token with the id {id} that the model's config.json gives as {key} (its ids end \
         at {highest}): use the tokenizer that belongs to the model", path.display()
    )]
    MissingId {
        /// The file.
        path: PathBuf,
        /// Key of the configuration.
        key: &'static str,
        /// The id.
        id: u32,
        /// Highest id of the tokenizer.
        highest: u32,
    },
    /// A token that the caller relies on is missing.
    #[error("{} has no token `{token}`, which is needed for {purpose}", path.display())]
    MissingToken {
        /// The file.
        path: PathBuf,
        /// The token.
        token: String,
        /// What it is needed for.
        purpose: String,
    },
    /// A text could not be encoded, or ids not decoded.
    #[error("{} failed on a text: {message}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What the library said.
        message: String,
    },
    /// A vocabulary cannot be trained with these options.
    #[error("cannot train a tokenizer: {0}")]
    Train(String),
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a model directory.
    pub fn from_dir(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join(TOKENIZER_FILE);
        let bytes = std::fs::read(&path)
            .map_err(|source| TokenizerError::Read { path: path.clone(), source })?;
        Self::from_bytes(&bytes, &path)
    }

    /// Reads the content of a `tokenizer.json`; `path` names it in errors.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, TokenizerError> {
        let format = |message: String| TokenizerError::Format { path: path.into(), message };
        let mut inner =
            tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| format(e.to_string()))?;
        inner.with_truncation(None).map_err(|e| format(e.to_string()))?.with_padding(None);
        let highest = inner.get_vocab(true).into_values().max();
        let ids = highest.ok_or_else(|| format("its vocabulary is empty".into()))? + 1;
        Ok(Self { inner, path: path.into(), ids })
    }

    /// Token ids of a text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.encode_fast(text, false).map_err(|e| self.text_error(&e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of token ids. Bytes that are no whole character become U+FFFD; ids without a token
    /// (padding rows of the embedding) become nothing.
    pub fn decode(&self, ids: &[u32], special: SpecialTokens) -> Result<String, TokenizerError> {
        self.inner.decode(ids, special == SpecialTokens::Skip).map_err(|e| self.text_error(&e))
    }

    /// The id of a token, by its text.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The id of a token that must exist; `purpose` completes the sentence "is needed for".
    pub fn require(&self, token: &str, purpose: &str) -> Result<u32, TokenizerError> {
        self.token_id(token).ok_or_else(|| TokenizerError::MissingToken {
            path: self.path.clone(),
            token: token.into(),
            purpose: purpose.into(),
        })
    }

    /// The text of one token as the vocabulary spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// One more than the highest id.
    pub fn id_count(&self) -> usize {
        self.ids as usize
    }

    /// Checks that tokenizer and model belong together: every id has an embedding row, and every
    /// special id of the configuration has a token.
    pub fn check(&self, config: &ModelConfig) -> Result<(), TokenizerError> {
        let highest = self.ids - 1;
        if self.id_count() > config.vocab_size {
            return Err(TokenizerError::TooManyTokens {
                path: self.path.clone(),
                highest,
                vocab_size: config.vocab_size,
            });
        }
        let eos = config.eos_token_ids.iter().map(|id| ("eos_token_id", *id));
        let bos = config.bos_token_id.map(|id| ("bos_token_id", id));
        let pad = config.pad_token_id.map(|id| ("pad_token_id", id));
        for (key, id) in eos.chain(bos).chain(pad) {
            if self.token(id).is_none() {
                let path = self.path.clone();
                return Err(TokenizerError::MissingId { path, key, id, highest });
            }
        }
        Ok(())
    }

    fn text_error(&self, error: &tokenizers::Error) -> TokenizerError {
        TokenizerError::Text { path: self.path.clone(), message: error.to_string() }
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("path", &self.path).field("ids", &self.ids).finish()
    }
}
