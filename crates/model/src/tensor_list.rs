//! Every tensor that a config implies, without any weights: for counting parameters and for random
//! weights.
//!
//! Invariant: what is listed here is what the families ask for, no more and no less; tests load a
//! model of each family from exactly this list.

use crate::config::{Architecture, ModelConfig, MoeConfig};

/// What a tensor is for, which says how large its numbers may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorKind {
    /// Token embeddings `[vocab, hidden]`, which may serve as output matrix too.
    Embedding,
    /// A product's weights `[outputs, inputs]`.
    Matrix,
    /// A product's bias.
    Bias,
    /// A norm's weights.
    Norm,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Transformers' name of it.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// What it is for.
    pub kind: TensorKind,
}

impl TensorSpec {
    /// Number of elements.
    pub fn num_elements(&self) -> u64 {
        let dimensions = self.shape.iter().map(|&d| d as u64);
        dimensions.fold(1, u64::saturating_mul)
    }
}

impl ModelConfig {
    /// The tensors of a model with this config.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut list = List(Vec::new());
        let (vocab, hidden) = (self.vocab_size, self.hidden_size);
        list.add(
            "model.embed_tokens.weight",
            &[vocab, hidden],
            TensorKind::Embedding,
        );
        for index in 0..self.num_hidden_layers {
            self.add_layer(index, &mut list);
        }
        list.norm("model.norm.weight", hidden);
        if !self.tie_word_embeddings {
            list.matrix("lm_head.weight", vocab, hidden);
        }
        list.0
    }

    /// Number of parameters; a tied output matrix counts once.
    pub fn num_parameters(&self) -> u64 {
        let sizes = self.tensors().into_iter().map(|spec| spec.num_elements());
        sizes.fold(0, u64::saturating_add)
    }

    fn add_layer(&self, index: usize, list: &mut List) {
        let (hidden, decoder) = (self.hidden_size, &self.decoder);
        let prefix = format!("model.layers.{index}");
        let norms: &[&str] = match decoder.has_post_norms {
            true => &[
                "input_layernorm",
                "post_attention_layernorm",
                "pre_feedforward_layernorm",
                "post_feedforward_layernorm",
            ],
            false => &["input_layernorm", "post_attention_layernorm"],
        };
        for norm in norms {
            list.norm(&format!("{prefix}.{norm}.weight"), hidden);
        }
        let attention = format!("{prefix}.self_attn");
        if decoder.has_qk_norm {
            list.norm(&format!("{attention}.q_norm.weight"), self.head_dim);
            list.norm(&format!("{attention}.k_norm.weight"), self.head_dim);
        }
        let q_width = self.num_attention_heads * self.head_dim;
        let kv_width = self.num_key_value_heads * self.head_dim;
        let has_bias = decoder.has_qkv_bias;
        match decoder.has_fused_qkv {
            true => {
                let width = q_width + 2 * kv_width;
                list.linear(&format!("{attention}.qkv_proj"), width, hidden, has_bias);
            }
            false => {
                for (part, width) in [("q", q_width), ("k", kv_width), ("v", kv_width)] {
                    list.linear(&format!("{attention}.{part}_proj"), width, hidden, has_bias);
                }
            }
        }
        let has_bias = decoder.has_attention_out_bias;
        list.linear(&format!("{attention}.o_proj"), hidden, q_width, has_bias);
        match &self.moe {
            Some(moe) if self.layers[index].has_experts => self.add_experts(&prefix, moe, list),
            _ => self.add_mlp(&prefix, list),
        }
    }

    fn add_mlp(&self, prefix: &str, list: &mut List) {
        let (hidden, width) = (self.hidden_size, self.intermediate_size);
        let has_bias = self.decoder.has_mlp_bias;
        match self.decoder.has_fused_gate_up {
            true => list.linear(
                &format!("{prefix}.mlp.gate_up_proj"),
                2 * width,
                hidden,
                has_bias,
            ),
            false => {
                for part in ["gate", "up"] {
                    list.linear(
                        &format!("{prefix}.mlp.{part}_proj"),
                        width,
                        hidden,
                        has_bias,
                    );
                }
            }
        }
        list.linear(&format!("{prefix}.mlp.down_proj"), hidden, width, has_bias);
    }

    fn add_experts(&self, prefix: &str, moe: &MoeConfig, list: &mut List) {
        let (block, parts) = match self.architecture {
            Architecture::Mixtral => ("block_sparse_moe", ["w1", "w3", "w2"]),
            _ => ("mlp", ["gate_proj", "up_proj", "down_proj"]),
        };
        let (hidden, width) = (self.hidden_size, moe.intermediate_size);
        list.matrix(
            &format!("{prefix}.{block}.gate.weight"),
            moe.num_experts,
            hidden,
        );
        let [gate, up, down] = parts;
        for expert in 0..moe.num_experts {
            let name = |part| format!("{prefix}.{block}.experts.{expert}.{part}.weight");
            list.matrix(&name(gate), width, hidden);
            list.matrix(&name(up), width, hidden);
            list.matrix(&name(down), hidden, width);
        }
    }
}

/// A list in the making.
struct List(Vec<TensorSpec>);

impl List {
    fn add(&mut self, name: &str, shape: &[usize], kind: TensorKind) {
        self.0.push(TensorSpec {
            name: name.to_owned(),
            shape: shape.to_vec(),
            kind,
        });
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.add(name, &[width], TensorKind::Norm);
    }

    fn matrix(&mut self, name: &str, num_out: usize, num_in: usize) {
        self.add(name, &[num_out, num_in], TensorKind::Matrix);
    }

    fn linear(&mut self, stem: &str, num_out: usize, num_in: usize, has_bias: bool) {
        self.matrix(&format!("{stem}.weight"), num_out, num_in);
        if has_bias {
            self.add(&format!("{stem}.bias"), &[num_out], TensorKind::Bias);
        }
    }
}
