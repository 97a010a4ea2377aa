//! A policy: a model with the tokenizer and chat template it was trained with.
//!
//! Invariant: the three come from one Hugging Face directory or GGUF file (or from the base of an adapter) and fit each
//! other; a saved policy is such a directory.

use crate::config::{ConfigError, Dtype, TensorSpec};
use crate::files::{
    AdapterBase, AdapterFiles, FilesError, StagedDir, copy_companions, write_adapter, write_model,
};
use crate::model::{Model, Params};
use crate::source::Source;
use crate::template::{ChatTemplate, TemplateError};
use crate::tokenizer::{SpecialTokens, Tokenizer, TokenizerError};
use candle_core::{DType, Device};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// A policy as loaded from a directory or file.
pub struct Policy {
    /// The network.
    pub model: Model,
    /// Text to token ids and back.
    pub tokenizer: Tokenizer,
    /// Conversations to text.
    pub template: ChatTemplate,
    /// The directory or GGUF file with tokenizer and template, to be copied beside a checkpoint.
    pub directory: PathBuf,
}

/// Why a policy cannot be loaded, saved or asked.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// `config.json`.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Weight files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Tokenizer files.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Chat template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The computation itself.
    #[error("the model's computation failed: {0}")]
    Compute(#[from] candle_core::Error),
}

impl Policy {
    /// Loads a Hugging Face directory, a GGUF file, or a PEFT adapter with its base; weights become `dtype` on `device`.
    ///
    /// # Errors
    /// Names the file and what is wrong with it; nothing is guessed.
    pub fn load(path: &Path, dtype: DType, device: &Device) -> Result<Self, PolicyError> {
        Self::from_source(&Source::open(path)?, path, dtype, device)
    }

    /// As [`Policy::load`], from what was opened at `path`.
    ///
    /// # Errors
    /// As [`Policy::load`].
    pub fn from_source(
        source: &Source,
        path: &Path,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, PolicyError> {
        let config = source.config()?;
        let tokenizer = source.tokenizer()?;
        tokenizer.check(&config)?;
        let template = source.template()?;
        let params = Params::from_vecs(&config, source.weights(&config)?, dtype, device)?;
        let mut model = Model::new(config, params)?;
        if let Some(adapter) = source.adapter() {
            model = adapted(model, adapter)?;
        }
        let directory = source.companions(path).into();
        Ok(Self { model, tokenizer, template, directory })
    }

    /// The policy with an adapter, instead of one that it may have. Its weights are shared, and are not compared with the
    /// adapter's base.
    ///
    /// # Errors
    /// The adapter is none of this model.
    pub fn with_adapter(self, adapter: &AdapterFiles) -> Result<Self, PolicyError> {
        Ok(Self { model: adapted(self.model, adapter)?, ..self })
    }

    /// Token ids of a conversation up to where the assistant begins to write.
    pub fn prompt_tokens(
        &self,
        messages: &[Value],
        tools: &[Value],
    ) -> Result<Vec<u32>, PolicyError> {
        let tools = (!tools.is_empty()).then_some(tools);
        let text = self.template.render(messages, tools, true, &Map::new())?;
        Ok(self.tokenizer.encode(&text)?)
    }

    /// Tokens that end a completion: those of the configuration, and the tokenizer's `<|im_end|>`.
    pub fn stop_tokens(&self) -> Vec<u32> {
        let mut stops = self.model.config().eos_token_ids.clone();
        stops.extend(self.tokenizer.token_id("<|im_end|>"));
        stops.sort_unstable();
        stops.dedup();
        stops
    }

    /// A completion's text, without the stop token that may end it.
    pub fn completion_text(&self, tokens: &[u32]) -> Result<String, PolicyError> {
        let tokens = match tokens.split_last() {
            Some((last, rest)) if self.stop_tokens().contains(last) => rest,
            _ => tokens,
        };
        Ok(self.tokenizer.decode(tokens, SpecialTokens::Keep)?)
    }

    /// Writes a directory that loads here and in `transformers`, in one step.
    pub fn save(&self, target: &Path, dtype: Dtype) -> Result<(), PolicyError> {
        let staged = StagedDir::create(target)?;
        self.save_into(&staged, dtype)?;
        Ok(staged.commit()?)
    }

    /// Writes the same files into a directory in the making. An adapter is merged into the weights.
    pub fn save_into(&self, staged: &StagedDir, dtype: Dtype) -> Result<(), PolicyError> {
        copy_companions(staged, &self.directory)?;
        let merged = self.model.merged()?;
        let params = merged.params();
        let values = |spec: &TensorSpec| -> candle_core::Result<Vec<f32>> {
            let at = params.specs().iter().position(|s| s.name == spec.name).unwrap_or_default();
            let tensor = params.tensors()[at].to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
            tensor.flatten_all()?.to_vec1()
        };
        // One tensor at a time: another copy of all weights is not made.
        let mut fault = None;
        let written = write_model(staged, self.model.config(), dtype, |spec| {
            Cow::Owned(values(spec).unwrap_or_else(|error| {
                fault.get_or_insert(error);
                Vec::new()
            }))
        });
        match fault {
            Some(fault) => Err(fault.into()),
            None => Ok(written?),
        }
    }

    /// Writes the adapter alone into a directory in the making, as PEFT stores it.
    ///
    /// # Errors
    /// The policy has none, or the disk.
    pub fn save_adapter_into(
        &self,
        staged: &StagedDir,
        base: &AdapterBase,
    ) -> Result<(), PolicyError> {
        let Some(lora) = self.model.lora() else {
            return Err(candle_core::Error::msg("the policy has no adapter to be saved").into());
        };
        let params = self.model.trained().to(DType::F32, &Device::Cpu)?;
        write_adapter(staged, lora, base, &params)
    }
}

fn adapted(model: Model, adapter: &AdapterFiles) -> Result<Model, PolicyError> {
    let (dtype, device) = model.kind();
    let params = adapter.params(model.config(), dtype, &device)?;
    Ok(model.with_lora(adapter.lora(), params)?)
}
