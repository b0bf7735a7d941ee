//! The architectures that GGUF files name, and what llama.cpp's converter did to their weights.
//!
//! Norm weights of Gemma have their 1 added already. Families that llama.cpp rotates in pairs of
//! neighbouring dimensions have their q and k rows in that order; the others are as transformers
//! stores them.
//!
//! Invariant: an architecture that is not here is refused by name.

use super::GgufFile;
use crate::ModelError;

/// An architecture, as `general.architecture` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GgufArchitecture {
    /// `llama`: Llama, Mistral, Mixtral and SmolLM2.
    Llama,
    /// `mistral3`: Mistral Small 3.1 and its kin.
    Mistral3,
    /// `qwen2`.
    Qwen2,
    /// `qwen3`.
    Qwen3,
    /// `qwen3moe`.
    Qwen3Moe,
    /// `phi3`: Phi-3, Phi-3.5 and Phi-4.
    Phi3,
    /// `gemma2`.
    Gemma2,
    /// `gemma3`: its text part.
    Gemma3,
    /// `smollm3`.
    SmolLm3,
}

impl GgufArchitecture {
    const NAMES: [(&'static str, Self); 9] = [
        ("llama", Self::Llama),
        ("mistral3", Self::Mistral3),
        ("qwen2", Self::Qwen2),
        ("qwen3", Self::Qwen3),
        ("qwen3moe", Self::Qwen3Moe),
        ("phi3", Self::Phi3),
        ("gemma2", Self::Gemma2),
        ("gemma3", Self::Gemma3),
        ("smollm3", Self::SmolLm3),
    ];

    /// Reads `general.architecture`.
    ///
    /// # Errors
    /// It is missing, or names another.
    pub(super) fn parse(file: &GgufFile) -> Result<Self, ModelError> {
        let key = "general.architecture";
        let Some(name) = file.string(key)? else {
            return Err(file.field_error(key, "is missing"));
        };
        let known = Self::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, architecture)| *architecture).ok_or_else(|| {
            let supported: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            ModelError::UnsupportedArchitecture {
                name: name.to_owned(),
                supported: format!("{} in GGUF files", supported.join(", ")),
            }
        })
    }

    /// Its name, which is also the prefix of its metadata fields.
    pub(super) fn name(self) -> &'static str {
        let known = Self::NAMES.iter().find(|(_, known)| *known == self);
        known.map_or("", |(name, _)| name)
    }

    /// The name of the same in a `config.json`.
    pub(super) fn class(self, has_experts: bool, has_window: bool) -> &'static str {
        match self {
            Self::Llama if has_experts => "MixtralForCausalLM",
            // What `llama` leaves open: only these two families have a window.
            Self::Llama if has_window => "MistralForCausalLM",
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral3 => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Qwen3Moe => "Qwen3MoeForCausalLM",
            Self::Phi3 => "Phi3ForCausalLM",
            Self::Gemma2 => "Gemma2ForCausalLM",
            Self::Gemma3 => "Gemma3ForCausalLM",
            Self::SmolLm3 => "SmolLM3ForCausalLM",
        }
    }

    /// Whether q and k are rotated in pairs of neighbouring dimensions.
    pub(super) fn is_interleaved(self) -> bool {
        matches!(self, Self::Llama | Self::Mistral3 | Self::SmolLm3)
    }

    /// Whether it is one of Gemma's.
    pub(super) fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }

    /// Whether its layers may see a window only.
    pub(super) fn may_have_window(self) -> bool {
        self.is_gemma() || matches!(self, Self::Llama | Self::Phi3)
    }

    /// Whether it may have experts.
    pub(super) fn may_have_experts(self) -> bool {
        matches!(self, Self::Llama | Self::Qwen3Moe)
    }
}
