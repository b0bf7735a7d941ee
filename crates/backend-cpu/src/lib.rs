//! The CPU backend: `hotspare_model::ops::Ops` on this machine's cores.
//!
//! Weights stay where they are (memory-mapped, or part of the binary), quantized ones too, and are
//! widened as they are used; activations are f32, rounded to 8 bits where weights are quantized.
//! Kernels are written once over sixteen lanes and compiled for AVX-512, AVX2 and portable code.
//!
//! Invariant: each row of a result is a function of that row's inputs alone, bit for bit: the same
//! on every instruction set, for any number of rows, threads and prefill chunks.

mod attention;
mod buffer;
mod cpu_ops;
mod elementwise;
#[cfg(test)]
mod elementwise_test;
#[cfg(test)]
mod family_ops_test;
mod kv_cache;
mod kv_copy;
mod linear;
mod memory;
mod moe;
mod options;
#[cfg(test)]
mod oracle;
mod rope;
mod sampling;
mod simd;
mod step;
#[cfg(test)]
mod step_test;
#[cfg(test)]
mod testing;
mod vector;
mod workers;

pub use buffer::CpuBuffer;
pub use cpu_ops::CpuOps;
pub use kv_cache::CpuKvCache;
pub use linear::CpuLinear;
pub use moe::CpuExperts;
pub use options::CpuOptions;
pub use simd::Isa;
pub use vector::CpuVector;
