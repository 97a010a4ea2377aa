//! Rotary position embedding: base, scaling and the resulting frequencies.
//!
//! Invariant: only the `default` and `llama3` types exist here; every other scaling is refused when
//! the configuration is read.

use super::ConfigError;
use super::fields::Fields;

/// Parameters of the rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of frequencies.
    pub theta: f64,
    /// Llama 3's long-context scaling, where the model has it.
    pub scaling: Option<Llama3Scaling>,
}

/// Llama 3's scaling: low frequencies divided by `factor`, high ones kept, a smooth band between.
#[derive(Clone, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// Divisor of the low frequencies.
    pub factor: f64,
    /// Wavelengths above `original / low_freq_factor` are divided.
    pub low_freq_factor: f64,
    /// Wavelengths below `original / high_freq_factor` are kept.
    pub high_freq_factor: f64,
    /// Context length of the first training.
    pub original_max_position_embeddings: f64,
}

impl Rope {
    /// Angular frequency of each pair of a head's dimensions: `head_dim / 2` numbers.
    pub fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        (0..head_dim / 2)
            .map(|pair| {
                let frequency = self.theta.powf(-((2 * pair) as f64) / head_dim as f64);
                match &self.scaling {
                    None => frequency,
                    Some(scaling) => scaling.apply(frequency),
                }
            })
            .collect()
    }

    /// Reads transformers 5's `rope_parameters`, or the older `rope_theta` and `rope_scaling`.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, ConfigError> {
        let parameters = fields.object("rope_parameters", "rope_parameters.")?;
        let scaling = fields.object("rope_scaling", "rope_scaling.")?;
        let inner = match &parameters {
            Some(parameters) => parameters.optional_positive("rope_theta")?,
            None => None,
        };
        let theta = match inner {
            Some(theta) => theta,
            None => fields.positive_or("rope_theta", 10_000.0)?,
        };
        let scaling = match parameters.or(scaling) {
            None => None,
            Some(keys) => read_scaling(&keys)?,
        };
        Ok(Self { theta, scaling })
    }
}

fn read_scaling(keys: &Fields<'_>) -> Result<Option<Llama3Scaling>, ConfigError> {
    let kind = match keys.string("rope_type")? {
        Some(kind) => kind,
        None => keys.string("type")?.unwrap_or("default"),
    };
    let partial = keys.positive_or("partial_rotary_factor", 1.0)?;
    if partial != 1.0 {
        return Err(keys.error("partial_rotary_factor", "1.0", partial));
    }
    match kind {
        "default" => Ok(None),
        "llama3" => {
            let scaling = Llama3Scaling {
                factor: keys.positive("factor")?,
                low_freq_factor: keys.positive("low_freq_factor")?,
                high_freq_factor: keys.positive("high_freq_factor")?,
                original_max_position_embeddings: keys
                    .positive("original_max_position_embeddings")?,
            };
            if scaling.high_freq_factor <= scaling.low_freq_factor {
                return Err(keys.error(
                    "high_freq_factor",
                    format!("more than low_freq_factor ({})", scaling.low_freq_factor),
                    scaling.high_freq_factor,
                ));
            }
            Ok(Some(scaling))
        }
        other => Err(keys.error("rope_type", "\"default\" or \"llama3\"", other)),
    }
}

impl Llama3Scaling {
    fn apply(&self, frequency: f64) -> f64 {
        let wavelength = std::f64::consts::TAU / frequency;
        let turns = self.original_max_position_embeddings / wavelength;
        if turns > self.high_freq_factor {
            return frequency;
        }
        if turns < self.low_freq_factor {
            return frequency / self.factor;
        }
        let smooth =
            (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor);
        (1.0 - smooth) * frequency / self.factor + smooth * frequency
    }
}
