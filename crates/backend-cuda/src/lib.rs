//! The CUDA backend: kernels in `kernels/`, and how the host calls them.
//!
//! A kernel takes one struct of arguments; the types in [`kernels`] are those structs and the
//! grids they run on. Whatever can run a launch is a [`Launcher`]: the card, or, in tests, the
//! emulator, which runs the same source as plain C++ and checks every access. [`checks`] compares
//! each kernel with the CPU's operation of the same name on any launcher.
//!
//! Invariant (batch invariance): a row of a result is a function of that row's inputs alone, bit
//! for bit, on one card and kernel build.

pub mod attention_plan;
mod backend;
#[cfg(feature = "cuda")]
pub mod bench;
#[cfg(feature = "cuda")]
pub mod card;
pub mod checks;
pub mod dense;
mod dtype;
#[cfg(emulator)]
mod emulator;
#[cfg(emulator)]
mod emulator_device;
#[cfg(emulator)]
mod emulator_library;
#[cfg(emulator)]
mod emulator_profile;
#[cfg(test)]
mod emulator_test;
pub mod fatbin;
#[cfg(test)]
mod fatbin_test;
pub mod kernels;
mod launch;
pub mod model_checks;
pub mod ops;
mod options;
pub mod planes;
pub mod profile;
pub mod profile_steps;
#[cfg(all(test, emulator))]
mod profile_test;
#[cfg(test)]
mod toolkit_test;

pub use backend::CudaBackend;
pub use dense::{DenseProduct, PlanId, ProductShape};
pub use dtype::Dtype;
#[cfg(emulator)]
pub use emulator::Emulator;
#[cfg(emulator)]
pub use emulator_library::{EmulatedFault, EmulatedLibrary};
pub use launch::{
    Address, Device, DeviceMemory, GraphId, Launch, LaunchError, Launcher, MAX_READS_IN_FLIGHT,
    ReadTicket,
};
pub use options::{CudaOptions, DEFAULT_MAX_GRAPH_BYTES, KvBudget, Numerics};
