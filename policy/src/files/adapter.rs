//! Adapters as PEFT stores them: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Invariant: what is written loads in `peft` as the same adapter; what is read is applied whole or refused, since a
//! variant of LoRA that is not computed here would change every output in silence.

use super::{FilesError, StagedDir, StoredTensor, TensorFile, read_error, write_safetensors};
use crate::config::{Dtype, ModelConfig};
use crate::lora::{Lora, Targets};
use crate::model::Params;
use candle_core::{DType, Device};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// File name of an adapter's description.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";
/// File name of an adapter's tensors.
pub const ADAPTER_WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// What PEFT puts before a tensor's name.
const PREFIX: &str = "base_model.model.";
/// Where the header of the tensors' file has the base's digest.
const BASE_DIGEST: &str = "octet_base_blake3";

/// What an adapter belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterBase {
    /// A path, or a name on the hub.
    pub name: String,
    /// The digest of its weights as f32 ([`Params::digest`]), hex; adapters made elsewhere have none.
    pub digest: Option<String>,
}

/// An adapter's directory.
#[derive(Debug)]
pub struct AdapterFiles {
    directory: PathBuf,
    lora: Lora,
    base: AdapterBase,
    tensors: TensorFile,
}

impl AdapterFiles {
    /// Whether a directory holds an adapter and no whole model.
    pub fn is_one(directory: &Path) -> bool {
        directory.join(ADAPTER_CONFIG_FILE).is_file()
            && !directory.join(crate::config::CONFIG_FILE).is_file()
    }

    /// Opens an adapter's directory. Its tensors are compared with a model's configuration by [`AdapterFiles::params`].
    ///
    /// # Errors
    /// A file that is missing, damaged, or describes something else than plain LoRA of a layer's projections.
    pub fn open(directory: &Path) -> Result<Self, FilesError> {
        let path = directory.join(ADAPTER_CONFIG_FILE);
        let text = std::fs::read(&path).map_err(read_error(&path))?;
        let refused = |expected: &str, found: String| FilesError::Format {
            path: path.clone(),
            expected: expected.into(),
            found,
        };
        let config: Map<String, Value> = serde_json::from_slice(&text)
            .map_err(|error| refused("a JSON object", error.to_string()))?;
        plain(&config).map_err(|(expected, found)| refused(expected, found))?;
        let get = |key: &str| config.get(key).unwrap_or(&Value::Null);
        let rank = get("r").as_u64().and_then(|rank| usize::try_from(rank).ok());
        let rank = rank.and_then(NonZeroUsize::new);
        let rank = rank.ok_or_else(|| refused("`r` of at least 1", get("r").to_string()))?;
        let alpha = get("lora_alpha").as_f64().filter(|alpha| *alpha > 0.0);
        let alpha = alpha
            .ok_or_else(|| refused("`lora_alpha` above 0", get("lora_alpha").to_string()))?
            as f32;
        let targets = Targets::deserialize(get("target_modules")).map_err(|error| {
            refused("`target_modules` that are computed here", error.to_string())
        })?;
        let name = get("base_model_name_or_path").as_str().unwrap_or_default().to_owned();
        let tensors = TensorFile::open(&directory.join(ADAPTER_WEIGHTS_FILE))?;
        let base = AdapterBase { name, digest: tensors.metadata().get(BASE_DIGEST).cloned() };
        let lora = Lora { rank, alpha, targets };
        Ok(Self { directory: directory.into(), lora, base, tensors })
    }

    /// Its shape.
    pub fn lora(&self) -> Lora {
        self.lora
    }

    /// What it belongs to.
    pub fn base(&self) -> &AdapterBase {
        &self.base
    }

    /// Where its base is: the path that it names, seen from here or from the adapter's directory.
    ///
    /// # Errors
    /// There is nothing.
    pub fn base_path(&self) -> Result<PathBuf, FilesError> {
        let named = Path::new(&self.base.name);
        let beside = self.directory.join(named);
        let there = |path: &Path| !self.base.name.is_empty() && path.exists();
        match [named, &beside].into_iter().find(|path| there(path)) {
            Some(path) => Ok(path.to_owned()),
            None => Err(FilesError::NoBase {
                dir: self.directory.clone(),
                base: self.base.name.clone(),
            }),
        }
    }

    /// Whether a base is the one that the adapter was trained on, as far as the adapter says which one that was.
    ///
    /// # Errors
    /// It is another one.
    pub fn check_base(&self, path: &Path, weights: &[Vec<f32>]) -> Result<(), FilesError> {
        let Some(expected) = &self.base.digest else { return Ok(()) };
        let found = Params::digest_of(weights).to_hex().to_string();
        if *expected == found {
            return Ok(());
        }
        Err(FilesError::OtherBase {
            dir: self.directory.clone(),
            base: path.into(),
            expected: expected.clone(),
            found,
        })
    }

