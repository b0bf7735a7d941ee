//! The fields and tensors of a model's GGUF file, as llama.cpp's converter writes them.
//!
//! Facts from `convert_hf_to_gguf.py` and its modules (llama.cpp, 2026): which families have q and
//! k permuted, Gemma's 1 added to norms, experts stacked, Llama 3's and Phi-3's frequency factors
//! as tensors.
//!
//! Invariant: every tensor says which weights it is made of.

use std::f64::consts::PI;

use super::{GgmlType, GgufModel, GgufTensor, GgufWriter};

/// What a tensor is made of, by transformers' names.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A weight as it is.
    Copy(String),
    /// A norm's weight plus 1.
    PlusOne(String),
    /// Rows of so many heads, in the order for rotating neighbours.
    Permuted(String, usize),
    /// The experts' weights, one after the other.
    Stacked(Vec<String>),
    /// These numbers.
    Values(Vec<f32>),
}

/// A tensor and its source.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorPlan {
    /// The tensor, of type F32.
    pub tensor: GgufTensor,
    /// What it is made of.
    pub source: Source,
}

/// A file to be: its fields but for the tokenizer's, and its tensors.
#[derive(Clone, Debug)]
pub struct GgufLayout {
    /// The fields; it has no tensors yet.
    pub writer: GgufWriter,
    /// The tensors, all F32.
    pub tensors: Vec<TensorPlan>,
}

impl GgufLayout {
    /// What the converter makes of `model`.
    ///
    /// # Errors
    /// A field of the config that is missing.
    pub fn new(model: &GgufModel) -> Result<Self, String> {
        let mut layout = Self {
            writer: GgufWriter::default(),
            tensors: Vec::new(),
        };
        layout.fields(model)?;
        layout.rope_fields(model)?;
        let (vocab, hidden) = (model.usize("vocab_size")?, model.usize("hidden_size")?);
        layout.copy(
            "token_embd.weight",
            "model.embed_tokens.weight",
            &[vocab, hidden],
        );
        for layer in 0..model.usize("num_hidden_layers")? {
            layout.attention(model, layer)?;
            layout.mlp(model, layer)?;
        }
        layout.norm(model, "output_norm.weight", "model.norm.weight", hidden);
        if !model.is_tied() {
            layout.copy("output.weight", "lm_head.weight", &[vocab, hidden]);
        }
        layout.rope_tensors(model)?;
        Ok(layout)
    }

