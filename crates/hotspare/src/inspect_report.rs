//! What `hotspare inspect` says, for people and as JSON.
//!
//! Invariant: both say the same; in JSON every size is in bytes.

use std::fmt;

use hotspare_model::weights::WeightDtype;
use hotspare_model::{ModelConfig, kv_bytes_per_block};
use serde_json::{Value, json};

use crate::hub_progress::size;

/// A model.
pub(crate) struct Report {
    /// As it was named.
    pub(crate) model: String,
    /// Where it is.
    pub(crate) path: String,
    /// Of a model of the hub.
    pub(crate) commit: Option<String>,
    pub(crate) config: ModelConfig,
    pub(crate) num_parameters: u64,
    /// `None` for a config without weights.
    pub(crate) weights: Option<WeightsReport>,
    /// `None` for a model without a tokenizer, an error for one whose cannot be used.
    pub(crate) text: Result<Option<TextReport>, String>,
    /// Whether the CPU backend can run it.
    pub(crate) cpu: Result<(), String>,
    pub(crate) content_hash: Option<String>,
    pub(crate) memory: Vec<Memory>,
}

/// What the weight files hold.
pub(crate) struct WeightsReport {
    pub(crate) num_tensors: usize,
    pub(crate) num_bytes: u64,
    /// Elements of each dtype, most first.
    pub(crate) by_dtype: Vec<(String, u64)>,
}

impl WeightsReport {
    pub(crate) fn num_elements(&self) -> u64 {
        self.by_dtype
            .iter()
            .map(|(_, num_elements)| num_elements)
            .sum()
    }
}

/// What stands between text and tokens.
pub(crate) struct TextReport {
    pub(crate) num_tokens: usize,
    pub(crate) has_chat_template: bool,
    pub(crate) temperature: f32,
    pub(crate) top_p: f32,
    pub(crate) top_k: u32,
    pub(crate) eos_token_ids: Vec<u32>,
}

/// Weights and KV cache at one context length.
pub(crate) struct Memory {
    pub(crate) context_len: usize,
    /// By number of sequences.
    pub(crate) num_bytes: Vec<(usize, u64)>,
}

impl Report {
    /// The KV dtype that `auto` takes, and the bytes of a token in it.
    fn kv(&self) -> (&'static str, usize) {
        let (name, dtype) = match self.config.dtype.as_deref() {
            Some("bfloat16" | "float16") => ("float16", WeightDtype::F16),
            _ => ("float32", WeightDtype::F32),
        };
        (name, kv_bytes_per_block(&self.config, 1, dtype))
    }

    /// How many layers see a window only.
    fn num_window_layers(&self) -> usize {
        let layers = self.config.layers.iter();
        layers
            .filter(|layer| layer.sliding_window.is_some())
            .count()
    }

    /// One JSON object.
    pub(crate) fn to_json(&self) -> String {
        let config = &self.config;
        let (kv_dtype, kv_bytes_per_token) = self.kv();
        let weights = self.weights.as_ref().map(|weights| {
            let by_dtype = weights.by_dtype.iter();
            let by_dtype = by_dtype.map(|(dtype, n)| (dtype.clone(), Value::from(*n)));
            json!({
                "num_tensors": weights.num_tensors, "num_bytes": weights.num_bytes,
                "num_elements_by_dtype": by_dtype.collect::<serde_json::Map<_, _>>(),
            })
        });
        let text = match &self.text {
            Ok(None) => Value::Null,
            Err(error) => json!({"error": error}),
            Ok(Some(text)) => json!({
                "num_tokens": text.num_tokens, "has_chat_template": text.has_chat_template,
                "temperature": text.temperature, "top_p": text.top_p, "top_k": text.top_k,
                "eos_token_ids": text.eos_token_ids,
            }),
        };
        let cpu = match &self.cpu {
            Ok(()) => json!({"supported": true}),
            Err(reason) => json!({"supported": false, "reason": reason}),
        };
        let memory = self.memory.iter().flat_map(|row| {
            row.num_bytes.iter().map(|(num_seqs, num_bytes)| {
                json!({
                    "context_len": row.context_len, "num_seqs": num_seqs, "num_bytes": num_bytes,
                })
            })
        });
        let report = json!({
            "model": self.model, "path": self.path, "commit": self.commit,
            "architecture": format!("{:?}", config.architecture),
            "num_parameters": self.num_parameters, "weights": weights,
            "num_layers": config.num_hidden_layers, "num_window_layers": self.num_window_layers(),
            "hidden_size": config.hidden_size, "vocab_size": config.vocab_size,
            "num_attention_heads": config.num_attention_heads,
            "num_key_value_heads": config.num_key_value_heads, "head_dim": config.head_dim,
            "max_context_len": config.max_context_len(), "dtype": config.dtype,
            "kv_cache": {"dtype": kv_dtype, "num_bytes_per_token": kv_bytes_per_token},
            "text": text,
            "backends": {"cpu": cpu, "cuda": {
                "supported": false, "reason": "this build has no CUDA backend",
            }},
            "content_hash": self.content_hash, "memory": memory.collect::<Vec<_>>(),
            "unknown_fields": config.unknown_fields,
        });
        format!("{report:#}")
    }

