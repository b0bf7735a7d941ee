//! `config.json`: what a model's weights mean.
//!
//! Both forms in the wild are read: transformers 4 (`rope_theta`, `rope_scaling`, `torch_dtype`)
//! and transformers 5 (`rope_parameters`, `dtype`). Null is the same as absent.
//!
//! Invariant: a field that changes arithmetic is implemented or refused by name; a field that is
//! not known at all is listed in [`ModelConfig::unknown_fields`], which loading warns of.

mod architecture;
mod check;
mod decoder;
mod fields;
mod layers;
mod rope;
mod wrapper;

use hotspare_batch::TokenId;

pub use architecture::Architecture;
pub use decoder::{Activation, DecoderConfig, MoeConfig};
pub(crate) use fields::{Fields, parse_object};
pub use layers::{LayerConfig, LayerRope};
pub use rope::{RopeConfig, RopeScaling};

use crate::ModelError;

/// The file's name, for messages.
pub(crate) const CONFIG_FILE: &str = "config.json";

/// Bound on every width and count, far above any real model's; keeps products of two inside
/// `usize`.
const MAX_DIMENSION: usize = 1 << 24;
/// Bound on the number of layers.
const MAX_NUM_LAYERS: usize = 4096;

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
    /// Rotary embedding of most layers.
    pub rope: RopeConfig,
    /// Rotary embedding of layers with a window, where theirs is another.
    pub local_rope: Option<RopeConfig>,
    /// What sets the family apart.
    pub decoder: DecoderConfig,
    /// The kind of each layer; `num_hidden_layers` of them.
    pub layers: Vec<LayerConfig>,
    /// The experts of layers that have them.
    pub moe: Option<MoeConfig>,
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
        let outer = Fields::new(CONFIG_FILE, &object);
        let text = wrapper::text_config(&object, &outer)?;
        let fields = match &text {
            Some(text) => outer.inside("text_config", text),
            None => outer,
        };
        let architecture = Architecture::parse(&fields)?;
        check::check(architecture, &fields)?;
        let size = |name| size(architecture, &fields, name);
        let hidden_size = size("hidden_size")?;
        let num_attention_heads = size("num_attention_heads")?;
        let num_key_value_heads = fields
            .usize("num_key_value_heads", 1..=MAX_DIMENSION)?
            .or_else(|| decoder::default_size(architecture, &fields, "num_key_value_heads"))
            .unwrap_or(num_attention_heads);
        if !num_attention_heads.is_multiple_of(num_key_value_heads) {
            let reason = format!("= {num_key_value_heads} does not divide num_attention_heads");
            return Err(fields.error("num_key_value_heads", &reason));
        }
        let vocab_size = size("vocab_size")?;
        let head_dim = head_dim(architecture, &fields, hidden_size, num_attention_heads)?;
        let intermediate_size = size("intermediate_size")?;
        let num_hidden_layers = size("num_hidden_layers")?;
        if num_hidden_layers > MAX_NUM_LAYERS {
            let reason = format!("= {num_hidden_layers} is more than {MAX_NUM_LAYERS}");
            return Err(fields.error("num_hidden_layers", &reason));
        }
        let max_position_embeddings = size("max_position_embeddings")?;
        let (rope, local_rope) =
            RopeConfig::parse(architecture, &fields, head_dim, max_position_embeddings)?;
        let ties = fields.bool("tie_word_embeddings")?;
        Ok(Self {
            architecture,
            vocab_size,
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            rms_norm_eps: decoder::rms_norm_eps(architecture, &fields)?,
            tie_word_embeddings: ties.unwrap_or_else(|| decoder::default_tie(architecture)),
            decoder: DecoderConfig::parse(architecture, &fields, hidden_size, head_dim)?,
            layers: layers::parse(architecture, &fields, num_hidden_layers)?,
            moe: MoeConfig::parse(architecture, &fields, intermediate_size, num_hidden_layers)?,
            rope,
            local_rope,
            max_position_embeddings,
            bos_token_ids: fields.token_ids("bos_token_id", vocab_size)?,
            eos_token_ids: fields.token_ids("eos_token_id", vocab_size)?,
            dtype: dtype(&fields)?,
            unknown_fields: check::unknown_fields(&fields),
        })
    }

    /// Tokens in a sequence at most: `max_position_embeddings`, stretched by the scalings that are
    /// meant to stretch it.
    pub fn max_context_len(&self) -> usize {
        let max = self.max_position_embeddings as f64;
        let len = match self.rope.scaling {
            // Gemma 3 counts its linear scaling in already.
            RopeScaling::Linear { factor } if self.local_rope.is_none() => max * factor.max(1.0),
            RopeScaling::Dynamic { factor, .. } => max * factor.max(1.0),
            RopeScaling::Yarn {
                factor, original, ..
            } => (original * factor).max(1.0),
            RopeScaling::Default
            | RopeScaling::Linear { .. }
            | RopeScaling::Llama3 { .. }
            | RopeScaling::LongRope { .. } => max,
        };
        // Whatever factor a config names, the angle tables have to fit.
        (len as usize).min(MAX_DIMENSION)
    }

    /// The largest window of all layers; `None` where a layer has none.
    pub fn sliding_window(&self) -> Option<usize> {
        let windows = self.layers.iter().map(|layer| layer.sliding_window);
        let windows: Option<Vec<usize>> = windows.collect();
        windows?.into_iter().max()
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

/// The size in field `name`, or transformers' default where configs in the wild rely on it.
fn size(architecture: Architecture, fields: &Fields<'_>, name: &str) -> Result<usize, ModelError> {
    let found = fields.usize(name, 1..=MAX_DIMENSION)?;
    found
        .or_else(|| decoder::default_size(architecture, fields, name))
        .ok_or_else(|| fields.error(name, "is missing"))
}

/// `head_dim`, or the family's, or `hidden_size / num_attention_heads` where that is whole.
fn head_dim(
    architecture: Architecture,
    fields: &Fields<'_>,
    hidden: usize,
    num_heads: usize,
) -> Result<usize, ModelError> {
    let default = decoder::default_head_dim(architecture).filter(|_| !fields.has_key("head_dim"));
    let head_dim = match fields.usize("head_dim", 1..=MAX_DIMENSION)?.or(default) {
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
