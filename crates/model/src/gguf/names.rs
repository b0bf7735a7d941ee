//! Tensor names: what transformers calls so is called so in GGUF files.
//!
//! Invariant: the mapping is one to one over the parts that are listed.

/// Parts of a layer: transformers' name, GGUF's name.
const LAYER_PARTS: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// The name in a GGUF file of the tensor that transformers calls `name`; a name that is not known
/// stays as it is, and is then not found.
pub(crate) fn tensor_name(name: &str) -> String {
    let whole = match name {
        "model.embed_tokens.weight" => Some("token_embd.weight"),
        "model.norm.weight" => Some("output_norm.weight"),
        "lm_head.weight" => Some("output.weight"),
        _ => None,
    };
    if let Some(whole) = whole {
        return whole.to_owned();
    }
    let in_layer = || {
        let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        let (_, part) = LAYER_PARTS.iter().find(|(known, _)| *known == part)?;
        Some(format!("blk.{layer}.{part}.{kind}"))
    };
    in_layer().unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::tensor_name;

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
                "model.layers.7.mlp.other.weight",
                "model.layers.7.mlp.other.weight",
            ),
            ("odd", "odd"),
        ] {
            assert_eq!(tensor_name(name), expected);
        }
    }
}
