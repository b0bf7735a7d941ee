//! What an engine is told when it starts. The front builds it from its own flags and hands it over
//! as one argument; it holds no secret.
//!
//! Invariant: every bound of the engine is a field here, with its unit last.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ScriptedOptions;

/// What computes the tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// A model on a device.
    #[default]
    Model,
    /// No model: predictable tokens at a set pace. For tests and for measuring everything else.
    Scripted(ScriptedOptions),
}

/// Options of an engine; fields that are left out take their defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineOptions {
    /// `spark`, `spark-mini`, or a directory. Default `spark`.
    pub model: String,
    /// `auto` (a card where there is one that the kernels run on), `cpu`, or `cuda:N`. Default
    /// `auto`.
    pub device: String,
    /// Share of a card's memory that this engine may use, which must be free when it starts; above
    /// 0, at most 1. Default 0.9.
    pub gpu_memory_utilization: f64,
    /// How long a start waits until that share is free: what an engine held that just ended comes
    /// back a moment after it is gone. Default 10,000.
    pub gpu_memory_wait_ms: u64,
    /// Memory that captured decode steps may hold on a card; 0 for none of them. Default 512 MiB.
    pub max_cuda_graph_memory_bytes: usize,
    /// `invariant` (a result does not depend on who shares the step) or `fast` (libraries may
    /// choose their own order on a card). Default `invariant`.
    pub numerics: String,
    /// Format of the weights: `auto`, `safetensors`, `gguf` or `dummy`. Default `auto`.
    pub load_format: String,
    /// Seed of dummy weights. Default 0.
    pub dummy_seed: u64,
    /// Type of the activations: `auto`, `bfloat16`, `float16` or `float32`. A CPU engine keeps and
    /// adds them in float32; unless `float32` is asked for it rounds them to bfloat16 where they
    /// are multiplied by weights of that type. Default `auto`.
    pub dtype: String,
    /// How keys and values are kept: `auto`, `float16`, on a CPU `float32` or `q8_0`, on a card
    /// `bfloat16`. Default `auto`: on a CPU float16 where the model's weights are of sixteen bits,
    /// else float32; on a card the weights' type, float16 where that has more bits.
    pub kv_cache_dtype: String,
    /// Type to which dense weights are quantized while they are loaded: `none`, or one of
    /// [`quantization_names`](crate::quantization_names). Default `none`.
    pub quantization: String,
    /// Where hashes of weight files are kept. Default: `$XDG_CACHE_HOME/hotspare`, or
    /// `~/.cache/hotspare`.
    pub cache_dir: Option<PathBuf>,
    /// Tokens in a sequence at most. Default: the model's own bound.
    pub max_model_len: Option<usize>,
    /// Sequences that run at a time, at most. Default 256.
    pub max_num_seqs: usize,
    /// Tokens in a step at most. Default 2,048.
    pub max_num_batched_tokens: usize,
    /// Sequences that wait, at most; further ones are rejected. Default 1,024.
    pub max_num_waiting: usize,
    /// Tokens of one prompt in a step at most; 0 (the default) for no bound but the step's.
    pub long_prefill_token_threshold: usize,
    /// Run waiting sequences by priority instead of in order of arrival. Default false.
    pub priority_scheduling: bool,
    /// Memory of the KV cache. Default on a CPU: enough for `max_num_seqs` sequences of
    /// `max_model_len` tokens, at most 1 GiB, at least one such sequence.
    pub kv_cache_memory_bytes: Option<usize>,
    /// KV blocks, whatever `kv_cache_memory_bytes` says. For tests of preemption.
    pub num_kv_blocks_override: Option<usize>,
    /// Tokens in a KV block. Default 16.
    pub block_size: usize,
    /// Keep the KV blocks of ended sequences for others with the same beginning. Default true.
    pub enable_prefix_caching: bool,
    /// The file in memory that full KV blocks are written to, for the engine after this one. In a
    /// process the environment variable `HOTSPARE_KV_MIRROR` replaces it. Default none.
    pub kv_mirror_path: Option<PathBuf>,
    /// Bytes of that file at most. Default 1 GiB.
    pub kv_mirror_memory_bytes: usize,
    /// Bytes of KV blocks that are copied out in a step, at most; one block always is. Default
    /// 4 MiB.
    pub max_kv_save_bytes_per_step: usize,
    /// Bytes of KV blocks of lost engines that are taken in with a step, about; a sequence's come
    /// together. Default 8 MiB.
    pub max_kv_load_bytes_per_step: usize,
    /// Threads of the CPU backend. Default: one for each core.
    pub num_threads: Option<usize>,
    /// Prepare a step while the one before it runs. Default true; false is the plain loop, which
    /// gives the same tokens.
    pub lookahead: bool,
    /// What computes the tokens. Default: the model.
    pub backend: Backend,
    /// Time between two reports of counters, while steps run. Default 500 ms.
    pub stats_interval_ms: u64,
    /// Tokens of steps that follow each other faster than this are written together, so a token may
    /// arrive that much later; 0 writes each step's at once. First tokens and ends never wait.
    /// Default 5 ms.
    pub stream_flush_interval_ms: u64,
    /// Bytes in a message at most. Default 16 MiB.
    pub max_frame_bytes: usize,
    /// Bytes of outgoing messages that are gathered before they are written. Default 1 MiB.
    pub max_output_buffer_bytes: usize,
    /// Messages of the front that are decoded and not yet looked at, at most. Default 1,024.
    pub max_num_inbox_messages: usize,
    /// The same, in bytes of memory. Default 64 MiB. One message may be longer alone.
    pub max_inbox_bytes: usize,
    /// Messages of the front that are looked at between two steps, at most. Default 256.
    pub max_num_messages_per_step: usize,
    /// Check the scheduler's books after each step, not only when idle in debug builds. For tests;
    /// a step then costs time in proportion to the number of blocks. Default false.
    pub check_integrity: bool,
    /// Faults to inject, in the grammar of [`crate::Faults::parse`]. Default none. In a process the
    /// environment variable `HOTSPARE_FAULTS` replaces it.
    pub faults: String,
    /// How often the front has started this engine before. In a process the environment variable
    /// `HOTSPARE_ENGINE_LIFE` replaces it. Default 0.
    pub life: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            model: "spark".to_owned(),
            device: "auto".to_owned(),
            gpu_memory_utilization: 0.9,
            gpu_memory_wait_ms: 10_000,
            max_cuda_graph_memory_bytes: 512 << 20,
            numerics: "invariant".to_owned(),
            load_format: "auto".to_owned(),
            dummy_seed: 0,
            dtype: "auto".to_owned(),
            kv_cache_dtype: "auto".to_owned(),
            quantization: "none".to_owned(),
            cache_dir: None,
            max_model_len: None,
            max_num_seqs: 256,
            max_num_batched_tokens: 2048,
            max_num_waiting: 1024,
            long_prefill_token_threshold: 0,
            priority_scheduling: false,
            kv_cache_memory_bytes: None,
            num_kv_blocks_override: None,
            block_size: 16,
            enable_prefix_caching: true,
            kv_mirror_path: None,
            kv_mirror_memory_bytes: 1 << 30,
            max_kv_save_bytes_per_step: 4 << 20,
            max_kv_load_bytes_per_step: 8 << 20,
            num_threads: None,
            lookahead: true,
            backend: Backend::Model,
            stats_interval_ms: 500,
            stream_flush_interval_ms: 5,
            max_frame_bytes: hotspare_link::DEFAULT_MAX_FRAME_BYTES,
            max_output_buffer_bytes: 1 << 20,
            max_num_inbox_messages: 1024,
            max_inbox_bytes: 64 << 20,
            max_num_messages_per_step: 256,
            check_integrity: false,
            faults: String::new(),
            life: 0,
        }
    }
}

impl EngineOptions {
    pub(crate) fn stream_flush_interval(&self) -> Duration {
        Duration::from_millis(self.stream_flush_interval_ms)
    }
}
