//! The rotary embedding's parameters, in transformers 4 and 5 form.
//!
//! Invariant: the types `default`, `linear`, `dynamic`, `yarn`, `longrope` and `llama3` are
//! computed as transformers does; any other is refused by name.

use super::{Architecture, Fields};
use crate::ModelError;

/// How positions become angles.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the geometric series of frequencies.
    pub theta: f64,
    /// Leading dimensions of a head that are rotated; even.
    pub rotary_dim: usize,
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
    /// "Dynamic NTK": a larger base for a longer context. The context is the one that is served,
    /// not the running length, so that a key never depends on what follows it.
    Dynamic {
        /// How far the context may be stretched.
        factor: f64,
        /// Context length before the change.
        original: f64,
    },
    /// YaRN (Peng et al. 2023): frequencies below a ramp divided by `factor`, those above kept.
    Yarn {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Context length before the change.
        original: f64,
        /// Turns over the original context above which a frequency is kept.
        beta_fast: f64,
        /// Turns below which it is divided.
        beta_slow: f64,
        /// Whether the ramp's ends are rounded outwards.
        truncates: bool,
        /// Factor on cosines and sines.
        attention_factor: f64,
    },
    /// Phi-3 (Ding et al., "LongRoPE", 2024): a divisor for each frequency, from one list or the
    /// other by the length of the context that is served.
    LongRope {
        /// Divisors for contexts up to `original`.
        short_factor: Vec<f64>,
        /// Divisors for longer ones.
        long_factor: Vec<f64>,
        /// Context length before the change.
        original: f64,
        /// Factor on cosines and sines.
        attention_factor: f64,
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
    /// 4). The second is of layers with a window, where they have their own.
    pub(super) fn parse(
        architecture: Architecture,
        fields: &Fields<'_>,
        head_dim: usize,
        max_positions: usize,
    ) -> Result<(Self, Option<Self>), ModelError> {
        let nested = parameters(fields)?;
        let reader = Reader {
            outer: fields,
            head_dim,
            max_positions: max_positions as f64,
            is_phi3: architecture == Architecture::Phi3,
            outer_theta: fields.positive_f64("rope_theta")?,
            default_theta: match architecture {
                Architecture::Mixtral | Architecture::Gemma3 => 1e6,
                Architecture::SmolLm3 => 2e6,
                _ => 1e4,
            },
        };
        if architecture != Architecture::Gemma3 {
            return Ok((reader.read(nested.as_ref())?, None));
        }
        let by_kind = |kind: &str| match &nested {
            Some(parameters) => parameters.nested(kind),
            None => Ok(None),
        };
        let local = Reader {
            default_theta: 1e4,
            outer_theta: fields.positive_f64("rope_local_base_freq")?,
            ..reader
        };
        let local = local.read(by_kind("sliding_attention")?.as_ref())?;
        let global = match by_kind("full_attention")? {
            Some(global) => Some(global),
            // The new form's parameters are by kind; transformers takes no others from it.
            None if fields.get("rope_parameters").is_some() => {
                return Err(fields.error("rope_parameters.full_attention", "is missing"));
            }
            None => nested,
        };
        Ok((reader.read(global.as_ref())?, Some(local)))
    }
}

/// Every field of a set of parameters that is read here, or without influence (the last three).
const KNOWN_PARAMETERS: [&str; 19] = [
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "factor",
    "high_freq_factor",
    "long_factor",
    "low_freq_factor",
    "mscale",
    "mscale_all_dim",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "rope_theta",
    "rope_type",
    "short_factor",
    "truncate",
    "type",
    "finetuned",
    "max_position_embeddings",
    "rope_local_base_freq",
];

/// The object in `rope_parameters` or `rope_scaling`. transformers takes the latter where both are
/// there, other readers the former: they have to agree.
fn parameters<'a>(fields: &Fields<'a>) -> Result<Option<Fields<'a>>, ModelError> {
    let (new, old) = ("rope_parameters", "rope_scaling");
    match (fields.get(new), fields.get(old)) {
        (Some(parameters), Some(scaling)) if parameters != scaling => {
            Err(fields.error(old, "and rope_parameters do not agree"))
        }
        (Some(_), _) => fields.nested(new),
        (None, _) => fields.nested(old),
    }
}

/// What parsing one set of parameters needs to know beside them.
#[derive(Clone, Copy)]
struct Reader<'a> {
    outer: &'a Fields<'a>,
    head_dim: usize,
    max_positions: f64,
    /// Phi-3 may rotate a part of a head, and has one kind of scaling.
    is_phi3: bool,
    /// The base that is given outside of the parameters.
    outer_theta: Option<f64>,
    default_theta: f64,
}

