//! Writing a model as a Hugging Face directory.
//!
//! Invariant: what is written loads here and in `transformers` as the same model, with the element
//! type that its `config.json` names.

use std::borrow::Cow;
use std::path::Path;

use super::{FilesError, StagedDir, StoredTensor, WEIGHTS_FILE, read_error, write_safetensors};
use crate::config::{CONFIG_FILE, Dtype, GENERATION_CONFIG_FILE, ModelConfig, TensorSpec};
use crate::gguf::Gguf;

/// Files that belong to a model beside its configuration and weights.
pub const COMPANION_FILES: [&str; 11] = [
    GENERATION_CONFIG_FILE,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/tool_use.jinja",
];

/// Writes `config.json` and `model.safetensors` into a directory in the making.
pub fn write_model<'d>(
    staged: &StagedDir,
    config: &ModelConfig,
    dtype: Dtype,
    data: impl FnMut(&TensorSpec) -> Cow<'d, [f32]>,
) -> Result<(), FilesError> {
    let text = format!("{:#}\n", config.to_json(dtype));
    staged.write(CONFIG_FILE, text.as_bytes())?;
    let tensors: Vec<_> =
        config.tensor_specs().into_iter().map(|spec| StoredTensor { spec, dtype }).collect();
    let path = staged.path().join(WEIGHTS_FILE);
    write_safetensors(&path, &[("format", "pt")], &tensors, data)
}

/// Copies the companion files that `source` has, a directory or a GGUF file.
pub fn copy_companions(staged: &StagedDir, source: &Path) -> Result<(), FilesError> {
    if source.is_file() {
        let files = Gguf::open(source)?.companions()?;
        return files.iter().try_for_each(|(name, content)| staged.write(name, content));
    }
    for name in COMPANION_FILES {
        let path = source.join(name);
        if path.is_file() {
            staged.write(name, &std::fs::read(&path).map_err(read_error(&path))?)?;
        }
    }
    Ok(())
}

/// Writes a whole model directory in one step: configuration, weights, and the companion files of
/// the directory that the model came from.
pub fn save_model<'d>(
    target: &Path,
    config: &ModelConfig,
    dtype: Dtype,
    companions: &Path,
    data: impl FnMut(&TensorSpec) -> Cow<'d, [f32]>,
) -> Result<(), FilesError> {
    let staged = StagedDir::create(target)?;
    copy_companions(&staged, companions)?;
    write_model(&staged, config, dtype, data)?;
    staged.commit()
}
