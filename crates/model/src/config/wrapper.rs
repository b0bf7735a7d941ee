//! Checkpoints that wrap a text model: images and text in, of which the text part is served.
//!
//! Their `config.json` nests the text model's in `text_config`; what belongs to both (the ids of
//! special tokens, whether the output is tied) may stand outside.
//!
//! Invariant: the fields handed on are those of the text model, as if it stood alone; a quantized
//! checkpoint is refused wherever it says that it is one.

use serde_json::{Map, Value, json};

use super::Fields;
use crate::ModelError;

/// Architectures that wrap a text model, with the text models (by `model_type`) that each may
/// have; the first is meant where the config does not say.
const WRAPPERS: [(&str, &[(&str, &str)]); 2] = [
    (
        "Gemma3ForConditionalGeneration",
        &[("gemma3_text", "Gemma3ForCausalLM")],
    ),
    (
        "Mistral3ForConditionalGeneration",
        &[("mistral", "MistralForCausalLM")],
    ),
];

/// Fields that the outer config decides where it has them.
const OUTER_FIRST: [&str; 6] = [
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "quantization_config",
    "tie_word_embeddings",
    "torch_dtype",
];

/// The config of the text model inside, or `None` where the model is one itself.
pub(super) fn text_config(
    object: &Map<String, Value>,
    fields: &Fields<'_>,
) -> Result<Option<Map<String, Value>>, ModelError> {
    let name = match fields.get("architectures") {
        Some(Value::Array(names)) if names.len() == 1 => names[0].as_str(),
        _ => None,
    };
    let wrapper = WRAPPERS.iter().find(|(wrapper, _)| Some(*wrapper) == name);
    let Some((_, text_models)) = wrapper else {
        return Ok(None);
    };
    let Some(Value::Object(text)) = fields.get("text_config") else {
        return Err(fields.error("text_config", "is missing, or not an object"));
    };
    let text_fields = fields.nested("text_config")?;
    let text_fields = text_fields.ok_or_else(|| fields.error("text_config", "is missing"))?;
    let model_type = text_fields.string("model_type")?;
    let is_meant = |(known, _): &&(&str, &str)| model_type.is_none_or(|t| t == *known);
    let architecture = text_models.iter().find(is_meant).map(|(_, name)| *name);
    let architecture = architecture.ok_or_else(|| text_fields.unsupported("model_type"))?;
    let mut text = text.clone();
    text.insert("architectures".to_owned(), json!([architecture]));
    for name in OUTER_FIRST {
        if let Some(value) = object.get(name).filter(|value| !value.is_null()) {
            text.insert(name.to_owned(), value.clone());
        }
    }
    Ok(Some(text))
}

/// Names of all wrappers, for messages.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    WRAPPERS.iter().map(|(name, _)| *name)
}
