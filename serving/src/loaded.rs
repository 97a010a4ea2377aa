//! A policy that is served: its weights, packed for sampling, with the tokenizer and template that belong to them.
//!
//! Invariant: it never changes. A request takes one when it begins and keeps it to its end, so none mixes two
//! versions.

use crate::error::Refusal;
use crate::forced::{Guidance, forced};
use crate::request::{ChatRequest, ToolChoice};
use candle_core::{DType, Device};
use octet_policy::model::Model;
use octet_policy::policy::{Policy, PolicyError};
use octet_policy::template::ChatTemplate;
use octet_policy::tokenizer::{SpecialTokens, Tokenizer};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Why a policy is not served.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be loaded.
    #[error("loading {}: {source}", directory.display())]
    Policy {
        /// Its directory.
        directory: PathBuf,
        /// Why.
        source: Box<PolicyError>,
    },
    /// The weights are not those that were committed.
    #[error(
        "{} holds other weights than were committed: expected digest {expected}, found {found}; the directory is \
         damaged", directory.display()
    )]
    Digest {
        /// Its directory.
        directory: PathBuf,
        /// What the commit says.
        expected: String,
        /// What was loaded.
        found: String,
    },
}

/// A policy that is served.
pub struct Loaded {
    model: Arc<Model>,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    stops: Vec<u32>,
    digest: String,
    directory: PathBuf,
    /// Each token's text; made when first asked for.
    texts: OnceLock<Arc<Vec<String>>>,
}

/// What a request is sampled from.
#[derive(Debug)]
pub(crate) struct Prompt {
    /// Token ids, the forced beginning of the answer included.
    pub tokens: Vec<u32>,
    /// The beginning of the answer that is written for the model.
    pub forced: String,
    /// What it may write next, where that is restricted.
    pub guidance: Option<Guidance>,
}

impl Loaded {
    /// Loads a Hugging Face directory. `expected` is the digest that its weights must have, hex.
    ///
    /// # Errors
    /// What is wrong with the directory.
    pub fn open(
        directory: &Path,
        dtype: DType,
        device: &Device,
        expected: Option<&str>,
    ) -> Result<Self, LoadError> {
        let failed =
            |source| LoadError::Policy { directory: directory.into(), source: Box::new(source) };
        let policy = Policy::load(directory, dtype, device).map_err(failed)?;
        let stops = policy.stop_tokens();
        let Policy { mut model, tokenizer, template, directory } = policy;
        let compute = |error| failed(PolicyError::Compute(error));
        let found = model.trained().digest().map_err(compute)?.to_hex().to_string();
        if let Some(expected) = expected.filter(|expected| **expected != *found) {
            let expected = expected.to_owned();
            return Err(LoadError::Digest { directory, expected, found });
        }
        model.freeze().map_err(compute)?;
        let (model, digest) = (Arc::new(model), found);
        Ok(Self { model, tokenizer, template, stops, digest, directory, texts: OnceLock::new() })
    }

    /// BLAKE3 of the weights, hex.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What `system_fingerprint` says: the digest's beginning.
    pub fn fingerprint(&self) -> String {
        format!("octet-{}", &self.digest[..16])
    }

    /// Where it was loaded from.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Tokens of prompt and completion together, at most.
    pub fn context(&self) -> usize {
        self.model.config().max_position_embeddings
    }

    pub(crate) fn model(&self) -> &Arc<Model> {
        &self.model
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Tokens that end a completion.
    pub(crate) fn stops(&self) -> &[u32] {
        &self.stops
    }

    /// Each token's text, by id.
    pub(crate) fn texts(&self) -> Arc<Vec<String>> {
        let made = self.texts.get_or_init(|| {
            let text = |id| self.tokenizer.decode(&[id], SpecialTokens::Keep).unwrap_or_default();
            Arc::new((0..self.tokenizer.id_count() as u32).map(text).collect())
        });
        Arc::clone(made)
    }

    /// The conversation as the model reads it.
    pub(crate) fn render(
        &self,
        messages: &[Value],
        tools: &[Value],
        answer: bool,
    ) -> Result<String, Refusal> {
        let tools = (!tools.is_empty()).then_some(tools);
        let text = self.template.render(messages, tools, answer, &Map::new());
        text.map_err(|error| Refusal::Template(error.to_string()))
    }

    /// The prompt of a request.
    ///
    /// # Errors
    /// The template refuses the conversation, or the prompt leaves no room for a token.
    pub(crate) fn prompt(&self, request: &ChatRequest) -> Result<Prompt, Refusal> {
        let shown: &[Value] = if request.choice == ToolChoice::None { &[] } else { &request.tools };
        let mut text = self.render(&request.messages, shown, true)?;
        let (forced, guidance) = forced(self, request, &text);
        text.push_str(&forced);
        let tokens =
            self.tokenizer.encode(&text).map_err(|error| Refusal::Failed(error.to_string()))?;
        let context = self.context();
        if tokens.len() >= context {
            let (found, most) = (tokens.len(), context.saturating_sub(1));
            return Err(Refusal::PromptTooLong { found, most, context });
        }
        if tokens.is_empty() {
            return Err(Refusal::Template("it writes nothing for it".into()));
        }
        Ok(Prompt { tokens, forced, guidance })
    }
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("directory", &self.directory)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The bundled policy, loaded once.
    pub(crate) fn bundled() -> Arc<Loaded> {
        static BUNDLED: OnceLock<Arc<Loaded>> = OnceLock::new();
        let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/policy"));
        let open = || Loaded::open(directory, DType::F32, &Device::Cpu, None).unwrap();
        Arc::clone(BUNDLED.get_or_init(|| Arc::new(open())))
    }

    #[test]
    fn weights_that_are_not_the_committed_ones_are_refused() {
        let loaded = bundled();
        let again = |digest: &str| {
            Loaded::open(loaded.directory(), DType::F32, &Device::Cpu, Some(digest)).map(drop)
        };
        again(loaded.digest()).unwrap();
        let error = again("0123").unwrap_err().to_string();
        assert!(
            error.contains("expected digest 0123") && error.contains(loaded.digest()),
            "{error}"
        );
    }
}
