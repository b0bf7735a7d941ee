//! A small Llama model with random weights, written to a directory: for tests of loading.
//!
//! Invariant: what [`TinyModel::write`] writes loads, unless a test changed it.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A tensor to write: dtype, shape, bytes.
pub(crate) type Tensor = (Dtype, Vec<usize>, Vec<u8>);

/// A model that a test can change before it is written.
pub(crate) struct TinyModel {
    pub(crate) config: Value,
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

pub(crate) const VOCAB: usize = 24;
const HIDDEN: usize = 8;
const INTERMEDIATE: usize = 12;

impl TinyModel {
    /// Two layers, two heads of four, one key and value head, tied embeddings.
    pub(crate) fn new() -> Self {
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": VOCAB,
            "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
            "eos_token_id": 2, "bos_token_id": 1, "torch_dtype": "float32",
        });
        let mut model = Self {
            config,
            tensors: BTreeMap::new(),
        };
        model.add("model.embed_tokens.weight", &[VOCAB, HIDDEN]);
        model.add("model.norm.weight", &[HIDDEN]);
        for layer in 0..2 {
            for (part, shape) in [
                ("input_layernorm", &[HIDDEN][..]),
                ("post_attention_layernorm", &[HIDDEN]),
                ("self_attn.q_proj", &[8, HIDDEN]),
                ("self_attn.k_proj", &[4, HIDDEN]),
                ("self_attn.v_proj", &[4, HIDDEN]),
                ("self_attn.o_proj", &[HIDDEN, 8]),
                ("mlp.gate_proj", &[INTERMEDIATE, HIDDEN]),
                ("mlp.up_proj", &[INTERMEDIATE, HIDDEN]),
                ("mlp.down_proj", &[HIDDEN, INTERMEDIATE]),
            ] {
                model.add(&format!("model.layers.{layer}.{part}.weight"), shape);
            }
        }
        model
    }

    /// Adds a tensor of numbers between -0.5 and 0.5 that depend on its name.
    pub(crate) fn add(&mut self, name: &str, shape: &[usize]) {
        let mut state: u32 = name
            .bytes()
            .fold(7, |s, b| s.wrapping_mul(31) ^ u32::from(b));
        let number = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let bytes = (0..shape.iter().product())
            .map(number)
            .flat_map(f32::to_le_bytes);
        let tensor = (Dtype::F32, shape.to_vec(), bytes.collect());
        self.tensors.insert(name.to_owned(), tensor);
    }

    /// The model's directory with everything in one weight file.
    pub(crate) fn write(&self) -> TempDir {
        let directory = self.write_config();
        write_tensors(
            &directory.path().join("model.safetensors"),
            self.tensors.iter(),
        );
        directory
    }

    /// The model's directory with two shards and an index.
    pub(crate) fn write_shards(&self) -> TempDir {
        let directory = self.write_config();
        let mut map = serde_json::Map::new();
        for (number, is_mine) in [(1, true), (2, false)] {
            let file = format!("model-0000{number}-of-00002.safetensors");
            let mine = |(name, _): &(&String, &Tensor)| name.contains("layers.0") == is_mine;
            let tensors: Vec<_> = self.tensors.iter().filter(mine).collect();
            map.extend(
                tensors
                    .iter()
                    .map(|(name, _)| ((*name).clone(), json!(file))),
            );
            write_tensors(&directory.path().join(&file), tensors.into_iter());
        }
        let index = json!({"metadata": {"total_size": 0}, "weight_map": map}).to_string();
        std::fs::write(directory.path().join("model.safetensors.index.json"), index).unwrap();
        directory
    }

    fn write_config(&self) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(
            directory.path().join("config.json"),
            self.config.to_string(),
        )
        .unwrap();
        directory
    }
}

/// Writes a safetensors file with the reference implementation.
pub(crate) fn write_tensors<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a String, &'a Tensor)>,
) {
    let view = |(dtype, shape, bytes): &'a Tensor| TensorView::new(*dtype, shape.clone(), bytes);
    let views = tensors.map(|(name, tensor)| (name, view(tensor).unwrap()));
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(path, bytes).unwrap();
}
