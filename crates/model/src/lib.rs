//! Models: where their files are, what their configs say, and their architectures over
//! [`ops::Ops`].
//!
//! A family is written once, generic over `Ops`; each backend implements `Ops` once. Nothing here
//! knows a device. [`ModelSource`] finds the files, [`ModelConfig`] says what they mean,
//! [`ModelRunner`] runs batches.
//!
//! Invariant: a config whose arithmetic is not implemented is refused at load, by name.
#![deny(unsafe_code)]

mod config;
#[cfg(test)]
mod config_families_test;
#[cfg(test)]
mod config_fields_test;
#[cfg(test)]
mod config_test;
mod dummy;
mod embedded;
mod error;
mod families;
mod files;
#[cfg(test)]
mod files_test;
mod generation;
mod gguf;
#[cfg(test)]
mod gguf_hostile_test;
#[cfg(test)]
mod gguf_split_test;
#[cfg(test)]
mod gguf_test;
mod hash;
mod hash_cache;
#[cfg(test)]
mod hostile_props;
mod mmap;
pub mod ops;
mod options;
mod pipelined;
mod quantize;
mod rope;
mod runner;
#[cfg(test)]
mod runner_test;
mod safetensors;
#[cfg(test)]
mod safetensors_test;
mod shapes;
mod source;
mod tensor_list;
#[cfg(test)]
mod testing;
mod weight_store;
pub mod weights;
mod work;

pub use config::{
    Activation, Architecture, DecoderConfig, LayerConfig, LayerRope, ModelConfig, MoeConfig,
    RopeConfig, RopeScaling,
};
pub use embedded::EmbeddedModel;
pub use error::ModelError;
pub use files::ModelFiles;
pub use generation::GenerationConfig;
pub use gguf::{GgufArray, GgufFile, GgufValue};
pub use hash::ContentHash;
pub use hash_cache::{FileIdentity, HashCache};
pub use options::{LoadOptions, LoadProgress, LoadStage, kv_bytes_per_block};
pub use pipelined::PipelinedRunner;
pub use quantize::{Quantization, encode};
pub use runner::ModelRunner;
pub use shapes::Shape;
pub use source::{ConfigSource, LoadFormat, ModelSource};
pub use tensor_list::{TensorKind, TensorSpec};
pub use weight_store::WeightStore;
pub use work::{KernelWork, StepWork, WorkShape};
