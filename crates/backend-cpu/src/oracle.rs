//! Whole models on this backend against oracles: golden files of transformers and
//! llama.cpp, candle-transformers, and the backend itself under other batches.
//!
//! Invariant: a suite whose data is missing says so loudly, and fails where `CI` is set.

mod candle;
mod candle_families;
mod gguf;
mod gguf_families;
mod golden;
mod harness;
mod invariance;
mod quantized;
mod quantized_types;
mod transformers;
