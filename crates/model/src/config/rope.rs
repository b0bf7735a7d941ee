//! The rotary embedding's parameters, in transformers 4 and 5 form.
//!
//! Invariant: the types `default`, `linear` and `llama3` are computed as transformers does; any
//! other is refused by name.

use super::Fields;
use crate::ModelError;

/// Base of the angles where a config names none, as in transformers.
const DEFAULT_THETA: f64 = 10_000.0;

/// How positions become angles.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the geometric series of frequencies.
    pub theta: f64,
    /// How the frequencies are changed for longer contexts.
    pub scaling: RopeScaling,
    /// Divisors of the frequencies, one a pair of dimensions, from a GGUF file; empty where it has
    /// none.
    pub frequency_divisors: Vec<f32>,
    /// Whether neighbouring dimensions turn together, as the q and k rows of llama-architecture
    /// GGUF files are ordered.
    pub is_interleaved: bool,
}

/// Changes to the frequencies.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// All frequencies divided by `factor`.
    Linear {
        /// At least 1 in real models.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, those between blended.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are low frequencies.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are high frequencies.
        high_freq_factor: f64,
        /// Context length before the change.
        original_max_position_embeddings: f64,
    },
}

impl RopeConfig {
    /// Reads `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (transformers
    /// 4).
    pub(super) fn parse(fields: &Fields<'_>) -> Result<Self, ModelError> {
        let nested = match fields.nested("rope_parameters")? {
            Some(parameters) => Some(parameters),
            None => fields.nested("rope_scaling")?,
        };
        let outer_theta = fields.positive_f64("rope_theta")?;
        let Some(parameters) = nested else {
            return Ok(Self {
                theta: outer_theta.unwrap_or(DEFAULT_THETA),
                scaling: RopeScaling::Default,
                frequency_divisors: Vec::new(),
                is_interleaved: false,
            });
        };
        for by_layer_type in ["full_attention", "sliding_attention"] {
            if parameters.get(by_layer_type).is_some() {
                return Err(parameters.unsupported(by_layer_type));
            }
        }
        if parameters
            .f64("partial_rotary_factor")?
            .is_some_and(|factor| factor != 1.0)
        {
            return Err(parameters.unsupported("partial_rotary_factor"));
        }
        let inner_theta = parameters.positive_f64("rope_theta")?;
        Ok(Self {
            theta: inner_theta.or(outer_theta).unwrap_or(DEFAULT_THETA),
            scaling: RopeScaling::parse(&parameters, fields)?,
            frequency_divisors: Vec::new(),
            is_interleaved: false,
        })
    }
}

impl RopeScaling {
    fn parse(parameters: &Fields<'_>, outer: &Fields<'_>) -> Result<Self, ModelError> {
        let name = if parameters.get("rope_type").is_some() {
            "rope_type"
        } else {
            "type"
        };
        let positive = |name: &str| {
            let value = parameters.positive_f64(name)?;
            value.ok_or_else(|| parameters.error(name, "is missing"))
        };
        match parameters.string(name)? {
            None | Some("default") => Ok(Self::Default),
            Some("linear") => Ok(Self::Linear {
                factor: positive("factor")?,
            }),
            Some("llama3") => {
                let original = "original_max_position_embeddings";
                let original = match outer.positive_f64(original)? {
                    Some(value) if parameters.get(original).is_none() => value,
                    _ => positive(original)?,
                };
                let low_freq_factor = positive("low_freq_factor")?;
                let high_freq_factor = positive("high_freq_factor")?;
                if high_freq_factor <= low_freq_factor {
                    let reason = "is not larger than low_freq_factor";
                    return Err(parameters.error("high_freq_factor", reason));
                }
                Ok(Self::Llama3 {
                    factor: positive("factor")?,
                    low_freq_factor,
                    high_freq_factor,
                    original_max_position_embeddings: original,
                })
            }
            Some(_) => Err(parameters.unsupported(name)),
        }
    }
}
