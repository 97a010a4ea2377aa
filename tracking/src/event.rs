//! What is tracked of a run, one record after the other.
//!
//! Invariant: a record carries all that a server is told of it, its time included, so that telling it again is
//! telling the same.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A record, as the journal keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its place in the journal, from 1, without gaps that matter.
    pub id: i64,
    /// When it was written down: milliseconds since 1970.
    pub at_ms: i64,
    /// What it says.
    pub event: Event,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// What the run was started with. A value is never changed.
    Params {
        /// Dotted keys and their values.
        values: Vec<(String, String)>,
    },
    /// What the run is known by.
    Tags {
        /// Names and their values.
        values: Vec<(String, String)>,
    },
    /// What was measured at a step.
    Metrics {
        /// Steps committed with this one; 0 is before the first.
        step: u64,
        /// octet's names and the values.
        values: Vec<(String, Number)>,
    },
    /// A file of the run directory.
    Artifact {
        /// Its path from the run directory, with forward slashes.
        file: String,
    },
    /// How the run stands.
    Status {
        /// That.
        status: Status,
    },
}

/// How a run stands, in MLflow's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// It goes on, again.
    Running,
    /// Every step is committed.
    Finished,
    /// It ended with an error.
    Failed,
    /// It was stopped, and may go on.
    Killed,
}

/// A measured number. JSON has no NaN and no infinities: they are the texts that MLflow takes for them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number(pub f64);

impl Event {
    /// How many things it tells a server: what can be sent in parts.
    pub fn items(&self) -> usize {
        match self {
            Self::Params { values } | Self::Tags { values } => values.len(),
            Self::Metrics { values, .. } => values.len(),
            Self::Artifact { .. } | Self::Status { .. } => 1,
        }
    }

    /// What it is called in a message.
    pub fn name(&self) -> String {
        match self {
            Self::Params { .. } => "the parameters".into(),
            Self::Tags { .. } => "the tags".into(),
            Self::Metrics { step, .. } => format!("the metrics of step {step}"),
            Self::Artifact { file } => format!("the file {file}"),
            Self::Status { status } => format!("the status {}", status.name()),
        }
    }
}

impl Status {
    /// The word that MLflow has for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Finished => "FINISHED",
            Self::Failed => "FAILED",
            Self::Killed => "KILLED",
        }
    }

    /// Whether the run is over, for now at least.
    pub const fn is_end(self) -> bool {
        !matches!(self, Self::Running)
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            value if value.is_finite() => serializer.serialize_f64(value),
            value if value.is_nan() => serializer.serialize_str("NaN"),
            value if value > 0.0 => serializer.serialize_str("Infinity"),
            _ => serializer.serialize_str("-Infinity"),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Number;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number, \"NaN\", \"Infinity\" or \"-Infinity\"")
            }

            fn visit_f64<E>(self, value: f64) -> Result<Number, E> {
                Ok(Number(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Number, E> {
                Ok(Number(value as f64))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Number, E> {
                Ok(Number(value as f64))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
                match text {
                    "NaN" => Ok(Number(f64::NAN)),
                    "Infinity" => Ok(Number(f64::INFINITY)),
                    "-Infinity" => Ok(Number(f64::NEG_INFINITY)),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_is_read_back_to_the_bit(bits: u64) {
            let value = f64::from_bits(bits);
            let text = serde_json::to_string(&Number(value)).unwrap();
            let Number(read) = serde_json::from_str(&text).unwrap();
            prop_assert!(read.to_bits() == bits || (read.is_nan() && value.is_nan()), "{text}");
        }
    }

    #[test]
    fn what_json_has_no_number_for_is_a_text() {
        let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0].map(Number);
        let text = serde_json::to_string(&values).unwrap();
        assert_eq!(text, r#"["NaN","Infinity","-Infinity",1.0]"#);
        assert!(serde_json::from_str::<Number>(r#""many""#).is_err());
    }
}
