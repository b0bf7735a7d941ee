//! The families of models: one decoder, described by a config, over [`Ops`](crate::ops::Ops).
//!
//! A family is not a copy of the code but a [`ModelConfig`](crate::ModelConfig): which norms,
//! biases and caps there are, and what each layer is.
//!
//! Invariant: a forward pass is a list of operations on named buffers; it allocates nothing.

mod buffers;
mod decoder;
mod layer;
mod loader;

pub(crate) use decoder::Decoder;
