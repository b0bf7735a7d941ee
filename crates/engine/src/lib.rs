//! The engine process: one model on one device, driven by messages of a front.
//!
//! One thread owns scheduler and executor and runs the loop; one listens to the socket; one is the
//! device. [`run_process`] is `hotspare engine`, [`spawn_in_process`] the same code inside a test.
//!
//! Invariant: token ids only. The engine ends within a second of losing its front.
#![forbid(unsafe_code)]

mod admission;
mod backend;
#[cfg(feature = "cuda")]
mod card_memory;
#[cfg(feature = "cuda")]
mod cuda_backend;
mod device;
mod device_thread;
mod engine_loop;
mod error;
mod faults;
mod flush_pacer;
mod inbox;
mod kv_mirror;
mod kv_size;
mod model_backend;
mod options;
mod outbox;
mod process;
mod progress;
mod reader;
mod scripted;
mod slow_runner;

pub use device::HAS_CUDA;
pub use device_thread::{DeviceThread, InlineExecutor};
pub use error::{
    EXIT_CANNOT_START, EXIT_CONTEXT_LOST, EXIT_DEVICE_LOST, EXIT_FRONT_LOST, EXIT_INJECTED,
    EXIT_INTERNAL, EXIT_PROTOCOL, EngineError,
};
pub use faults::{FAULTS_VARIABLE, Faults, FaultsError, LIFE_VARIABLE, TokenFault};
pub use model_backend::check_on_cpu;
pub use model_backend::{is_quantization, quantization_names};
pub use options::{Backend, EngineOptions};
pub use process::{KV_MIRROR_VARIABLE, run_process, spawn_in_process, spawn_to_be_joined};
pub use scripted::{ScriptedOptions, ScriptedRunner};
