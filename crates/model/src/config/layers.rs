//! What each layer is: its window, its rotary embedding, its feed-forward layer.
//!
//! Invariant: there is one [`LayerConfig`] for each layer, and it alone says what that layer does.

use serde_json::Value;

use super::{Architecture, Fields, MAX_DIMENSION};
use crate::ModelError;

/// Which rotary embedding a layer uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerRope {
    /// `ModelConfig::rope`.
    Global,
    /// `ModelConfig::local_rope`: Gemma 3's layers with a window.
    Local,
    /// None: positions show in the causal mask alone.
    None,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerConfig {
    /// Only the last so many positions are seen, the own one included.
    pub sliding_window: Option<usize>,
    /// Its rotary embedding.
    pub rope: LayerRope,
    /// Whether its feed-forward layer is one of experts.
    pub has_experts: bool,
}

/// Reads every layer's kind.
pub(super) fn parse(
    architecture: Architecture,
    fields: &Fields<'_>,
    num_layers: usize,
) -> Result<Vec<LayerConfig>, ModelError> {
    let sliding = Sliding::parse(architecture, fields, num_layers)?;
    let no_rope = match architecture {
        Architecture::SmolLm3 => no_rope_layers(fields, num_layers)?,
        _ => vec![false; num_layers],
    };
    let has_experts = sparse_layers(architecture, fields, num_layers)?;
    let layer = |index: usize| {
        let has_window = sliding.layers[index];
        LayerConfig {
            sliding_window: sliding.window.filter(|_| has_window),
            rope: match architecture {
                _ if no_rope[index] => LayerRope::None,
                Architecture::Gemma3 if has_window => LayerRope::Local,
                _ => LayerRope::Global,
            },
            has_experts: has_experts[index],
        }
    };
    Ok((0..num_layers).map(layer).collect())
}

/// The window, and which layers have it.
struct Sliding {
    window: Option<usize>,
    layers: Vec<bool>,
}

impl Sliding {
    fn parse(
        architecture: Architecture,
        fields: &Fields<'_>,
        num_layers: usize,
    ) -> Result<Self, ModelError> {
        let default = match architecture {
            _ if fields.has_key("sliding_window") => None,
            Architecture::Mistral | Architecture::Gemma2 | Architecture::Gemma3 => Some(4096),
            // Only used with use_sliding_window.
            Architecture::Qwen2 | Architecture::Qwen3 | Architecture::Qwen3Moe => Some(4096),
            _ => None,
        };
        let window = fields
            .usize("sliding_window", 1..=MAX_DIMENSION)?
            .or(default);
        let uses_window =
            || Ok::<_, ModelError>(fields.bool("use_sliding_window")?.unwrap_or(false));
        let (is_on, kinds): (bool, Box<dyn Fn(usize) -> bool>) = match architecture {
            Architecture::Llama => (false, Box::new(|_| false)),
            // transformers has no max_window_layers here: the window is every layer's.
            Architecture::Qwen3Moe => (uses_window()?, Box::new(|_| true)),
            Architecture::Mistral | Architecture::Mixtral | Architecture::Phi3 => {
                (true, Box::new(|_| true))
            }
            Architecture::Qwen2 | Architecture::Qwen3 => {
                let first = fields.usize("max_window_layers", 0..=MAX_DIMENSION)?;
                let first = first.unwrap_or(28);
                (uses_window()?, Box::new(move |index| index >= first))
            }
            Architecture::Gemma2 => (true, Box::new(|index| index.is_multiple_of(2))),
            Architecture::Gemma3 => {
                let name = match fields.get("sliding_window_pattern") {
                    Some(_) => "sliding_window_pattern",
                    None => "_sliding_window_pattern",
                };
                let period = fields.usize(name, 1..=MAX_DIMENSION)?.unwrap_or(6);
                let is_full = move |index: usize| (index + 1).is_multiple_of(period);
                (true, Box::new(move |index| !is_full(index)))
            }
            Architecture::SmolLm3 => {
                let no_rope = no_rope_layers(fields, num_layers)?;
                (uses_window()?, Box::new(move |index| no_rope[index]))
            }
        };
        let by_type = match architecture {
            Architecture::Gemma2 | Architecture::Gemma3 | Architecture::SmolLm3 => true,
            Architecture::Qwen2 | Architecture::Qwen3 => is_on,
            _ => false,
        };
        let layers = match layer_types(fields, num_layers)? {
            Some(layers) if by_type && is_on => layers,
            Some(layers) if layers.contains(&true) => {
                return Err(fields.unsupported("layer_types"));
            }
            _ => (0..num_layers).map(|i| is_on && kinds(i)).collect(),
        };
        Ok(Self { window, layers })
    }
}

/// Whether each layer is a `sliding_attention` one, where the config lists them.
fn layer_types(fields: &Fields<'_>, num_layers: usize) -> Result<Option<Vec<bool>>, ModelError> {
    let kinds = match fields.get("layer_types") {
        None => return Ok(None),
        Some(Value::Array(kinds)) if kinds.len() == num_layers => kinds,
        Some(_) => return Err(fields.error("layer_types", "is not a list of one for each layer")),
    };
    let is_sliding = |kind: &Value| match kind.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => Err(fields.unsupported("layer_types")),
    };
    kinds
        .iter()
        .map(is_sliding)
        .collect::<Result<_, _>>()
        .map(Some)
}

/// Whether each layer goes without rotary embedding: `no_rope_layers` (whose entries are 1 where a
/// layer has it), or every `no_rope_layer_interval`th.
fn no_rope_layers(fields: &Fields<'_>, num_layers: usize) -> Result<Vec<bool>, ModelError> {
    let name = "no_rope_layers";
    match fields.get(name) {
        None => {
            let interval = fields.usize("no_rope_layer_interval", 1..=MAX_DIMENSION)?;
            let interval = interval.unwrap_or(4);
            Ok((1..=num_layers)
                .map(|n| n.is_multiple_of(interval))
                .collect())
        }
        Some(Value::Array(has_rope)) if has_rope.len() == num_layers => {
            let parse = |value: &Value| match value.as_u64() {
                Some(0) => Ok(true),
                Some(1) => Ok(false),
                _ => Err(fields.error(name, &format!("has {value}, which is not 0 or 1"))),
            };
            has_rope.iter().map(parse).collect()
        }
        Some(_) => Err(fields.error(name, "is not a list of one for each layer")),
    }
}

/// Whether each layer has experts.
fn sparse_layers(
    architecture: Architecture,
    fields: &Fields<'_>,
    num_layers: usize,
) -> Result<Vec<bool>, ModelError> {
    match architecture {
        Architecture::Mixtral => Ok(vec![true; num_layers]),
        Architecture::Qwen3Moe => {
            let step = fields.usize("decoder_sparse_step", 1..=MAX_DIMENSION)?;
            let step = step.unwrap_or(1);
            let dense = fields.token_ids("mlp_only_layers", num_layers)?;
            let is_sparse =
                |index: usize| (index + 1).is_multiple_of(step) && !dense.contains(&(index as u32));
            Ok((0..num_layers).map(is_sparse).collect())
        }
        _ => Ok(vec![false; num_layers]),
    }
}