    fn fields(&mut self, model: &GgufModel) -> Result<(), String> {
        let arch = model.architecture;
        let w = &mut self.writer;
        w.string("general.architecture", arch);
        w.string("general.type", "model");
        let mut number = |key: &str, value: usize| w.u32(&format!("{arch}.{key}"), value as u32);
        number("context_length", model.usize("max_position_embeddings")?);
        number("embedding_length", model.usize("hidden_size")?);
        number("block_count", model.usize("num_hidden_layers")?);
        number("feed_forward_length", model.usize("intermediate_size")?);
        number("attention.head_count", model.usize("num_attention_heads")?);
        number("attention.head_count_kv", model.num_kv_heads()?);
        if model.optional("head_dim").is_some() || arch.starts_with("gemma") {
            number("attention.key_length", model.head_dim()?);
            number("attention.value_length", model.head_dim()?);
        }
        if matches!(arch, "llama" | "smollm3") {
            number("vocab_size", model.usize("vocab_size")?);
            number("rope.dimension_count", model.head_dim()?);
        }
        if arch == "phi3" {
            number("rope.dimension_count", model.rotary_dim()?);
        }
        if let Some((num_experts, num_used)) = model.experts() {
            number("expert_count", num_experts);
            number("expert_used_count", num_used);
        }
        if arch == "qwen3moe" {
            number(
                "expert_feed_forward_length",
                model.usize("moe_intermediate_size")?,
            );
        }
        // The converter leaves out Mistral's: llama.cpp does not look for it.
        let has_window = matches!(arch, "llama" | "phi3" | "gemma2" | "gemma3");
        if let Some(window) = model.window().filter(|_| has_window) {
            number("attention.sliding_window", window);
        }
        let eps = model.get("rms_norm_eps").as_f64().unwrap_or(1e-6);
        w.f32(
            &format!("{arch}.attention.layer_norm_rms_epsilon"),
            eps as f32,
        );
        for name in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if let Some(cap) = model
                .get(name)
                .as_f64()
                .filter(|_| arch.starts_with("gemma"))
            {
                w.f32(&format!("{arch}.{name}"), cap as f32);
            }
        }
        Ok(())
    }

    fn rope_fields(&mut self, model: &GgufModel) -> Result<(), String> {
        let (arch, rope) = (model.architecture, model.rope());
        let w = &mut self.writer;
        if let Some(theta) = model.theta(false) {
            w.f32(&format!("{arch}.rope.freq_base"), theta as f32);
        }
        if let Some(theta) = model.theta(true) {
            w.f32(&format!("{arch}.rope.freq_base_swa"), theta as f32);
        }
        let key = |name: &str| format!("{arch}.rope.scaling.{name}");
        let kind = rope["rope_type"].as_str().or(rope["type"].as_str());
        let outer = model.get("original_max_position_embeddings");
        let original = rope["original_max_position_embeddings"]
            .as_u64()
            .or(outer.as_u64());
        if matches!(kind, Some("linear" | "yarn")) {
            w.string(&key("type"), kind.unwrap_or_default());
            let factor = rope["factor"].as_f64().ok_or("`factor` is missing")?;
            w.f32(&key("factor"), factor as f32);
        }
        if let Some(original) = original.filter(|_| kind == Some("yarn") || arch == "phi3") {
            w.u32(&key("original_context_length"), original as u32);
        }
        if kind == Some("yarn") {
            for (name, field) in [
                ("yarn_attn_factor", "attention_factor"),
                ("yarn_beta_fast", "beta_fast"),
                ("yarn_beta_slow", "beta_slow"),
            ] {
                if let Some(value) = rope[field].as_f64() {
                    w.f32(&key(name), value as f32);
                }
            }
        }
        if matches!(kind, Some("longrope" | "su")) {
            let original = original.ok_or("`original_max_position_embeddings` is missing")?;
            let scale = model.usize("max_position_embeddings")? as f64 / original as f64;
            let factor = match scale > 1.0 {
                true => (1.0 + scale.ln() / (original as f64).ln()).sqrt(),
                false => 1.0,
            };
            w.f32(&key("attn_factor"), factor as f32);
        }
        Ok(())
    }

    fn rope_tensors(&mut self, model: &GgufModel) -> Result<(), String> {
        let rope = model.rope();
        for (name, field) in [
            ("rope_factors_long.weight", "long_factor"),
            ("rope_factors_short.weight", "short_factor"),
        ] {
            if let Some(factors) = rope[field].as_array() {
                let factors = factors.iter().filter_map(|f| f.as_f64()).map(|f| f as f32);
                self.values(name, factors.collect());
            }
        }
        if rope["rope_type"] != "llama3" {
            return Ok(());
        }
        let number = |name: &str| {
            let value = rope[name].as_f64();
            value.ok_or_else(|| format!("`{name}` is missing"))
        };
        let (factor, original) = (
            number("factor")?,
            number("original_max_position_embeddings")?,
        );
        let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
        let (theta, dim) = (model.theta(false).unwrap_or(1e4), model.head_dim()?);
        let divisor = |pair: usize| {
            let wavelength = 2.0 * PI * theta.powf((2 * pair) as f64 / dim as f64);
            if wavelength < original / high {
                1.0
            } else if wavelength > original / low {
                factor as f32
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
            }
        };
        self.values("rope_freqs.weight", (0..dim / 2).map(divisor).collect());
        Ok(())
    }

    fn attention(&mut self, model: &GgufModel, layer: usize) -> Result<(), String> {
        let hidden = model.usize("hidden_size")?;
        let (heads, kv_heads) = (model.usize("num_attention_heads")?, model.num_kv_heads()?);
        let head_dim = model.head_dim()?;
        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        let ours = |part: &str| format!("blk.{layer}.{part}");
        let theirs = |part: &str| format!("model.layers.{layer}.{part}");
        let norm = theirs("input_layernorm.weight");
        self.norm(model, &ours("attn_norm.weight"), &norm, hidden);
        if model.architecture == "phi3" {
            let qkv = theirs("self_attn.qkv_proj.weight");
            self.copy(&ours("attn_qkv.weight"), &qkv, &[q + 2 * kv, hidden]);
        } else {
            let has_bias = model.architecture == "qwen2" || *model.get("attention_bias") == true;
            let is_permuted = matches!(model.architecture, "llama" | "smollm3");
            for (part, theirs_part, width, heads) in [
                ("attn_q", "self_attn.q_proj", q, Some(heads)),
                ("attn_k", "self_attn.k_proj", kv, Some(kv_heads)),
                ("attn_v", "self_attn.v_proj", kv, None),
            ] {
                let heads = heads.filter(|_| is_permuted);
                let shapes = [("weight", vec![width, hidden]), ("bias", vec![width])];
                for (kind, shape) in shapes.iter().take(1 + usize::from(has_bias)) {
                    let source = theirs(&format!("{theirs_part}.{kind}"));
                    let source = match heads {
                        Some(heads) => Source::Permuted(source, heads),
                        None => Source::Copy(source),
                    };
                    self.add(&ours(&format!("{part}.{kind}")), shape, source);
                }
            }
            if has_bias && model.architecture != "qwen2" {
                let bias = theirs("self_attn.o_proj.bias");
                self.copy(&ours("attn_output.bias"), &bias, &[hidden]);
            }
        }
        if matches!(model.architecture, "qwen3" | "qwen3moe" | "gemma3") {
            for part in ["q", "k"] {
                let norm = theirs(&format!("self_attn.{part}_norm.weight"));
                self.norm(
                    model,
                    &ours(&format!("attn_{part}_norm.weight")),
                    &norm,
                    head_dim,
                );
            }
        }
        let out = theirs("self_attn.o_proj.weight");
        self.copy(&ours("attn_output.weight"), &out, &[hidden, q]);
        Ok(())
    }

    fn mlp(&mut self, model: &GgufModel, layer: usize) -> Result<(), String> {
        let (hidden, width) = (
            model.usize("hidden_size")?,
            model.usize("intermediate_size")?,
        );
        let ours = |part: &str| format!("blk.{layer}.{part}.weight");
        let theirs = |part: &str| format!("model.layers.{layer}.{part}.weight");
        let norms: &[(&str, &str)] = match model.architecture {
            "gemma2" | "gemma3" => &[
                ("post_attention_norm", "post_attention_layernorm"),
                ("ffn_norm", "pre_feedforward_layernorm"),
                ("post_ffw_norm", "post_feedforward_layernorm"),
            ],
            _ => &[("ffn_norm", "post_attention_layernorm")],
        };
        for (part, theirs_part) in norms {
            self.norm(model, &ours(part), &theirs(theirs_part), hidden);
        }
        if let Some((num_experts, _)) = model.experts() {
            let (block, parts, width) = match model.architecture {
                "llama" => ("block_sparse_moe", ["w1", "w3", "w2"], width),
                _ => (
                    "mlp",
                    ["gate_proj", "up_proj", "down_proj"],
                    model.usize("moe_intermediate_size")?,
                ),
            };
            let router = theirs(&format!("{block}.gate"));
            self.copy(&ours("ffn_gate_inp"), &router, &[num_experts, hidden]);
            for (part, name, shape) in [
                ("ffn_gate_exps", parts[0], [num_experts, width, hidden]),
                ("ffn_up_exps", parts[1], [num_experts, width, hidden]),
                ("ffn_down_exps", parts[2], [num_experts, hidden, width]),
            ] {
                let expert = |index| theirs(&format!("{block}.experts.{index}.{name}"));
                let experts = (0..num_experts).map(expert).collect();
                self.add(&ours(part), &shape, Source::Stacked(experts));
            }
            return Ok(());
        }
        if model.architecture == "phi3" {
            self.copy(
                &ours("ffn_up"),
                &theirs("mlp.gate_up_proj"),
                &[2 * width, hidden],
            );
        } else {
            self.copy(
                &ours("ffn_gate"),
                &theirs("mlp.gate_proj"),
                &[width, hidden],
            );
            self.copy(&ours("ffn_up"), &theirs("mlp.up_proj"), &[width, hidden]);
        }
        self.copy(
            &ours("ffn_down"),
            &theirs("mlp.down_proj"),
            &[hidden, width],
        );
        Ok(())
    }

    fn norm(&mut self, model: &GgufModel, name: &str, theirs: &str, width: usize) {
        let source = match model.architecture.starts_with("gemma") {
            true => Source::PlusOne(theirs.to_owned()),
            false => Source::Copy(theirs.to_owned()),
        };
        self.add(name, &[width], source);
    }

    fn copy(&mut self, name: &str, theirs: &str, shape: &[usize]) {
        self.add(name, shape, Source::Copy(theirs.to_owned()));
    }

    fn values(&mut self, name: &str, values: Vec<f32>) {
        self.add(name, &[values.len()], Source::Values(values));
    }

    fn add(&mut self, name: &str, shape: &[usize], source: Source) {
        self.tensors.push(TensorPlan {
            tensor: GgufTensor {
                name: name.to_owned(),
                shape: shape.iter().map(|&dim| dim as u64).collect(),
                kind: GgmlType::F32,
            },
            source,
        });
    }
}
