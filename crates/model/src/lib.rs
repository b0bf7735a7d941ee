//! Models: where their files are, what their configs say, and their architectures over [`ops::Ops`].
//!
//! A family is written once, generic over `Ops`; each backend implements `Ops` once. Nothing here knows a
//! device.
//!
//! Invariant: a config whose arithmetic is not implemented is refused at load, by name.

pub mod ops;
pub mod weights;
