//! `config.json`: what a model's weights mean.
//!
//! Both forms in the wild are read: transformers 4 (`rope_theta`, `rope_scaling`, `torch_dtype`)
//! and transformers 5 (`rope_parameters`, `dtype`). Null is the same as absent.
//!
//! Invariant: a field that changes arithmetic is implemented or refused by name; a field that is
//! not known at all is listed in [`ModelConfig::unknown_fields`], which loading warns of.

mod fields;
mod llama;
mod rope;

use hotspare_batch::TokenId;
use serde_json::Value;

pub(crate) use fields::{Fields, parse_object};
pub use rope::{RopeConfig, RopeScaling};

use crate::ModelError;

/// The file's name, for messages.
pub(crate) const CONFIG_FILE: &str = "config.json";

/// Bound on every width and count, far above any real model's; keeps products of two inside
/// `usize`.
const MAX_DIMENSION: usize = 1 << 24;
/// Bound on the number of layers.
const MAX_NUM_LAYERS: usize = 4096;

/// Families of models. Each has a module that checks its config and one that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// `LlamaForCausalLM`.
    Llama,
}

impl Architecture {
    /// All of them, by the names that configs use.
    const NAMES: [(&'static str, Self); 1] = [("LlamaForCausalLM", Self::Llama)];

    /// Reads `architectures`; a config without it is known by `model_type`.
    fn parse(fields: &Fields<'_>) -> Result<Self, ModelError> {
        let name = match fields.get("architectures") {
            Some(Value::Array(names)) if names.len() == 1 => names[0].as_str(),
            Some(_) => return Err(fields.error("architectures", "is not a list of one name")),
            None => match fields.string("model_type")? {
                Some("llama") => Some("LlamaForCausalLM"),
                Some(other) => Some(other),
                None => return Err(fields.error("architectures", "is missing")),
            },
        };
        let name = name.ok_or_else(|| fields.error("architectures", "is not a list of names"))?;
        let known = Self::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, architecture)| *architecture).ok_or_else(|| {
            let supported: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            ModelError::UnsupportedArchitecture {
                name: name.to_owned(),
                supported: supported.join(", "),
            }
        })
    }
}

/// A parsed and checked `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// Number of logits.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Query heads of a layer.
    pub num_attention_heads: usize,
    /// Key and value heads of a layer; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Added to the mean square inside every norm.
    pub rms_norm_eps: f32,
    /// The output matrix is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Rotary embedding.
    pub rope: RopeConfig,
    /// Positions the model was made for, before `rope` stretches them; see
    /// [`ModelConfig::max_context_len`].
    pub max_position_embeddings: usize,
    /// Begin-of-sequence ids.
    pub bos_token_ids: Vec<TokenId>,
    /// End-of-sequence ids. `GenerationConfig` may name more.
    pub eos_token_ids: Vec<TokenId>,
    /// The weights' nominal dtype (`dtype` or `torch_dtype`), as named; each tensor's own decides.
    pub dtype: Option<String>,
    /// Fields that nothing here knows; loading warns of them.
    pub unknown_fields: Vec<String>,
}

impl ModelConfig {
    /// Parses the bytes of a `config.json`.
    ///
    /// # Errors
    /// No JSON object, a field that is missing, wrong or out of range, or arithmetic that is not
    /// implemented.
    pub fn parse(json: &[u8]) -> Result<Self, ModelError> {
        let object = parse_object(CONFIG_FILE, json)?;
        let fields = Fields::new(CONFIG_FILE, &object);
        let architecture = Architecture::parse(&fields)?;
        match architecture {
            Architecture::Llama => llama::check(&fields)?,
        }
        let size = |name| fields.required_usize(name, 1..=MAX_DIMENSION);
        let hidden_size = size("hidden_size")?;
        let num_attention_heads = size("num_attention_heads")?;
        let num_key_value_heads = fields
            .usize("num_key_value_heads", 1..=MAX_DIMENSION)?
            .unwrap_or(num_attention_heads);
        if !num_attention_heads.is_multiple_of(num_key_value_heads) {
            let reason = format!("= {num_key_value_heads} does not divide num_attention_heads");
            return Err(fields.error("num_key_value_heads", &reason));
        }
        let vocab_size = size("vocab_size")?;
        Ok(Self {
            architecture,
            vocab_size,
            hidden_size,
            intermediate_size: size("intermediate_size")?,
            num_hidden_layers: fields.required_usize("num_hidden_layers", 1..=MAX_NUM_LAYERS)?,
            num_attention_heads,
            num_key_value_heads,
            head_dim: head_dim(&fields, hidden_size, num_attention_heads)?,
            rms_norm_eps: fields.positive_f64("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            tie_word_embeddings: fields.bool("tie_word_embeddings")?.unwrap_or(false),
            rope: RopeConfig::parse(&fields)?,
            max_position_embeddings: size("max_position_embeddings")?,
            bos_token_ids: fields.token_ids("bos_token_id", vocab_size)?,
            eos_token_ids: fields.token_ids("eos_token_id", vocab_size)?,
            dtype: dtype(&fields)?,
            unknown_fields: llama::unknown_fields(&fields),
        })
    }

    /// Tokens in a sequence at most: `max_position_embeddings`, times the factor of a linear rope
    /// scaling.
    pub fn max_context_len(&self) -> usize {
        let factor = match self.rope.scaling {
            RopeScaling::Linear { factor } => factor.max(1.0),
            RopeScaling::Default | RopeScaling::Llama3 { .. } => 1.0,
        };
        (self.max_position_embeddings as f64 * factor) as usize
    }

    /// The context length to serve: the model's, or the option's where that is smaller.
    ///
    /// # Errors
    /// An option of 0, or one that is larger than the model's context.
    pub fn resolve_max_model_len(&self, asked: Option<usize>) -> Result<usize, ModelError> {
        let limit = self.max_context_len();
        match asked {
            None => Ok(limit),
            Some(0) => Err(ModelError::Option {
                option: "max_model_len",
                reason: "must be at least 1".to_owned(),
            }),
            Some(asked) if asked > limit => Err(ModelError::MaxModelLen { asked, limit }),
            Some(asked) => Ok(asked),
        }
    }
}

/// `head_dim`, or `hidden_size / num_attention_heads` where that is whole.
fn head_dim(fields: &Fields<'_>, hidden: usize, num_heads: usize) -> Result<usize, ModelError> {
    let head_dim = match fields.usize("head_dim", 1..=MAX_DIMENSION)? {
        Some(head_dim) => head_dim,
        None if hidden.is_multiple_of(num_heads) => hidden / num_heads,
        None => {
            let reason = "is missing, and hidden_size is no multiple of num_attention_heads";
            return Err(fields.error("head_dim", reason));
        }
    };
    if !head_dim.is_multiple_of(2) {
        return Err(fields.error("head_dim", &format!("= {head_dim} is odd")));
    }
    Ok(head_dim)
}

/// `dtype`, or `torch_dtype` as it was called before.
fn dtype(fields: &Fields<'_>) -> Result<Option<String>, ModelError> {
    let name = match fields.string("dtype")? {
        Some(name) => Some(name),
        None => fields.string("torch_dtype")?,
    };
    Ok(name.map(|name| name.trim_start_matches("torch.").to_owned()))
}
