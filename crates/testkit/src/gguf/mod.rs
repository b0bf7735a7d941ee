//! Writes GGUF files: for tests, and for `cargo xtask make-gguf`.
//!
//! [`GgufWriter`] writes what it is told, right or wrong. [`GgufLayout`] says which fields and
//! tensors llama.cpp's converter makes of a `config.json`, and what it does to each weight.
//!
//! Invariant: nothing here is shared with the code that reads such files.

mod config;
mod ggml_type;
mod layout;
mod permute;
mod safetensors;
mod writer;

pub use config::GgufModel;
pub use ggml_type::GgmlType;
pub use layout::{GgufLayout, Source, TensorPlan};
pub use safetensors::convert_directory;
pub use writer::{GgufTensor, GgufWriter};
