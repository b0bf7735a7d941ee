//! What a GGUF file's metadata means, said as a `config.json`.
//!
//! Only `general.architecture` = `llama` is read here. Its q and k rows are ordered for rotary
//! embeddings of neighbouring dimensions; weights stay as they are, and the rotation follows them.
//!
//! Invariant: a field or tensor that would change the arithmetic is read or refused by name.

use serde_json::{Value, json};

use super::GgufFile;
use crate::config::CONFIG_FILE;
use crate::weights::WeightDtype;
use crate::{ModelConfig, ModelError};

/// Tensors of a layer that the llama architecture has here.
const LAYER_TENSORS: [&str; 9] = [
    "attn_norm.weight",
    "attn_q.weight",
    "attn_k.weight",
    "attn_v.weight",
    "attn_output.weight",
    "ffn_norm.weight",
    "ffn_gate.weight",
    "ffn_up.weight",
    "ffn_down.weight",
];
/// Tensors of the model.
const MODEL_TENSORS: [&str; 4] = [
    "token_embd.weight",
    "output_norm.weight",
    "output.weight",
    ROPE_DIVISORS,
];
/// Divisors of the rotary frequencies, as Llama 3.1's scaling amounts to.
const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// Numbers that change the arithmetic, with the value that does not.
const NEUTRAL_NUMBERS: [(&str, f64); 9] = [
    ("expert_count", 0.0),
    ("expert_used_count", 0.0),
    ("attention.sliding_window", 0.0),
    ("attention.clamp_kqv", 0.0),
    ("attention.max_alibi_bias", 0.0),
    ("embedding_scale", 1.0),
    ("residual_scale", 1.0),
    ("logit_scale", 1.0),
    ("rope.scaling.attn_factor", 1.0),
];

