//! What a GGUF file's metadata means, said as a `config.json`.
//!
//! Weights stay as they lie in the file: where their rows are ordered for rotary embeddings of
//! neighbouring dimensions, the rotation follows them; where 1 is added to Gemma's norms already,
//! nothing is added again.
//!
//! Invariant: a field or tensor that would change the arithmetic is read or refused by name.

use serde_json::{Map, Value, json};

use super::{GgufArchitecture, GgufFile, check};
use crate::config::CONFIG_FILE;
use crate::weights::WeightDtype;
use crate::{ModelConfig, ModelError};

/// Where each field of the config comes from, for messages.
const ORIGINS: [(&str, &str); 18] = [
    ("hidden_size", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("moe_intermediate_size", "expert_feed_forward_length"),
    ("num_hidden_layers", "block_count"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("max_position_embeddings", "context_length"),
    ("rope_theta", "rope.freq_base"),
    ("rope_local_base_freq", "rope.freq_base_swa"),
    ("sliding_window", "attention.sliding_window"),
    ("num_local_experts", "expert_count"),
    ("num_experts_per_tok", "expert_used_count"),
    ("attn_logit_softcapping", "attn_logit_softcapping"),
    ("final_logit_softcapping", "final_logit_softcapping"),
    ("partial_rotary_factor", "rope.dimension_count"),
    (
        "rope_scaling.original_max_position_embeddings",
        "rope.scaling.original_context_length",
    ),
];

/// Tokens that end a text or a turn whenever a vocabulary has them as marks (control tokens or user
/// defined ones), as llama.cpp holds too.
const END_TOKENS: [&str; 8] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
];

impl GgufFile {
    /// The config that the metadata amounts to.
    ///
    /// # Errors
    /// An architecture, field or tensor that is missing, wrong, or not supported.
    pub(crate) fn config(&self) -> Result<ModelConfig, ModelError> {
        let architecture = GgufArchitecture::parse(self)?;
        let config = ModelConfig::parse(&self.config_json()?);
        let mut config = config.map_err(|e| self.origin(architecture, e))?;
        config.rope.is_interleaved = architecture.is_interleaved();
        let num_pairs = config.rope.rotary_dim / 2;
        config.rope.frequency_divisors = self.rope_divisors(architecture, num_pairs)?;
        let decoder = &mut config.decoder;
        decoder.norm_offset = 0.0;
        let has_bias = |part: &str| self.tensor(&format!("blk.0.{part}.bias")).is_some();
        // llama.cpp takes q, k and v as one tensor in files of every architecture.
        decoder.has_fused_qkv |= self.tensor("blk.0.attn_qkv.weight").is_some();
        decoder.has_qkv_bias = has_bias("attn_q") || has_bias("attn_qkv");
        decoder.has_attention_out_bias = has_bias("attn_output");
        decoder.has_mlp_bias = has_bias("ffn_up");
        check::check_tensors(self, &config)?;
        Ok(config)
    }

    /// As [`GgufFile::config`], as the bytes of a `config.json`. It lacks what such a file cannot
    /// say: the order of q's and k's rows, divisors of rotary frequencies, whether norms have their
    /// 1 added, which biases there are.
    pub(crate) fn config_json(&self) -> Result<Vec<u8>, ModelError> {
        let architecture = GgufArchitecture::parse(self)?;
        check::check_fields(self, architecture)?;
        let reader = Reader {
            file: self,
            architecture,
        };
        let config = reader.config()?;
        Ok(Value::Object(config).to_string().into_bytes())
    }

    /// Ids that end a text: the tokenizer's end of sequence, turn and message, and tokens that are
    /// known to mean that, which many files do not list.
    fn eos_token_ids(&self, vocab_size: usize) -> Result<Vec<u64>, ModelError> {
        const MARKERS: [i64; 2] = [3, 4];
        const MAX_NUM_TOKENS: usize = 1 << 20;
        let mut ids = Vec::new();
        for name in ["eos", "eot", "eom"] {
            ids.extend(self.u64(&format!("tokenizer.ggml.{name}_token_id"))?);
        }
        let key = "tokenizer.ggml.tokens";
        if let Some(super::GgufValue::Array(tokens)) = self.get(key)
            && tokens.len() > MAX_NUM_TOKENS
        {
            let reason = format!("has {} tokens, more than {MAX_NUM_TOKENS}", tokens.len());
            return Err(self.field_error(key, &reason));
        }
        let tokens = self.strings(key)?.unwrap_or_default();
        let types = self
            .numbers("tokenizer.ggml.token_type")?
            .unwrap_or_default();
        for (id, token) in tokens.into_iter().enumerate().take(vocab_size) {
            let kind = types.get(id).map(|&kind| kind as i64);
            if END_TOKENS.contains(&token) && kind.is_some_and(|kind| MARKERS.contains(&kind)) {
                ids.push(id as u64);
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Names the metadata field where an error names the field of the config made from it.
    fn origin(&self, architecture: GgufArchitecture, error: ModelError) -> ModelError {
        let (field, reason) = match error {
            ModelError::Field {
                file: CONFIG_FILE,
                field,
                reason,
            } => (field, reason),
            ModelError::UnsupportedField { field, value } => {
                (field, format!("= {value} is not supported"))
            }
            other => return other,
        };
        let origin = ORIGINS.iter().find(|(known, _)| *known == field);
        let key = match field.as_str() {
            "bos_token_id" | "eos_token_id" => format!("tokenizer.ggml.{field}"),
            _ => origin.map_or(field.clone(), |(_, key)| {
                format!("{}.{key}", architecture.name())
            }),
        };
        self.field_error(&key, &reason)
    }
}

/// Reads the fields of one architecture.
struct Reader<'a> {
    file: &'a GgufFile,
    architecture: GgufArchitecture,
}

impl Reader<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture.name())
    }

    fn u64(&self, name: &str) -> Result<Option<u64>, ModelError> {
        self.file.u64(&self.key(name))
    }

    fn f64(&self, name: &str) -> Result<Option<f64>, ModelError> {
        self.file.f64(&self.key(name))
    }

    fn required(&self, name: &str) -> Result<u64, ModelError> {
        let value = self.u64(name)?;
        value.ok_or_else(|| self.error(name, "is missing"))
    }

    fn error(&self, name: &str, reason: &str) -> ModelError {
        self.file.field_error(&self.key(name), reason)
    }

    fn config(&self) -> Result<Map<String, Value>, ModelError> {
        let file = self.file;
        let embedding = file.tensor("token_embd.weight");
        let embedding = embedding.ok_or_else(|| ModelError::MissingTensor {
            name: "token_embd.weight".to_owned(),
        })?;
        let dtype = match WeightDtype::from_name(&embedding.dtype) {
            Some(WeightDtype::F32) => "float32",
            Some(WeightDtype::Bf16) => "bfloat16",
            _ => "float16",
        };
        let Some(eps) = self.f64("attention.layer_norm_rms_epsilon")? else {
            return Err(self.error("attention.layer_norm_rms_epsilon", "is missing"));
        };
        let heads = self.required("attention.head_count")?;
        let kv_heads = self.u64("attention.head_count_kv")?.unwrap_or(heads);
        let mut config = Map::new();
        for (field, value) in [
            ("hidden_size", self.required("embedding_length")?.into()),
            ("intermediate_size", self.feed_forward_length()?.into()),
            ("num_hidden_layers", self.required("block_count")?.into()),
            ("num_attention_heads", heads.into()),
            ("num_key_value_heads", kv_heads.into()),
            (
                "max_position_embeddings",
                self.required("context_length")?.into(),
            ),
            ("rms_norm_eps", eps.into()),
            ("rope_theta", json!(self.f64("rope.freq_base")?)),
            ("vocab_size", embedding.shape[0].into()),
            (
                "tie_word_embeddings",
                file.tensor("output.weight").is_none().into(),
            ),
            (
                "bos_token_id",
                json!(file.u64("tokenizer.ggml.bos_token_id")?),
            ),
            (
                "eos_token_id",
                json!(file.eos_token_ids(embedding.shape[0])?),
            ),
            ("torch_dtype", dtype.into()),
        ] {
            config.insert(field.to_owned(), value);
        }
        let head_dim = self.head_dim(&mut config, heads)?;
        self.rotary(&mut config, head_dim)?;
        let has_experts = self.experts(&mut config)?;
        let has_window = self.window(&mut config)?;
        if self.architecture.is_gemma() {
            self.gemma(&mut config, head_dim)?;
        }
        let class = self.architecture.class(has_experts, has_window);
        config.insert("architectures".to_owned(), json!([class]));
        Ok(config)
    }

    /// Files of experts alone may lack it: nothing then has that width.
    fn feed_forward_length(&self) -> Result<u64, ModelError> {
        match self.u64("feed_forward_length")? {
            None | Some(0) if self.architecture == GgufArchitecture::Qwen3Moe => {
                self.required("expert_feed_forward_length")
            }
            Some(length) => Ok(length),
            None => self.required("feed_forward_length"),
        }
    }

    /// Keys and values are as wide as a head, in layers of every kind. `None`: the config's own
    /// check refuses it.
    fn head_dim(
        &self,
        config: &mut Map<String, Value>,
        heads: u64,
    ) -> Result<Option<u64>, ModelError> {
        let hidden = self.required("embedding_length")?;
        let divided = || {
            hidden
                .checked_div(heads)
                .filter(|_| hidden.is_multiple_of(heads))
        };
        let Some(head_dim) = self.u64("attention.key_length")?.or_else(divided) else {
            return Ok(None);
        };
        config.insert("head_dim".to_owned(), head_dim.into());
        if head_dim == 0 {
            return Ok(None);
        }
        for key in ["value_length", "key_length_swa", "value_length_swa"] {
            let key = format!("attention.{key}");
            if let Some(width) = self.u64(&key)?.filter(|&width| width != head_dim) {
                let reason = format!("= {width} is not supported: a head has {head_dim}");
                return Err(self.error(&key, &reason));
            }
        }
        Ok(Some(head_dim))
    }

    fn rotary(
        &self,
        config: &mut Map<String, Value>,
        head_dim: Option<u64>,
    ) -> Result<(), ModelError> {
        let Some(head_dim) = head_dim else {
            return Ok(());
        };
        let is_partial = self.architecture == GgufArchitecture::Phi3;
        for key in ["rope.dimension_count", "rope.dimension_count_swa"] {
            let Some(width) = self.u64(key)?.filter(|&width| width != head_dim) else {
                continue;
            };
            if !is_partial || width == 0 || width > head_dim || key.ends_with("swa") {
                let reason = format!("= {width} is not supported: a head has {head_dim}");
                return Err(self.error(key, &reason));
            }
            // The half makes sure that rounding down gives the width.
            let factor = (width as f64 + 0.5) / head_dim as f64;
            config.insert("partial_rotary_factor".to_owned(), factor.into());
        }
        let rotary_dim = self.u64("rope.dimension_count")?.unwrap_or(head_dim);
        let num_pairs = usize::try_from(rotary_dim / 2).unwrap_or(usize::MAX);
        let scaling = self.file.rope_scaling(self.architecture, num_pairs)?;
        config.insert("rope_scaling".to_owned(), scaling);
        Ok(())
    }

    /// Whether there are experts.
    fn experts(&self, config: &mut Map<String, Value>) -> Result<bool, ModelError> {
        let num_experts = self.u64("expert_count")?.unwrap_or(0);
        let num_used = self.u64("expert_used_count")?.unwrap_or(0);
        if !self.architecture.may_have_experts() {
            for (key, count) in [
                ("expert_count", num_experts),
                ("expert_used_count", num_used),
            ] {
                if count != 0 {
                    return Err(self.error(key, &format!("= {count} is not supported")));
                }
            }
            return Ok(false);
        }
        let is_qwen = self.architecture == GgufArchitecture::Qwen3Moe;
        if num_experts == 0 && !is_qwen {
            return match num_used {
                0 => Ok(false),
                _ => Err(self.error("expert_used_count", "is there without expert_count")),
            };
        }
        config.insert("num_local_experts".to_owned(), num_experts.into());
        config.insert("num_experts_per_tok".to_owned(), num_used.into());
        if is_qwen {
            let width = match self.u64("expert_feed_forward_length")? {
                Some(width) if width > 0 => width,
                _ => self
                    .feed_forward_length()?
                    .checked_div(num_used)
                    .unwrap_or(0),
            };
            let normalises = self.file.bool(&self.key("expert_weights_norm"))?;
            config.insert("moe_intermediate_size".to_owned(), width.into());
            config.insert(
                "norm_topk_prob".to_owned(),
                normalises.unwrap_or(true).into(),
            );
        }
        Ok(true)
    }

    /// Whether layers have a window. One of 0 is none.
    fn window(&self, config: &mut Map<String, Value>) -> Result<bool, ModelError> {
        let key = "attention.sliding_window";
        let default = (self.architecture == GgufArchitecture::Gemma2).then_some(4096);
        let window = self.u64(key)?.or(default).filter(|&window| window > 0);
        if window.is_some() && !self.architecture.may_have_window() {
            let reason = format!("= {} is not supported", window.unwrap_or(0));
            return Err(self.error(key, &reason));
        }
        config.insert("sliding_window".to_owned(), json!(window));
        Ok(window.is_some())
    }

    /// What Gemma's configs have beside the others'.
    fn gemma(
        &self,
        config: &mut Map<String, Value>,
        head_dim: Option<u64>,
    ) -> Result<(), ModelError> {
        let is_2 = self.architecture == GgufArchitecture::Gemma2;
        let num_layers = self.required("block_count")?;
        let has_window = !config["sliding_window"].is_null();
        let sliding = self.sliding_layers(num_layers, if is_2 { 2 } else { 6 })?;
        let kind = |is_sliding| match is_sliding && has_window {
            true => "sliding_attention",
            false => "full_attention",
        };
        let kinds: Vec<_> = sliding.into_iter().map(kind).collect();
        config.insert("layer_types".to_owned(), json!(kinds));
        // llama.cpp knows the largest of each generation by its number of layers; they divide by
        // the width that a head would have if heads shared the hidden one.
        let is_largest = num_layers == if is_2 { 46 } else { 62 };
        let shared = || {
            let hidden = self.required("embedding_length")?;
            Ok::<_, ModelError>(hidden.checked_div(self.required("attention.head_count")?))
        };
        let scalar = if is_largest { shared()? } else { head_dim };
        config.insert("query_pre_attn_scalar".to_owned(), json!(scalar));
        for name in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if let Some(cap) = self.f64(name)?.filter(|&cap| cap != 0.0 || is_2) {
                config.insert(name.to_owned(), cap.into());
            }
        }
        if !is_2 {
            let theta = self.f64("rope.freq_base_swa")?.unwrap_or(1e4);
            config.insert("rope_local_base_freq".to_owned(), theta.into());
        }
        Ok(())
    }

    /// Which layers have the window: `attention.sliding_window_pattern`, a list or a period whose
    /// last layer has none.
    fn sliding_layers(&self, num_layers: u64, period: u64) -> Result<Vec<bool>, ModelError> {
        const MAX_NUM_LAYERS: u64 = 1 << 16;
        let num_layers = num_layers.min(MAX_NUM_LAYERS);
        let key = self.key("attention.sliding_window_pattern");
        let period = match self.file.get(&key) {
            Some(super::GgufValue::Array(_)) => {
                let list = self.file.bools(&key)?.unwrap_or_default();
                if list.len() as u64 != num_layers {
                    let reason = format!("has {} values for {num_layers} layers", list.len());
                    return Err(self.file.field_error(&key, &reason));
                }
                return Ok(list);
            }
            _ => self.file.u64(&key)?.unwrap_or(period),
        };
        let is_sliding = |layer: u64| layer.checked_rem(period).is_none_or(|at| at + 1 < period);
        Ok((0..num_layers).map(is_sliding).collect())
    }
}