impl Reader<'_> {
    fn read(&self, parameters: Option<&Fields<'_>>) -> Result<RopeConfig, ModelError> {
        let rotary_dim = self.rotary_dim(parameters)?;
        let Some(parameters) = parameters else {
            return Ok(RopeConfig {
                theta: self.outer_theta.unwrap_or(self.default_theta),
                rotary_dim,
                scaling: RopeScaling::Default,
                frequency_divisors: Vec::new(),
                is_interleaved: false,
            });
        };
        let is_unknown = |name: &&str| !KNOWN_PARAMETERS.contains(name);
        if let Some(unknown) = parameters.names().find(is_unknown) {
            return Err(parameters.unsupported(unknown));
        }
        let inner_theta = parameters.positive_f64("rope_theta")?;
        Ok(RopeConfig {
            theta: inner_theta
                .or(self.outer_theta)
                .unwrap_or(self.default_theta),
            rotary_dim,
            scaling: self.scaling(parameters, rotary_dim)?,
            frequency_divisors: Vec::new(),
            is_interleaved: false,
        })
    }

    fn rotary_dim(&self, parameters: Option<&Fields<'_>>) -> Result<usize, ModelError> {
        let name = "partial_rotary_factor";
        let inner = match parameters {
            Some(parameters) => parameters.positive_f64(name)?,
            None => None,
        };
        let fields = match parameters {
            Some(parameters) if inner.is_some() => parameters,
            _ => self.outer,
        };
        let factor = match inner {
            Some(factor) => factor,
            None => self.outer.positive_f64(name)?.unwrap_or(1.0),
        };
        if factor != 1.0 && !self.is_phi3 {
            return Err(fields.unsupported(name));
        }
        let rotary_dim = (self.head_dim as f64 * factor) as usize;
        if factor > 1.0 || rotary_dim == 0 || !rotary_dim.is_multiple_of(2) {
            let reason = format!("= {factor} is not an even part of a head");
            return Err(fields.error(name, &reason));
        }
        Ok(rotary_dim)
    }

    fn scaling(&self, p: &Fields<'_>, rotary_dim: usize) -> Result<RopeScaling, ModelError> {
        let name = match p.get("rope_type") {
            Some(_) => "rope_type",
            None => "type",
        };
        match p.string(name)? {
            None | Some("default") => Ok(RopeScaling::Default),
            // Its first names for the one kind of scaling that it has.
            Some("longrope" | "su" | "yarn") if self.is_phi3 => self.long_rope(p, rotary_dim),
            Some(_) if self.is_phi3 => Err(p.unsupported(name)),
            Some("linear") => Ok(RopeScaling::Linear {
                factor: positive(p, "factor")?,
            }),
            Some("dynamic") => Ok(RopeScaling::Dynamic {
                factor: positive(p, "factor")?,
                original: self.max_positions,
            }),
            Some("yarn") => self.yarn(p),
            Some("longrope") => self.long_rope(p, rotary_dim),
            Some("llama3") => self.llama3(p),
            Some(_) => Err(p.unsupported(name)),
        }
    }

    /// The context length before the change, from the outer fields or, where these lack it, from
    /// here.
    fn original(&self, p: &Fields<'_>) -> Result<Option<f64>, ModelError> {
        let name = "original_max_position_embeddings";
        match self.outer.positive_f64(name)? {
            Some(original) => Ok(Some(original)),
            None => p.positive_f64(name),
        }
    }

    fn yarn(&self, p: &Fields<'_>) -> Result<RopeScaling, ModelError> {
        let original = self.original(p)?.unwrap_or(self.max_positions);
        let factor = match p.positive_f64("factor")? {
            Some(factor) => factor,
            None => self.max_positions / original,
        };
        let magnitude = |weight: f64| match factor > 1.0 {
            true => 0.1 * weight * factor.ln() + 1.0,
            false => 1.0,
        };
        let (above, below) = (p.positive_f64("mscale")?, p.positive_f64("mscale_all_dim")?);
        let attention_factor = match (p.positive_f64("attention_factor")?, above, below) {
            (Some(factor), ..) => factor,
            (None, Some(above), Some(below)) => magnitude(above) / magnitude(below),
            (None, ..) => magnitude(1.0),
        };
        Ok(RopeScaling::Yarn {
            factor,
            original,
            beta_fast: p.positive_f64("beta_fast")?.unwrap_or(32.0),
            beta_slow: p.positive_f64("beta_slow")?.unwrap_or(1.0),
            truncates: p.bool("truncate")?.unwrap_or(true),
            attention_factor,
        })
    }

    fn long_rope(&self, p: &Fields<'_>, rotary_dim: usize) -> Result<RopeScaling, ModelError> {
        let original = match self.original(p)? {
            Some(original) => original,
            None if self.is_phi3 => 4096.0,
            None => return Err(p.error("original_max_position_embeddings", "is missing")),
        };
        let stretch = match p.positive_f64("factor")? {
            Some(factor) => factor,
            None => self.max_positions / original,
        };
        let attention_factor = match p.positive_f64("attention_factor")? {
            Some(factor) => factor,
            None if stretch <= 1.0 => 1.0,
            None => (1.0 + stretch.ln() / original.ln()).sqrt(),
        };
        Ok(RopeScaling::LongRope {
            short_factor: p.positive_list("short_factor", rotary_dim / 2)?,
            long_factor: p.positive_list("long_factor", rotary_dim / 2)?,
            original,
            attention_factor,
        })
    }

    fn llama3(&self, p: &Fields<'_>) -> Result<RopeScaling, ModelError> {
        let name = "original_max_position_embeddings";
        let original = self.original(p)?;
        let low_freq_factor = positive(p, "low_freq_factor")?;
        let high_freq_factor = positive(p, "high_freq_factor")?;
        if high_freq_factor <= low_freq_factor {
            let reason = "is not larger than low_freq_factor";
            return Err(p.error("high_freq_factor", reason));
        }
        Ok(RopeScaling::Llama3 {
            factor: positive(p, "factor")?,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: original
                .ok_or_else(|| p.error(name, "is missing"))?,
        })
    }
}

/// A number above 0 that has to be there.
fn positive(p: &Fields<'_>, name: &str) -> Result<f64, ModelError> {
    p.positive_f64(name)?
        .ok_or_else(|| p.error(name, "is missing"))
}
