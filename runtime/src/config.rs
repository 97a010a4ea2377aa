//! Configuration in layers: defaults, files, environment, command line, in that order.
//!
//! Invariants: every key that is given is a key that exists, or loading fails and names the nearest
//! one; every error says where the offending value was given; nothing is global.
//!
//! A configuration type is plain serde: `Serialize + DeserializeOwned + Default`, with
//! `#[serde(default)]` on its structs. What it writes out is what it can read, so the keys that
//! exist are those that it writes: no `skip_serializing_if`, no `skip`, no aliases. An `Option` that
//! is `None` is written as null and is known by that.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

mod digest;
pub mod duration;
mod error;
mod flags;
mod keys;
mod layers;
mod toml_text;

#[cfg(test)]
mod tests;

pub use digest::digest;
pub use error::{ConfigError, Origin};
pub use flags::{FlagGiven, flags};
pub use layers::Layers;

/// Resolves the layers to a configuration.
///
/// # Errors
/// A key that does not exist, or a value that its key does not take.
pub fn load<T>(layers: &Layers) -> Result<T, ConfigError>
where
    T: Serialize + DeserializeOwned + Default,
{
    let mut given = layers.merged();
    let mut read_as_text: Option<(String, String)> = None;
    loop {
        let failure = match serde_path_to_error::deserialize::<_, T>(given.tree.clone()) {
            Ok(loaded) => {
                let known = digest::to_value(&loaded)?;
                return match keys::first_unknown(&given.tree, &known) {
                    Some(key) => Err(keys::unknown(&key, &known, given.origin(&key))),
                    None => Ok(loaded),
                };
            }
            Err(failure) => failure,
        };
        let key = keys::path_text(failure.path());
        let message = failure.into_inner().to_string();
        // `--set run.name=7` is a name for a key that wants text and a number for one that does not.
        // It was read as the number first; now the key has said that it wants something else.
        if given.take_as_text(&key) {
            read_as_text = Some((key, message));
            continue;
        }
        // A key that refuses the text too is told about the number that was given.
        let (key, message) = match read_as_text {
            Some((tried, first)) if tried == key => (tried, first),
            _ => (key, message),
        };
        // A misspelt key may be the reason why another is missing, so it is reported first.
        let known = digest::to_value(&T::default())?;
        if let Some(key) = keys::first_unknown(&given.tree, &known) {
            return Err(keys::unknown(&key, &known, given.origin(&key)));
        }
        return Err(error::rejected(&key, given.origin(&key), &message));
    }
}

/// The configuration as a TOML file that [`load`] reads back to an equal one.
///
/// # Errors
/// A value that TOML has no form for.
pub fn to_toml<T: Serialize>(config: &T) -> Result<String, ConfigError> {
    toml::to_string(config).map_err(|error| ConfigError::Unwritable { problem: error.to_string() })
}

/// Reads one TOML file over the defaults.
///
/// # Errors
/// See [`load`]; also a file that cannot be read or is not TOML.
pub fn load_file<T>(path: &Path) -> Result<T, ConfigError>
where
    T: Serialize + DeserializeOwned + Default,
{
    load(&Layers::new().file(path)?)
}

/// An empty table.
fn table() -> Value {
    Value::Object(serde_json::Map::new())
}
