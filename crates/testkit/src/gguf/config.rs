//! A model's shape, read from a `config.json` in the form of transformers 4 or 5.
//!
//! Only what a GGUF file's metadata says is read; whether the rest is supported is for the server
//! to say.
//!
//! Invariant: a field that is missing and has no default is an error that names it.

use serde_json::Value;

/// The shape and settings of a model.
#[derive(Clone, Debug)]
pub struct GgufModel {
    config: Value,
    /// `general.architecture`.
    pub architecture: &'static str,
    /// Its class in transformers.
    pub class: String,
}

/// transformers' class, GGUF's architecture.
const ARCHITECTURES: [(&str, &str); 10] = [
    ("LlamaForCausalLM", "llama"),
    ("MistralForCausalLM", "llama"),
    ("MixtralForCausalLM", "llama"),
    ("Qwen2ForCausalLM", "qwen2"),
    ("Qwen3ForCausalLM", "qwen3"),
    ("Qwen3MoeForCausalLM", "qwen3moe"),
    ("Phi3ForCausalLM", "phi3"),
    ("Gemma2ForCausalLM", "gemma2"),
    ("Gemma3ForCausalLM", "gemma3"),
    ("SmolLM3ForCausalLM", "smollm3"),
];

impl GgufModel {
    /// Reads `config`.
    ///
    /// # Errors
    /// An architecture that GGUF files of ours do not have.
    pub fn new(config: Value) -> Result<Self, String> {
        let class = config["architectures"][0].as_str().unwrap_or_default();
        let known = ARCHITECTURES.iter().find(|(known, _)| *known == class);
        let Some((_, architecture)) = known else {
            let known = ARCHITECTURES.map(|(class, _)| class).join(", ");
            return Err(format!(
                "architectures = [{class:?}]; supported are {known}"
            ));
        };
        Ok(Self {
            class: class.to_owned(),
            architecture,
            config,
        })
    }

    /// The class that `name` stands for: a class of transformers, or GGUF's name of one.
    pub fn class_of(name: &str) -> Option<&'static str> {
        let known = ARCHITECTURES
            .iter()
            .find(|(class, architecture)| *class == name || *architecture == name);
        known.map(|(class, _)| *class)
    }

    /// Field `name`; null where it is absent.
    pub(super) fn get(&self, name: &str) -> &Value {
        &self.config[name]
    }

    /// Field `name` as a whole number.
    ///
    /// # Errors
    /// It is missing, or something else.
    pub fn usize(&self, name: &str) -> Result<usize, String> {
        let value = self.optional(name);
        value.ok_or_else(|| format!("`{name}` is missing, or not a whole number"))
    }

    pub(super) fn optional(&self, name: &str) -> Option<usize> {
        usize::try_from(self.config[name].as_u64()?).ok()
    }

    pub(super) fn head_dim(&self) -> Result<usize, String> {
        let heads = self.usize("num_attention_heads")?;
        let divided = self.usize("hidden_size")?.checked_div(heads);
        let head_dim = self.optional("head_dim").or(divided);
        head_dim.ok_or_else(|| "`num_attention_heads` is 0".to_owned())
    }

    pub(super) fn num_kv_heads(&self) -> Result<usize, String> {
        match self.optional("num_key_value_heads") {
            Some(heads) => Ok(heads),
            None => self.usize("num_attention_heads"),
        }
    }

    /// Experts, and how many of them compute a token.
    pub(super) fn experts(&self) -> Option<(usize, usize)> {
        let num = self
            .optional("num_local_experts")
            .or(self.optional("num_experts"))?;
        let has_experts = matches!(&*self.class, "MixtralForCausalLM" | "Qwen3MoeForCausalLM");
        let num_used = self.optional("num_experts_per_tok").unwrap_or(0);
        (has_experts && num > 0).then_some((num, num_used))
    }

    /// The window of layers that have one.
    pub(super) fn window(&self) -> Option<usize> {
        let is_off = self.config["use_sliding_window"] == false;
        self.optional("sliding_window").filter(|_| !is_off)
    }

    /// Parameters of the rotary embedding of layers without a window.
    pub(super) fn rope(&self) -> &Value {
        let rope = match self.get("rope_parameters") {
            Value::Null => self.get("rope_scaling"),
            rope => rope,
        };
        match &rope["full_attention"] {
            Value::Null => rope,
            full => full,
        }
    }

    /// Base of the rotary embedding; of layers with a window, where they have their own.
    pub(super) fn theta(&self, is_local: bool) -> Option<f64> {
        match is_local {
            true => {
                let nested = &self.get("rope_parameters")["sliding_attention"]["rope_theta"];
                nested
                    .as_f64()
                    .or_else(|| self.get("rope_local_base_freq").as_f64())
            }
            false => {
                let outer = self.get("rope_theta").as_f64();
                self.rope()["rope_theta"].as_f64().or(outer)
            }
        }
    }

    /// Whether the output matrix is the embedding.
    pub(super) fn is_tied(&self) -> bool {
        let by_family = matches!(self.architecture, "gemma2" | "gemma3" | "smollm3");
        let tied = self.get("tie_word_embeddings").as_bool();
        tied.unwrap_or(by_family)
    }

    /// Rotated dimensions of a head.
    pub(super) fn rotary_dim(&self) -> Result<usize, String> {
        let inner = self.rope()["partial_rotary_factor"].as_f64();
        let factor = inner.or_else(|| self.get("partial_rotary_factor").as_f64());
        Ok((self.head_dim()? as f64 * factor.unwrap_or(1.0)) as usize)
    }
}
