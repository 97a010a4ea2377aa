//! The digest of a configuration.
//!
//! Invariant: equal configurations have equal digests, whatever the order of their fields or keys
//! and however they were given; it is BLAKE3 over JSON with sorted keys and no white space.

use octet_proto::ConfigDigest;
use serde::Serialize;
use serde_json::Value;

use super::error::ConfigError;

/// The digest of a resolved configuration.
///
/// # Errors
/// It has no JSON form, such as a map with keys that are not text.
pub fn digest<T: Serialize>(config: &T) -> Result<ConfigDigest, ConfigError> {
    let mut value = to_value(config)?;
    value.sort_all_objects();
    Ok(ConfigDigest::new(blake3::hash(value.to_string().as_bytes()).to_hex().as_str()))
}

/// The JSON of a configuration.
pub(super) fn to_value<T: Serialize>(config: &T) -> Result<Value, ConfigError> {
    serde_json::to_value(config)
        .map_err(|error| ConfigError::Unwritable { problem: error.to_string() })
}
