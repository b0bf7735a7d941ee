//! Writes GGUF files, right ones and wrong ones.
//!
//! Invariant: bytes are written as given; what fits what is the test's business.

use super::TinyModel;

/// ggml's number of F32.
const F32: u32 = 0;

/// A file to be: fields and tensors in order.
#[derive(Clone, Default)]
pub(crate) struct GgufWriter {
    /// Key, type number, value.
    pub(crate) fields: Vec<(String, u32, Vec<u8>)>,
    /// Name, dimensions (innermost first), type number, bytes.
    pub(crate) tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.bytes());
    bytes
}

impl GgufWriter {
    pub(crate) fn u32(mut self, key: &str, value: u32) -> Self {
        self.fields
            .push((key.to_owned(), 4, value.to_le_bytes().to_vec()));
        self
    }

    pub(crate) fn f32(mut self, key: &str, value: f32) -> Self {
        self.fields
            .push((key.to_owned(), 6, value.to_le_bytes().to_vec()));
        self
    }

    pub(crate) fn string(mut self, key: &str, value: &str) -> Self {
        self.fields.push((key.to_owned(), 8, string(value)));
        self
    }

    pub(crate) fn strings(mut self, key: &str, values: &[&str]) -> Self {
        let mut bytes = 8u32.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| bytes.extend(string(value)));
        self.fields.push((key.to_owned(), 9, bytes));
        self
    }

    pub(crate) fn floats(mut self, key: &str, values: &[f32]) -> Self {
        let mut bytes = 6u32.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.fields.push((key.to_owned(), 9, bytes));
        self
    }

    /// Leaves out field `key`.
    pub(crate) fn without(mut self, key: &str) -> Self {
        self.fields.retain(|(known, ..)| known != key);
        self
    }

    pub(crate) fn tensor(mut self, name: &str, dims: &[u64], dtype: u32, bytes: Vec<u8>) -> Self {
        self.tensors
            .push((name.to_owned(), dims.to_vec(), dtype, bytes));
        self
    }

    /// `model`, whose q and k rows are reordered as llama.cpp's converter does.
    pub(crate) fn of(model: &TinyModel) -> Self {
        let config = |key: &str| model.config[key].as_u64().unwrap() as u32;
        let heads = config("num_attention_heads");
        let mut writer = Self::default()
            .string("general.architecture", "llama")
            .u32("llama.embedding_length", config("hidden_size"))
            .u32("llama.feed_forward_length", config("intermediate_size"))
            .u32("llama.block_count", config("num_hidden_layers"))
            .u32("llama.attention.head_count", heads)
            .u32(
                "llama.attention.head_count_kv",
                config("num_key_value_heads"),
            )
            .u32("llama.context_length", config("max_position_embeddings"))
            .u32("llama.rope.dimension_count", config("hidden_size") / heads)
            .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
            .strings("tokenizer.ggml.tokens", &["<unk>", "<s>", "</s>", "ä"])
            .floats("tokenizer.ggml.scores", &[0.0, -1.0, -2.5, 3.0])
            .u32("tokenizer.ggml.bos_token_id", config("bos_token_id"))
            .u32("tokenizer.ggml.eos_token_id", config("eos_token_id"));
        let head_dim = (config("hidden_size") / heads) as usize;
        for (name, (_, shape, bytes)) in &model.tensors {
            let row_bytes = 4 * shape.last().unwrap();
            let is_rotated = name.contains("q_proj") || name.contains("k_proj");
            let bytes = match is_rotated {
                true => reorder(bytes, head_dim, row_bytes),
                false => bytes.clone(),
            };
            let dims: Vec<u64> = shape.iter().rev().map(|&d| d as u64).collect();
            writer = writer.tensor(&crate::gguf::tensor_name(name).name, &dims, F32, bytes);
        }
        writer
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3u32.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.fields.len() as u64).to_le_bytes());
        for (key, number, value) in &self.fields {
            file.extend(string(key));
            file.extend(number.to_le_bytes());
            file.extend(value);
        }
        let mut data = Vec::new();
        for (name, dims, dtype, bytes) in &self.tensors {
            file.extend(string(name));
            file.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|d| file.extend(d.to_le_bytes()));
            file.extend(dtype.to_le_bytes());
            file.extend((data.len() as u64).to_le_bytes());
            data.extend(bytes);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(data);
        file
    }
}

/// Rows of each head: first and second half take turns.
fn reorder(bytes: &[u8], head_dim: usize, row_bytes: usize) -> Vec<u8> {
    let heads = bytes.chunks(head_dim * row_bytes);
    let rows = heads.flat_map(|head| {
        let half = head_dim / 2;
        let order = (0..half).flat_map(move |i| [i, i + half]);
        order.map(move |row| &head[row * row_bytes..(row + 1) * row_bytes])
    });
    rows.flatten().copied().collect()
}
