//! Tensor names: what transformers calls so is called so in GGUF files.
//!
//! The experts of a layer lie in one tensor, one after the other; files of before that was so have
//! a tensor for each.
//!
//! Invariant: no two names that a family asks for lead to the same weights.

/// Parts of a layer: transformers' name, GGUF's name.
const LAYER_PARTS: [(&str, &str); 15] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    // Phi-3's gate lies above its up.
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate", "ffn_gate_inp"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("pre_feedforward_layernorm", "ffn_norm"),
];
/// Parts of an expert.
const EXPERT_PARTS: [(&str, &str); 6] = [
    ("gate_proj", "ffn_gate_exps"),
    ("up_proj", "ffn_up_exps"),
    ("down_proj", "ffn_down_exps"),
    ("w1", "ffn_gate_exps"),
    ("w3", "ffn_up_exps"),
    ("w2", "ffn_down_exps"),
];

/// What ends the names of tensors of all experts, before `.weight`.
const STACKED_EXPERTS: &str = "_exps";

/// Where the files have the tensor that a family asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileName {
    /// The tensor's name.
    pub(crate) name: String,
    /// Its part: this index of the outermost dimension. `None`: all of it.
    pub(crate) index: Option<usize>,
}

impl FileName {
    /// All of tensor `name`.
    pub(crate) fn whole(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            index: None,
        }
    }

    /// Where a file that has a tensor for each expert has this part of all experts'.
    pub(crate) fn separate_expert(&self) -> Option<Self> {
        let (part, kind) = self.name.split_once(STACKED_EXPERTS)?;
        Some(Self::whole(&format!("{part}.{}{kind}", self.index?)))
    }
}

/// The place in a GGUF file of the tensor that transformers calls `name`; a name that is not known
/// stays as it is, and is then not found.
pub(crate) fn tensor_name(name: &str) -> FileName {
    mapped(name, &[("post_attention_layernorm", "ffn_norm")])
}

/// As [`tensor_name`], in Gemma's files: they have norms after the sub-layers too.
pub(crate) fn gemma_tensor_name(name: &str) -> FileName {
    let norms = [
        ("post_attention_layernorm", "post_attention_norm"),
        ("post_feedforward_layernorm", "post_ffw_norm"),
    ];
    mapped(name, &norms)
}

fn mapped(name: &str, norms: &[(&str, &str)]) -> FileName {
    match name {
        "model.embed_tokens.weight" => return FileName::whole("token_embd.weight"),
        "model.norm.weight" => return FileName::whole("output_norm.weight"),
        "lm_head.weight" => return FileName::whole("output.weight"),
        _ => {}
    }
    let find = |parts: &[(&str, &'static str)], part: &str| {
        let known = parts.iter().find(|(known, _)| *known == part);
        known.map(|(_, name)| *name)
    };
    let in_layer = || {
        let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        let expert = part
            .strip_prefix("mlp.experts.")
            .or_else(|| part.strip_prefix("block_sparse_moe.experts."));
        let (part, index) = match expert {
            Some(expert) => {
                let (index, part) = expert.split_once('.')?;
                (find(&EXPERT_PARTS, part)?, Some(index.parse().ok()?))
            }
            None => {
                let norm = norms.iter().find(|(known, _)| *known == part);
                let norm = norm.map(|(_, name)| *name);
                (norm.or_else(|| find(&LAYER_PARTS, part))?, None)
            }
        };
        Some(FileName {
            name: format!("blk.{layer}.{part}.{kind}"),
            index,
        })
    };
    in_layer().unwrap_or_else(|| FileName::whole(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_mapped() {
        for (name, expected) in [
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("lm_head.weight", "output.weight"),
            (
                "model.layers.0.self_attn.q_proj.weight",
                "blk.0.attn_q.weight",
            ),
            (
                "model.layers.31.self_attn.v_proj.bias",
                "blk.31.attn_v.bias",
            ),
            (
                "model.layers.7.mlp.down_proj.weight",
                "blk.7.ffn_down.weight",
            ),
            (
                "model.layers.7.post_attention_layernorm.weight",
                "blk.7.ffn_norm.weight",
            ),
            (
                "model.layers.7.mlp.other.weight",
                "model.layers.7.mlp.other.weight",
            ),
            (
                "model.layers.7.mlp.experts.x.w1.weight",
                "model.layers.7.mlp.experts.x.w1.weight",
            ),
            ("odd", "odd"),
        ] {
            assert_eq!(tensor_name(name), FileName::whole(expected));
        }
        let name = "model.layers.7.post_attention_layernorm.weight";
        let expected = "blk.7.post_attention_norm.weight";
        assert_eq!(gemma_tensor_name(name).name, expected);
    }

    #[test]
    fn an_expert_is_a_part_of_a_tensor() {
        for (name, part, index) in [
            ("block_sparse_moe.experts.3.w2", "ffn_down_exps", 3),
            ("mlp.experts.12.gate_proj", "ffn_gate_exps", 12),
        ] {
            let found = tensor_name(&format!("model.layers.1.{name}.weight"));
            assert_eq!(found.name, format!("blk.1.{part}.weight"));
            assert_eq!(found.index, Some(index));
            let part = part.strip_suffix("_exps").unwrap();
            let separate = found.separate_expert().unwrap();
            let expected = format!("blk.1.{part}.{index}.weight");
            assert_eq!(separate, FileName::whole(&expected));
        }
    }
}
