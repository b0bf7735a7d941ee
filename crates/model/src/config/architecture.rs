//! The families of models and the names that configs give them.
//!
//! Invariant: a name that is not here is refused, with the list of those that are.

use serde_json::Value;

use super::Fields;
use crate::ModelError;

/// Families of models. What they have in common is one decoder; a
/// [`DecoderConfig`](super::DecoderConfig) says how they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// `LlamaForCausalLM`.
    Llama,
    /// `MistralForCausalLM`, also inside a `Mistral3ForConditionalGeneration`.
    Mistral,
    /// `MixtralForCausalLM`.
    Mixtral,
    /// `Qwen2ForCausalLM`: Qwen 2 and 2.5.
    Qwen2,
    /// `Qwen3ForCausalLM`.
    Qwen3,
    /// `Qwen3MoeForCausalLM`.
    Qwen3Moe,
    /// `Phi3ForCausalLM`: Phi-3, Phi-3.5 and Phi-4-mini.
    Phi3,
    /// `Gemma2ForCausalLM`.
    Gemma2,
    /// `Gemma3ForCausalLM`: the text models of Gemma 3, also inside a
    /// `Gemma3ForConditionalGeneration`.
    Gemma3,
    /// `SmolLM3ForCausalLM`.
    SmolLm3,
}

impl Architecture {
    /// All of them, by the name that configs use, and their `model_type`.
    const NAMES: [(&'static str, &'static str, Self); 10] = [
        ("LlamaForCausalLM", "llama", Self::Llama),
        ("MistralForCausalLM", "mistral", Self::Mistral),
        ("MixtralForCausalLM", "mixtral", Self::Mixtral),
        ("Qwen2ForCausalLM", "qwen2", Self::Qwen2),
        ("Qwen3ForCausalLM", "qwen3", Self::Qwen3),
        ("Qwen3MoeForCausalLM", "qwen3_moe", Self::Qwen3Moe),
        ("Phi3ForCausalLM", "phi3", Self::Phi3),
        ("Gemma2ForCausalLM", "gemma2", Self::Gemma2),
        ("Gemma3ForCausalLM", "gemma3_text", Self::Gemma3),
        ("SmolLM3ForCausalLM", "smollm3", Self::SmolLm3),
    ];

    /// Reads `architectures`; a config without it is known by `model_type`.
    pub(super) fn parse(fields: &Fields<'_>) -> Result<Self, ModelError> {
        let (name, is_type) = match fields.get("architectures") {
            Some(Value::Array(names)) if names.len() == 1 => (names[0].as_str(), false),
            Some(_) => return Err(fields.error("architectures", "is not a list of one name")),
            None => match fields.string("model_type")? {
                Some(model_type) => (Some(model_type), true),
                None => return Err(fields.error("architectures", "is missing")),
            },
        };
        let name = name.ok_or_else(|| fields.error("architectures", "is not a list of names"))?;
        let is_named = |(known, model_type, _): &&(&str, &str, Self)| match is_type {
            true => *model_type == name,
            false => *known == name,
        };
        let known = Self::NAMES.iter().find(is_named);
        known
            .map(|(.., architecture)| *architecture)
            .ok_or_else(|| {
                let own = Self::NAMES.iter().map(|(name, ..)| *name);
                let supported: Vec<_> = own.chain(super::wrapper::names()).collect();
                ModelError::UnsupportedArchitecture {
                    name: name.to_owned(),
                    supported: supported.join(", "),
                }
            })
    }
}
