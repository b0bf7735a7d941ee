//! The operations of a model on a [`Device`](crate::Device).
//!
//! [`CudaOps`] queues launches; `begin` packs a step's numbers and copies them at once, and
//! `start_sample` queues the draw and the copy of its results. Nothing waits for the device but
//! `finish_sample`.
//!
//! Invariant: after loading nothing is allocated on the device, and nothing captured.

mod blob;
mod buckets;
mod buffer;
mod cuda_ops;
#[cfg(all(test, emulator))]
mod failing_device;
#[cfg(all(test, emulator))]
mod faults_test;
mod graph_budget;
#[cfg(all(test, emulator))]
mod graph_budget_test;
mod graphs;
mod kv_cache;
mod launches;
mod layers;
mod library;
#[cfg(all(test, emulator))]
mod library_test;
mod load;
mod memory;
mod moe;
#[cfg(all(test, emulator))]
mod packed_test;
mod product;
mod profile;
mod results;
mod sampling;
mod slots;
mod space;
mod state;
mod step;
mod warm_up;
#[cfg(all(test, emulator))]
mod warm_up_test;
mod weights;
mod work;

pub use buffer::CudaBuffer;
pub use kv_cache::CudaKvCache;
pub use slots::MAX_NUM_BIASES;
pub use state::CudaOps;
pub use weights::{CudaExperts, CudaLinear, CudaVector};