    /// What people read, each with its name.
    fn lines(&self) -> Vec<(&'static str, String)> {
        let (kv_dtype, kv_bytes) = self.kv();
        let mut lines = vec![("model", self.model.clone())];
        if self.path != self.model {
            lines.push(("path", self.path.clone()));
        }
        lines.extend(self.commit.clone().map(|commit| ("commit", commit)));
        lines.extend(self.model_lines());
        lines.extend(self.text_lines());
        let cpu = match &self.cpu {
            Ok(()) => "yes".to_owned(),
            Err(reason) => format!("no: {reason}"),
        };
        let cuda = "no: this build has no CUDA backend";
        let kv_cache = format!("{} a token ({kv_dtype})", size(kv_bytes as u64));
        lines.extend([
            ("runs on cpu", cpu),
            ("runs on cuda", cuda.to_owned()),
            ("KV cache", kv_cache),
        ]);
        lines.extend(self.content_hash.clone().map(|hash| ("content hash", hash)));
        if !self.config.unknown_fields.is_empty() {
            lines.push(("not known", self.config.unknown_fields.join(", ")));
        }
        lines
    }

    fn model_lines(&self) -> Vec<(&'static str, String)> {
        let config = &self.config;
        let window = match self.num_window_layers() {
            0 => String::new(),
            n => format!(" ({n} with a window)"),
        };
        let weights = match &self.weights {
            None => "none: a shape for --load-format dummy".to_owned(),
            Some(weights) => {
                let part = |(dtype, n): &(String, u64)| format!("{dtype} {}", count(*n));
                let parts: Vec<_> = weights.by_dtype.iter().map(part).collect();
                let size = size(weights.num_bytes);
                format!(
                    "{size} in {} tensors: {}",
                    weights.num_tensors,
                    parts.join(", ")
                )
            }
        };
        vec![
            ("architecture", format!("{:?}", config.architecture)),
            ("parameters", count(self.num_parameters)),
            ("weights", weights),
            (
                "layers",
                format!(
                    "{}{window}, hidden {}, {} heads of {}, {} for keys and values",
                    config.num_hidden_layers,
                    config.hidden_size,
                    config.num_attention_heads,
                    config.head_dim,
                    config.num_key_value_heads
                ),
            ),
            (
                "context",
                format!("{} tokens", count(config.max_context_len() as u64)),
            ),
            (
                "vocabulary",
                format!("{} ids", count(config.vocab_size as u64)),
            ),
        ]
    }

    fn text_lines(&self) -> Vec<(&'static str, String)> {
        let text = match &self.text {
            Ok(Some(text)) => text,
            Ok(None) => return vec![("tokenizer", "none".to_owned())],
            Err(error) => return vec![("tokenizer", format!("cannot be used: {error}"))],
        };
        let tokens = format!("{} tokens", count(text.num_tokens as u64));
        let template = match text.has_chat_template {
            true => "yes",
            false => "none",
        };
        let sampling = format!(
            "temperature {}, top_p {}, top_k {}, ends with {:?}",
            text.temperature, text.top_p, text.top_k, text.eos_token_ids
        );
        vec![
            ("tokenizer", tokens),
            ("chat template", template.to_owned()),
            ("sampling", sampling),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.lines() {
            writeln!(f, "{name:<14}{value}")?;
        }
        writeln!(
            f,
            "\nMemory of weights and KV cache, by context and sequences at a time:"
        )?;
        let header = self
            .memory
            .first()
            .map(|row| &row.num_bytes[..])
            .unwrap_or_default();
        write!(f, "{:>10}", "")?;
        for (num_seqs, _) in header {
            write!(f, "{num_seqs:>12}")?;
        }
        writeln!(f)?;
        for row in &self.memory {
            write!(f, "{:>10}", count(row.context_len as u64))?;
            for (_, num_bytes) in &row.num_bytes {
                write!(f, "{:>12}", size(*num_bytes))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A number with commas.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn numbers_have_commas() {
        let shown = [0, 12, 999, 1000, 1_234_567].map(count);
        assert_eq!(shown, ["0", "12", "999", "1,000", "1,234,567"]);
    }
}
