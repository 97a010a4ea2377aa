//! Durations in configuration files: `"500ms"`, `"3s"`, `"2m"`, `"1h"`.
//!
//! For use as `#[serde(with = "octet_runtime::config::duration")]`. A bare number is refused: a unit
//! that is left out is a unit that is guessed.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de};

/// In milliseconds.
const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// Writes a duration in the largest unit that holds it whole.
///
/// # Errors
/// Only those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, factor) = UNITS
        .into_iter()
        .rev()
        .find(|(_, factor)| millis >= *factor && millis % factor == 0)
        .unwrap_or(("s", 1_000));
    serializer.collect_str(&format_args!("{}{unit}", millis / factor))
}

/// Reads a duration.
///
/// # Errors
/// It is not a whole number and a unit.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let expected = || {
        let found = de::Unexpected::Str(&text);
        de::Error::invalid_value(found, &r#"a duration such as "500ms", "3s", "2m" or "1h""#)
    };
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
    let number: u64 = text[..unit_at].parse().map_err(|_| expected())?;
    let unit = text[unit_at..].trim();
    let factor = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(expected)?.1;
    number.checked_mul(factor).map(Duration::from_millis).ok_or_else(expected)
}
