//! Typed access to the keys of a configuration file.
//!
//! Invariant: every refusal names the file, the key, what was expected and what was found.

use std::fmt::Display;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Architecture, ConfigError, Dtype};

/// The keys of one JSON object of one file.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: &'a Path,
    prefix: &'static str,
}

impl<'a> Fields<'a> {
    pub(super) fn new(map: &'a Map<String, Value>, path: &'a Path) -> Self {
        Self { map, path, prefix: "" }
    }

    pub(super) fn error(
        &self,
        key: &str,
        expected: impl Display,
        found: impl Display,
    ) -> ConfigError {
        ConfigError::Field {
            path: self.path.into(),
            key: format!("{}{key}", self.prefix),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    /// The value, where `null` counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The object under `key`; `prefix` is what its keys are called in errors.
    pub(super) fn object(
        &self,
        key: &str,
        prefix: &'static str,
    ) -> Result<Option<Fields<'a>>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields { map, path: self.path, prefix })),
            Some(other) => Err(self.error(key, "an object", describe(other))),
        }
    }

    pub(super) fn optional_size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.as_u64() {
            // Sizes index tokens and rows as u32 further on.
            Some(size) if size > 0 && size <= u64::from(u32::MAX) => Ok(Some(size as usize)),
            _ => Err(self.error(key, "a whole number of at least 1", describe(value))),
        }
    }

    pub(super) fn size(&self, key: &str) -> Result<usize, ConfigError> {
        self.optional_size(key)?
            .ok_or_else(|| self.error(key, "a whole number of at least 1", "no such key"))
    }

    pub(super) fn size_or(&self, key: &str, default: usize) -> Result<usize, ConfigError> {
        Ok(self.optional_size(key)?.unwrap_or(default))
    }

    pub(super) fn optional_positive(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(number) if number.is_finite() && number > 0.0 => Ok(Some(number)),
            _ => Err(self.error(key, "a number above 0", describe(value))),
        }
    }

    pub(super) fn positive(&self, key: &str) -> Result<f64, ConfigError> {
        self.optional_positive(key)?
            .ok_or_else(|| self.error(key, "a number above 0", "no such key"))
    }

    pub(super) fn positive_or(&self, key: &str, default: f64) -> Result<f64, ConfigError> {
        Ok(self.optional_positive(key)?.unwrap_or(default))
    }

    pub(super) fn bool_or(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.error(key, "true or false", describe(other))),
        }
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.error(key, "a string", describe(other))),
        }
    }

    /// Token ids under `key`: none, one number, or a list of them.
    pub(super) fn token_ids(&self, key: &str, vocab: usize) -> Result<Vec<u32>, ConfigError> {
        let values = match self.get(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(values)) => values.as_slice(),
            // Older Llama files say "none" as -1.
            Some(value) if value.as_i64() == Some(-1) => return Ok(Vec::new()),
            Some(value) => std::slice::from_ref(value),
        };
        values
            .iter()
            .map(|value| match value.as_u64() {
                Some(id) if (id as usize) < vocab => Ok(id as u32),
                _ => Err(self.error(
                    key,
                    format!("token ids below vocab_size ({vocab})"),
                    describe(value),
                )),
            })
            .collect()
    }

    pub(super) fn dtype(&self) -> Result<Option<Dtype>, ConfigError> {
        let key = if self.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
        let Some(name) = self.string(key)? else {
            return Ok(None);
        };
        Dtype::from_name(name.trim_start_matches("torch."))
            .map(Some)
            .ok_or_else(|| self.error(key, "float32, bfloat16 or float16", quoted(name)))
    }

    pub(super) fn architecture(&self) -> Result<Architecture, ConfigError> {
        let expected = "\"qwen2\", \"qwen3\" or \"llama\"";
        let name = self
            .string("model_type")?
            .ok_or_else(|| self.error("model_type", expected, "no such key"))?;
        let architecture = Architecture::from_model_type(name)
            .ok_or_else(|| self.error("model_type", expected, quoted(name)))?;
        if let Some(list) = self.get("architectures") {
            let class = architecture.class();
            let listed = list
                .as_array()
                .is_some_and(|names| names.iter().any(|name| name.as_str() == Some(class)));
            if !listed {
                return Err(self.error(
                    "architectures",
                    format!("a list with \"{class}\""),
                    describe(list),
                ));
            }
        }
        Ok(architecture)
    }

    /// Refuses what would silently give other numbers than the file's author got.
    pub(super) fn refuse_what_is_not_computed(
        &self,
        architecture: Architecture,
    ) -> Result<(), ConfigError> {
        let activation = self.string("hidden_act")?.unwrap_or("silu");
        if activation != "silu" {
            return Err(self.error("hidden_act", "\"silu\"", quoted(activation)));
        }
        if self.bool_or("use_sliding_window", false)? {
            return Err(self.error("use_sliding_window", "false (full attention)", "true"));
        }
        if let Some(Value::Array(types)) = self.get("layer_types")
            && let Some(other) =
                types.iter().find(|t| t.as_str().is_none_or(|t| t != "full_attention"))
        {
            return Err(self.error("layer_types", "\"full_attention\" only", describe(other)));
        }
        if architecture == Architecture::Llama && self.bool_or("mlp_bias", false)? {
            return Err(self.error("mlp_bias", "false", "true"));
        }
        if let Some(value) = self.get("quantization_config") {
            return Err(self.error(
                "quantization_config",
                "no such key (unquantised weights)",
                describe(value),
            ));
        }
        Ok(())
    }
}

fn quoted(text: &str) -> String {
    describe(&Value::from(text))
}

/// A value for an error message, cut to a readable length.
pub(super) fn describe(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = value.to_string();
    if text.chars().count() <= LONGEST {
        return text;
    }
    let head: String = text.chars().take(LONGEST).collect();
    format!("{head}...")
}
