//! Why a model cannot be loaded.
//!
//! Invariant: each message names the file, field or tensor at fault, so that the reader can fix it.

use std::path::PathBuf;

use crate::ops::OpsError;

/// A failure to find, read, understand or load a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The name is no embedded model and no directory.
    #[error("there is no model `{name}`: {reason}")]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// What was tried.
        reason: String,
    },
    /// A file could not be read.
    #[error("cannot read {}: {reason}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: std::io::Error,
    },
    /// There is no memory for a tensor that is made, not read.
    #[error("there is no memory for the {num_bytes} bytes of tensor `{name}`")]
    NoMemory {
        /// Its name.
        name: String,
        /// Its size.
        num_bytes: usize,
    },
    /// A file is larger than any real one of its kind.
    #[error("{} has {num_bytes} bytes, more than the limit of {limit_bytes}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        num_bytes: u64,
        /// The bound.
        limit_bytes: u64,
    },
    /// A JSON file cannot be parsed.
    #[error("{file} is not valid: {reason}")]
    Json {
        /// The file's name.
        file: String,
        /// What is wrong, with line and column.
        reason: String,
    },
    /// A field of a JSON file is missing, has the wrong type, or an impossible value.
    #[error("{file}: `{field}` {reason}")]
    Field {
        /// The file's name.
        file: &'static str,
        /// The field, with dots for nesting.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A field asks for arithmetic that is not implemented.
    #[error("config.json: `{field}` = {value} is not supported")]
    UnsupportedField {
        /// The field, with dots for nesting.
        field: String,
        /// Its value, as JSON.
        value: String,
    },
    /// No family of this name.
    #[error("architecture `{name}` is not supported (supported: {supported})")]
    UnsupportedArchitecture {
        /// As the config names it.
        name: String,
        /// The names that are.
        supported: String,
    },
    /// A tensor cannot be quantized.
    #[error("tensor `{name}` cannot be quantized: {reason}")]
    Quantize {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A weight file is damaged.
    #[error("{file} is not a valid safetensors file: {reason}")]
    Safetensors {
        /// The file's name.
        file: String,
        /// What is wrong, naming the tensor where there is one.
        reason: String,
    },
    /// A GGUF file is damaged, or says something that is not supported.
    #[error("{file}: {reason}")]
    Gguf {
        /// The file's name.
        file: String,
        /// What is wrong, naming the field or tensor.
        reason: String,
    },
    /// The weights lack a tensor.
    #[error("the weights have no tensor `{name}`")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A layer has a tensor that the family does not: its arithmetic is not what the config says.
    #[error("the weights have a tensor `{name}`, which a layer of this family does not have")]
    UnexpectedTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor does not have the shape that the config implies.
    #[error("tensor `{name}` has shape {found:?}, but the config implies {expected:?}")]
    TensorShape {
        /// The tensor.
        name: String,
        /// From the config.
        expected: Vec<usize>,
        /// From the file.
        found: Vec<usize>,
    },
    /// A tensor has a number format that no kernel reads.
    #[error("tensor `{name}` has dtype {dtype}; supported are F32, F16 and BF16")]
    TensorDtype {
        /// The tensor.
        name: String,
        /// As the file names it.
        dtype: String,
    },
    /// The asked for context is longer than the model's.
    #[error(
        "max_model_len {asked} is larger than the model's context of {limit} tokens \
         (from config.json)"
    )]
    MaxModelLen {
        /// The option.
        asked: usize,
        /// What the config allows.
        limit: usize,
    },
    /// An option has an impossible value.
    #[error("{option} {reason}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The backend refused.
    #[error(transparent)]
    Ops(#[from] OpsError),
}
