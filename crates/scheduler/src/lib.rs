//! Continuous batching, pure: which tokens run in the next step, and in which KV blocks they live.
//!
//! A step is `schedule()` -> the device runs the batch -> `commit(output)`. Every step has a budget
//! of tokens; running sequences take theirs first, then waiting ones are admitted. There is no
//! prefill phase and no decode phase: a sequence has ids and a number of computed ones, and rows
//! close the gap.
//!
//! Invariant: no clock, thread, file or random number here. The same calls give the same batches.
#![forbid(unsafe_code)]

mod admission;
mod batch_builder;
mod block_hash;
mod block_pool;
mod commit;
mod config;
mod error;
mod finish;
mod integrity;
mod kv_blocks;
mod kv_import;
mod prefix_cache;
mod queue;
mod schedule;
mod scheduler;
mod sequence;
mod slab;
mod stats;

#[cfg(test)]
mod admission_test;
#[cfg(test)]
mod caching_test;
#[cfg(test)]
mod commit_test;
#[cfg(test)]
mod finish_test;
#[cfg(test)]
mod kv_import_test;
#[cfg(test)]
mod leak_test;
#[cfg(test)]
mod look_ahead_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod prefix_cache_test;
#[cfg(test)]
mod schedule_test;
#[cfg(test)]
mod shadow_test;
#[cfg(test)]
mod testing;

pub use config::{SchedulerConfig, SchedulingPolicy};
pub use error::SchedulerError;
pub use kv_import::{CachedBlock, KvSource, WantedBlock};
pub use prefix_cache::PrefixId;
pub use scheduler::Scheduler;
pub use stats::SchedulerStats;