/// Where each field of the config comes from, for messages.
const ORIGINS: [(&str, &str); 9] = [
    ("hidden_size", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("num_hidden_layers", "block_count"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("max_position_embeddings", "context_length"),
    ("rope_theta", "rope.freq_base"),
];

impl GgufFile {
    /// The config that the metadata amounts to.
    ///
    /// # Errors
    /// An architecture, field or tensor that is missing, wrong, or not supported.
    pub(crate) fn config(&self) -> Result<ModelConfig, ModelError> {
        let mut config = ModelConfig::parse(&self.config_json()?).map_err(|e| self.origin(e))?;
        config.rope.is_interleaved = true;
        config.rope.frequency_divisors = self.rope_divisors(config.head_dim / 2)?;
        self.check_tensors(config.num_hidden_layers)?;
        Ok(config)
    }

    /// As [`GgufFile::config`], as the bytes of a `config.json`. It lacks what such a file cannot
    /// say: the order of q's and k's rows, and divisors of rotary frequencies.
    pub(crate) fn config_json(&self) -> Result<Vec<u8>, ModelError> {
        match self.string("general.architecture")? {
            Some("llama") => {}
            Some(other) => {
                return Err(ModelError::UnsupportedArchitecture {
                    name: other.to_owned(),
                    supported: "llama in GGUF files".to_owned(),
                });
            }
            None => return Err(self.field_error("general.architecture", "is missing")),
        }
        self.check_neutral()?;
        let embedding = self.tensor("token_embd.weight");
        let embedding = embedding.ok_or_else(|| ModelError::MissingTensor {
            name: "token_embd.weight".to_owned(),
        })?;
        let dtype = match WeightDtype::from_name(&embedding.dtype) {
            Some(WeightDtype::F32) => "float32",
            Some(WeightDtype::Bf16) => "bfloat16",
            _ => "float16",
        };
        let mut config = json!({
            "architectures": ["LlamaForCausalLM"],
            "hidden_act": "silu",
            "hidden_size": self.required("embedding_length")?,
            "intermediate_size": self.required("feed_forward_length")?,
            "num_hidden_layers": self.required("block_count")?,
            "num_attention_heads": self.required("attention.head_count")?,
            "max_position_embeddings": self.required("context_length")?,
            "rms_norm_eps": self.llama_f64("attention.layer_norm_rms_epsilon")?,
            "rope_theta": self.llama_f64("rope.freq_base")?,
            "vocab_size": embedding.shape[0],
            "tie_word_embeddings": self.tensor("output.weight").is_none(),
            "bos_token_id": self.u64("tokenizer.ggml.bos_token_id")?,
            "eos_token_id": self.eos_token_ids()?,
            "torch_dtype": dtype,
        });
        if config["rms_norm_eps"].is_null() {
            return Err(self.field_error("llama.attention.layer_norm_rms_epsilon", "is missing"));
        }
        for (field, key) in [
            ("num_key_value_heads", "attention.head_count_kv"),
            ("head_dim", "attention.key_length"),
        ] {
            if let Some(value) = self.llama_u64(key)? {
                config[field] = value.into();
            }
        }
        if let Some(factor) = self.linear_scaling()? {
            config["rope_scaling"] = json!({"rope_type": "linear", "factor": factor});
        }
        self.check_head_widths(&config)?;
        Ok(config.to_string().into_bytes())
    }

    fn llama_u64(&self, key: &str) -> Result<Option<u64>, ModelError> {
        self.u64(&format!("llama.{key}"))
    }

    fn llama_f64(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.f64(&format!("llama.{key}"))
    }

    fn required(&self, key: &str) -> Result<u64, ModelError> {
        let value = self.llama_u64(key)?;
        value.ok_or_else(|| self.field_error(&format!("llama.{key}"), "is missing"))
    }

    /// Ids that end a text: the tokenizer's end of sequence, turn and message.
    fn eos_token_ids(&self) -> Result<Vec<u64>, ModelError> {
        let mut ids = Vec::new();
        for name in ["eos", "eot", "eom"] {
            ids.extend(self.u64(&format!("tokenizer.ggml.{name}_token_id"))?);
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// The factor of a linear scaling of positions.
    fn linear_scaling(&self) -> Result<Option<f64>, ModelError> {
        match self.string("llama.rope.scaling.type")? {
            None => self.llama_f64("rope.scale_linear"),
            Some("none") => Ok(None),
            Some("linear") => match self.llama_f64("rope.scaling.factor")? {
                Some(factor) => Ok(Some(factor)),
                None => Err(self.field_error("llama.rope.scaling.factor", "is missing")),
            },
            Some(other) => {
                let reason = format!("= {other:?} is not supported (supported: none, linear)");
                Err(self.field_error("llama.rope.scaling.type", &reason))
            }
        }
    }

    /// Refuses arithmetic that the family's forward pass does not do.
    fn check_neutral(&self) -> Result<(), ModelError> {
        for (key, neutral) in NEUTRAL_NUMBERS {
            let value = self.llama_f64(key)?;
            if let Some(value) = value.filter(|&value| value != neutral) {
                let reason = format!("= {value} is not supported");
                return Err(self.field_error(&format!("llama.{key}"), &reason));
            }
        }
        for (key, neutral) in [("use_parallel_residual", false), ("attention.causal", true)] {
            let key = format!("llama.{key}");
            if self.bool(&key)?.is_some_and(|value| value != neutral) {
                return Err(self.field_error(&key, &format!("= {} is not supported", !neutral)));
            }
        }
        if let Some(scale) = self.get("llama.attention.scale") {
            let reason = format!("= {scale} is not supported");
            return Err(self.field_error("llama.attention.scale", &reason));
        }
        if self.u64("split.count")?.is_some_and(|count| count > 1) {
            let reason = "says that the model is in several files; merge them first \
                          (`llama-gguf-split --merge`)";
            return Err(self.field_error("split.count", reason));
        }
        Ok(())
    }

    /// Keys, values and rotary dimensions are as wide as a head.
    fn check_head_widths(&self, config: &Value) -> Result<(), ModelError> {
        let number = |field: &str| config[field].as_u64();
        let divided = || number("hidden_size")?.checked_div(number("num_attention_heads")?);
        let Some(head_dim) = number("head_dim").or_else(divided) else {
            return Ok(()); // The config's own check refuses it.
        };
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let Some(width) = self.llama_u64(key)?.filter(|&width| width != head_dim) {
                let reason = format!("= {width} is not supported: a head has {head_dim}");
                return Err(self.field_error(&format!("llama.{key}"), &reason));
            }
        }
        Ok(())
    }

    /// The divisors of rotary frequencies, or none.
    fn rope_divisors(&self, num_pairs: usize) -> Result<Vec<f32>, ModelError> {
        let Some(tensor) = self.tensor(ROPE_DIVISORS) else {
            return Ok(Vec::new());
        };
        let bytes = self.owner().bytes().get(tensor.range.clone());
        let (divisors, _) = bytes.unwrap_or_default().as_chunks::<4>();
        let divisors: Vec<f32> = divisors.iter().map(|&b| f32::from_le_bytes(b)).collect();
        let is_usable = |d: &f32| d.is_finite() && *d > 0.0;
        if tensor.dtype != "F32" || divisors.len() != num_pairs || !divisors.iter().all(is_usable) {
            let reason = format!("is not {num_pairs} positive numbers of type F32");
            return Err(self.field_error(ROPE_DIVISORS, &reason));
        }
        Ok(divisors)
    }

    /// Every tensor is one that the forward pass uses: a bias that nobody adds would be silently
    /// wrong logits.
    fn check_tensors(&self, num_layers: usize) -> Result<(), ModelError> {
        let is_known = |name: &str| {
            let in_layer = || {
                let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
                let layer = layer.parse::<usize>().ok()?;
                Some(layer < num_layers && LAYER_TENSORS.contains(&part))
            };
            MODEL_TENSORS.contains(&name) || in_layer().unwrap_or(false)
        };
        let names = self.tensors().iter().map(|tensor| tensor.name.as_str());
        match names.into_iter().find(|name| !is_known(name)) {
            None => Ok(()),
            Some(name) => {
                let reason = "is a tensor that the llama architecture does not use here";
                Err(self.field_error(name, reason))
            }
        }
    }

    /// Names the metadata field where an error names the field of the config made from it.
    fn origin(&self, error: ModelError) -> ModelError {
        match error {
            ModelError::Field {
                file: CONFIG_FILE,
                field,
                reason,
            } => {
                let origin = ORIGINS.iter().find(|(known, _)| *known == field);
                let key = match field.as_str() {
                    "bos_token_id" | "eos_token_id" => format!("tokenizer.ggml.{field}"),
                    _ => origin.map_or(field.clone(), |(_, key)| format!("llama.{key}")),
                };
                self.field_error(&key, &reason)
            }
            other => other,
        }
    }
}