    /// Its tensors, for a model with this configuration.
    ///
    /// # Errors
    /// Every tensor that is missing, unexpected or of another shape.
    pub fn params(
        &self,
        config: &ModelConfig,
        dtype: DType,
        device: &Device,
    ) -> Result<Params, crate::policy::PolicyError> {
        let specs = self.lora.tensor_specs(config);
        let mut problems = Vec::new();
        for spec in &specs {
            let name = format!("{PREFIX}{}", spec.name);
            let shape = &spec.shape;
            match self.tensors.shape(&name) {
                None => problems.push(format!("`{name}` is missing, expected {shape:?}")),
                Some(found) if found != shape => problems.push(format!(
                    "`{name}` has the wrong shape, expected {shape:?}, found {found:?}"
                )),
                Some(_) => {}
            }
        }
        for name in self.tensors.names() {
            let known = name.strip_prefix(PREFIX);
            if !known.is_some_and(|known| specs.iter().any(|spec| spec.name == known)) {
                problems.push(format!("`{name}` is unexpected"));
            }
        }
        if !problems.is_empty() {
            return Err(FilesError::Tensors { dir: self.directory.clone(), problems }.into());
        }
        let values = specs.iter().map(|spec| self.tensors.f32(&format!("{PREFIX}{}", spec.name)));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        Ok(Params::of_vecs(specs, values, dtype, device)?)
    }
}

/// Writes an adapter into a directory in the making. `params` are f32 on the CPU.
///
/// # Errors
/// The disk, or tensors that cannot be read.
pub fn write_adapter(
    staged: &StagedDir,
    lora: &Lora,
    base: &AdapterBase,
    params: &Params,
) -> Result<(), crate::policy::PolicyError> {
    let targets: Vec<&str> = lora.targets.iter().map(crate::lora::Target::name).collect();
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "r": lora.rank,
        "lora_alpha": whole(lora.alpha),
        "lora_dropout": 0.0,
        "target_modules": targets,
        "bias": "none",
        "use_rslora": false,
        "use_dora": false,
        "fan_in_fan_out": false,
        "modules_to_save": null,
        "init_lora_weights": true,
        "inference_mode": true,
    });
    staged.write(ADAPTER_CONFIG_FILE, format!("{config:#}\n").as_bytes())?;
    let mut metadata = vec![("format", "pt")];
    metadata.extend(base.digest.as_deref().map(|digest| (BASE_DIGEST, digest)));
    let values = (0..params.specs().len()).map(|i| params.read(i, <[f32]>::to_vec));
    let values = values.collect::<candle_core::Result<Vec<_>>>()?;
    let stored = params.specs().iter().cloned().map(|mut spec| {
        spec.name.insert_str(0, PREFIX);
        StoredTensor { spec, dtype: Dtype::F32 }
    });
    let stored: Vec<StoredTensor> = stored.collect();
    let mut next = values.iter();
    write_safetensors(&staged.path().join(ADAPTER_WEIGHTS_FILE), &metadata, &stored, |_| {
        // Asked for in the order of `stored`, which is that of the values.
        Cow::Borrowed(next.next().map_or(&[], Vec::as_slice))
    })?;
    Ok(())
}

/// PEFT's own alphas are whole numbers, and are written so.
fn whole(alpha: f32) -> Value {
    if alpha.fract() == 0.0 && alpha < 1e9 { json!(alpha as u64) } else { json!(alpha) }
}

/// Refuses what would be computed differently: what was expected, and what was found.
fn plain(config: &Map<String, Value>) -> Result<(), (&'static str, String)> {
    let found = |key: &str, value: &Value| format!("`{key}`: {value}");
    let of = |key: &str| config.get(key).unwrap_or(&Value::Null);
    if of("peft_type") != "LORA" {
        return Err(("`peft_type` \"LORA\"", of("peft_type").to_string()));
    }
    if !matches!(of("bias"), Value::Null) && of("bias") != "none" {
        return Err(("`bias` \"none\"", found("bias", of("bias"))));
    }
    for key in [
        "use_rslora",
        "use_dora",
        "use_qalora",
        "fan_in_fan_out",
        "lora_bias",
        "rank_pattern",
        "alpha_pattern",
        "modules_to_save",
        "layers_to_transform",
        "layer_replication",
        "trainable_token_indices",
        "target_parameters",
        "exclude_modules",
        "alora_invocation_tokens",
    ] {
        let value = of(key);
        let off = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(some) => some.is_empty(),
            Value::Object(some) => some.is_empty(),
            _ => false,
        };
        if !off {
            let expected = "a plain LoRA adapter; merge this one with peft (`merge_and_unload`) and load the result";
            return Err((expected, found(key, value)));
        }
    }
    Ok(())
}
