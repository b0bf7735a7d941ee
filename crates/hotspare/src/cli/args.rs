//! The options of `hotspare serve`, each defined and documented once.
//!
//! All are optional here: defaults are applied after arguments, environment and file are merged.
//!
//! Invariant: the long name of an option is also its key in the file and, in capitals with
//! `HOTSPARE_` in front, its environment variable.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::ha_args::HaArgs;
use super::ha_limit_args::HaLimitArgs;
use super::ha_timer_args::HaTimerArgs;
use super::hub_args::HubLimitArgs;
use super::limit_args::{LinkLimitArgs, RequestLimitArgs};
use super::replay_args::ReplayLimitArgs;
use super::values::{
    ContextLen, LogFormat, Numerics, Policy, Secret, SpareShadow, parse_body_size,
    parse_interval_ms, parse_name, parse_num_connections, parse_num_threads, parse_positive,
    parse_share, parse_size, parse_size_or_zero, parse_spare_engines, parse_timeout_ms,
};

/// Below the options in `--help`.
pub(crate) const SERVE_AFTER_HELP: &str = "\
Every option can also be set in the environment (--max-model-len as HOTSPARE_MAX_MODEL_LEN; several
values separated by commas) and in the file given by --config (max-model-len = 4096). An argument
wins over the environment, the environment over the file. `-h` leaves out the bounds that few will
ever change, `--help` has them. A switch is turned off by --no-SWITCH or
--SWITCH=false. Flags of vLLM's that mean nothing here are accepted with a warning.

Examples:
  hotspare serve                                the small embedded model, for a first look
  hotspare serve ~/models/Llama-3.2-1B-Instruct a directory with config.json and safetensors
  hotspare serve Qwen/Qwen3-0.6B                a model on the hub, fetched once
  hotspare serve --host 0.0.0.0 --api-key KEY   reachable from elsewhere, with a key

Models on the hub are kept where Python's huggingface_hub keeps them, and fetched as HF_HOME,
HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE say.
Signals: SIGTERM and SIGINT let running requests finish and end with status 0; a second one ends at
once. SIGHUP loads the model afresh, without losing a stream. In a pair, SIGTERM hands over first.

A pair (see docs/FAILOVER.md): on node a
  hotspare serve MODEL --host 0.0.0.0 --ha-rank 0 --ha-key-file pair.key \\
    --ha-listen 0.0.0.0:7946 --ha-peer b:7946
and the same on b, with --ha-rank 1 and --ha-peer a:7946.";

/// Arguments of `hotspare serve`.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ServeArgs {
    /// What to serve: a directory, a .gguf file, a model on the hub (ORG/NAME, or ORG/NAME:FILE for
    /// one of several .gguf files), or `spark` (the default) or `spark-mini`, which are embedded in
    /// this program.
    #[arg(value_name = "MODEL")]
    pub(crate) model_tag: Option<String>,
    /// A TOML file with the same options.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) supervision: SupervisionArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) request_limits: RequestLimitArgs,
    #[command(flatten)]
    pub(crate) link_limits: LinkLimitArgs,
    #[command(flatten)]
    pub(crate) hub_limits: HubLimitArgs,
    #[command(flatten)]
    pub(crate) replay_limits: ReplayLimitArgs,
    #[command(flatten)]
    pub(crate) ha: HaArgs,
    #[command(flatten)]
    pub(crate) ha_timers: HaTimerArgs,
    #[command(flatten)]
    pub(crate) ha_limits: HaLimitArgs,
}

/// How clients reach the server.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// Address to listen on [default: 127.0.0.1].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) host: Option<String>,
    /// Port to listen on; 0 takes a free one [default: 8000].
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Keys, one of which clients must send as `Authorization: Bearer KEY`. Better set in the
    /// environment as HOTSPARE_API_KEY (or VLLM_API_KEY): arguments are visible to every process.
    #[arg(long, value_name = "KEY", num_args = 1.., hide_possible_values = true)]
    pub(crate) api_key: Option<Vec<Secret>>,
    /// Key that administration needs, such as `hotspare reload` [default: none, and it is open to
    /// this machine only]. Better set in the environment as HOTSPARE_ADMIN_KEY.
    #[arg(long, value_name = "KEY", hide_possible_values = true)]
    pub(crate) admin_key: Option<Secret>,
    /// Seconds that running requests have to finish after SIGTERM [default: 30].
    #[arg(long, value_name = "SECONDS")]
    pub(crate) shutdown_timeout: Option<u64>,
    /// Origins that browsers may call from; `*` for all [default: none].
    #[arg(long, value_name = "ORIGIN", num_args = 1..)]
    pub(crate) allowed_origins: Option<Vec<String>>,
    /// Say in `usage` how many prompt tokens were found in the prefix cache.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub(crate) enable_prompt_tokens_details: Option<bool>,
    /// Send `usage` in every stream, asked for or not.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub(crate) enable_force_include_usage: Option<bool>,
    /// Seconds without a token after which a stream gets a comment; 0 for never [default: 0].
    #[arg(long, value_name = "SECONDS", value_parser = parse_interval_ms)]
    pub(crate) sse_keep_alive_interval: Option<u64>,
    /// Bytes of a request's body at most, such as 4M [default: 4M].
    #[arg(long, value_name = "BYTES", value_parser = parse_body_size)]
    pub(crate) max_body_bytes: Option<usize>,
    /// Open connections at most; further ones wait [default: 4096].
    #[arg(long, value_name = "N", value_parser = parse_num_connections)]
    pub(crate) max_num_connections: Option<usize>,
    /// Name of this node in /ha/status and in the x-hotspare-node header [default: the host's].
    #[arg(long, value_name = "NAME")]
    pub(crate) ha_node: Option<String>,
}

/// What is served.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// The same as MODEL.
    #[arg(long = "model", value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Branch, tag or commit of a model on the hub [default: main].
    #[arg(long, value_name = "REVISION")]
    pub(crate) revision: Option<String>,
    /// Where models from the hub are kept [default: as HF_HUB_CACHE and HF_HOME say].
    #[arg(long, value_name = "DIR")]
    pub(crate) download_dir: Option<PathBuf>,
    /// Time without a byte from the hub after which a download counts as cut [default:
    /// HF_HUB_DOWNLOAD_TIMEOUT, which is in seconds, or 30000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) hub_read_timeout_ms: Option<u64>,
    /// Names that requests may use; the first one is reported [default: MODEL].
    #[arg(long, value_name = "NAME", num_args = 1.., value_parser = parse_name)]
    pub(crate) served_model_name: Option<Vec<String>>,
    /// Tokens in a sequence at most, such as 4096, 32k (32,000) or 32K (32,768); `auto` is the
    /// model's own [default: auto].
    #[arg(long, value_name = "TOKENS", allow_hyphen_values = true)]
    pub(crate) max_model_len: Option<ContextLen>,
    /// Format of the weights: auto, safetensors, gguf, or dummy, which fills the model's shape with
    /// random ones (seeded by --seed): MODEL is then a directory with a config.json, such a file,
    /// or a known shape such as Llama-3.2-1B; where there is no tokenizer, each byte of a text is a
    /// token [default: auto].
    #[arg(long, value_name = "FORMAT")]
    pub(crate) load_format: Option<String>,
    /// Type of the activations: auto (the model's), bfloat16, float16 (or half) or float32. On a
    /// CPU they are float32, and rounded to bfloat16 where they meet weights of that type, unless
    /// float32 is asked for [default: auto].
    #[arg(long, value_name = "TYPE")]
    pub(crate) dtype: Option<String>,
    /// How keys and values are kept: auto, float16 (or half, f16), and on the CPU float32 (or f32)
    /// or q8_0, which takes about half the memory of float16, on a GPU bfloat16 [default: auto:
    /// on the CPU float16 where the model's weights have sixteen bits, on a GPU their type].
    #[arg(long, value_name = "TYPE")]
    pub(crate) kv_cache_dtype: Option<String>,
    /// Quantize the weights while they are loaded, so that less memory holds them and each token
    /// reads fewer bytes: none, q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1, q4_0, q3_k or q2_k
    /// [default: none].
    #[arg(long, short = 'q', value_name = "TYPE")]
    pub(crate) quantization: Option<String>,
    /// A chat template in place of the model's: a file, or the template itself.
    #[arg(long, value_name = "FILE|TEMPLATE")]
    pub(crate) chat_template: Option<String>,
    /// Let requests bring a chat template of their own.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub(crate) trust_request_chat_template: Option<bool>,
    /// Serve token ids in, token ids out, without a tokenizer.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub(crate) skip_tokenizer_init: Option<bool>,
    /// Where sampling defaults come from: auto (the model), vllm (none), or a directory with a
    /// generation_config.json [default: auto].
    #[arg(long, value_name = "SOURCE")]
    pub(crate) generation_config: Option<String>,
    /// Sampling defaults that win over the model's, such as '{"temperature": 0.7}'.
    #[arg(long, value_name = "JSON")]
    pub(crate) override_generation_config: Option<String>,
    /// Log-probabilities a token that a request may ask for, at most [default: 20].
    #[arg(long, value_name = "N")]
    pub(crate) max_logprobs: Option<u32>,
    /// Where hashes of weight files are kept, so that each is computed once [default:
    /// $XDG_CACHE_HOME/hotspare, or ~/.cache/hotspare].
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Seed from which requests without one are given theirs [default: a random one each start].
    #[arg(long, value_name = "SEED")]
    pub(crate) seed: Option<u64>,
}

/// How it is computed.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Engine")]
pub(crate) struct EngineArgs {
    /// Where the model runs: auto (a GPU if there is one that can be used, else the CPU), cpu, or
    /// cuda:N [default: auto].
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Share of the GPU's memory that an engine takes; so much must be free [default: 0.9].
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    pub(crate) gpu_memory_utilization: Option<f64>,
    /// How long a start waits until that share is free, after another engine ended [default:
    /// 10000].
    #[arg(long, value_name = "MS")]
    pub(crate) gpu_memory_wait_ms: Option<u64>,
    /// Memory that captured decode steps (CUDA graphs) may hold on a GPU, such as 256M; where it
    /// does not suffice for all sizes of steps, large ones run as single launches; 0 captures none
    /// [default: 512M].
    #[arg(long, value_name = "BYTES", value_parser = parse_size_or_zero)]
    pub(crate) max_cuda_graph_memory_bytes: Option<usize>,
    /// invariant: a result does not depend on who shares a step, so that a stream goes on with the
    /// same bytes on another engine; fast: on a GPU where cuBLASLt is found it computes the large
    /// products of prompts, in an order of its own; elsewhere both are the same [default:
    /// invariant].
    #[arg(long, value_name = "MODE")]
    pub(crate) numerics: Option<Numerics>,
    /// Sequences that run at a time, at most [default: 256].
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    pub(crate) max_num_seqs: Option<usize>,
    /// Tokens in a step at most; longer prompts are read in chunks [default: 2048].
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    pub(crate) max_num_batched_tokens: Option<usize>,
    /// Requests that wait, at most; further ones are answered 503 at once [default: 1024].
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    pub(crate) max_num_queued_reqs: Option<usize>,
    /// Tokens of one prompt in a step at most; 0 for no bound but the step's [default: 0].
    #[arg(long, value_name = "N")]
    pub(crate) long_prefill_token_threshold: Option<usize>,
    /// Which waiting request runs first [default: fcfs].
    #[arg(long, value_name = "POLICY")]
    pub(crate) scheduling_policy: Option<Policy>,
    /// Reuse the KV of prompts that begin alike [default: true].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub(crate) enable_prefix_caching: Option<bool>,
    /// Memory of the KV cache, such as 2G [default: what --max-num-seqs sequences need, at most
    /// 1 GiB].
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub(crate) kv_cache_memory_bytes: Option<usize>,
    /// Memory in which an engine on a CPU keeps its full KV blocks, such as 2G: when it is lost,
    /// the next one goes on from them and reads nothing again. 0 keeps none [default: 1G].
    #[arg(long, value_name = "BYTES", value_parser = parse_size_or_zero)]
    pub(crate) kv_mirror_memory_bytes: Option<usize>,
    /// Tokens in a KV block [default: 16].
    #[arg(long, value_name = "TOKENS", value_parser = parse_positive)]
    pub(crate) block_size: Option<usize>,
    /// Threads of the CPU backend [default: one for each core].
    #[arg(long, value_name = "N", value_parser = parse_num_threads)]
    pub(crate) num_threads: Option<usize>,
    /// Prepare a step while the one before it runs; same tokens either way [default: true].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub(crate) async_scheduling: Option<bool>,
    /// In place of a model: predictable tokens at a set pace, for tests and measurements; a JSON
    /// object such as '{"step_time_us": 1000}'.
    #[arg(long, value_name = "JSON", hide_short_help = true)]
    pub(crate) scripted_backend: Option<String>,
}

/// How the engine process is watched.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Supervision")]
pub(crate) struct SupervisionArgs {
    /// Seconds that an engine has to become ready [default: 600].
    #[arg(long, value_name = "SECONDS")]
    pub(crate) engine_start_timeout: Option<u64>,
    /// Engines that are loaded and proved beside the one that serves, and take its place when it is
    /// lost; each takes the memory of an engine [default: 0].
    #[arg(long, value_name = "N", value_parser = parse_spare_engines)]
    pub(crate) spare_engines: Option<u32>,
    /// What a spare reads along of running streams, so that it takes them over sooner; costs the
    /// engine that serves a part of a shared device. `auto`: what `full` does, but on a CPU nothing
    /// where --kv-mirror-memory-bytes is not 0 [default: auto].
    #[arg(long, value_name = "WHAT")]
    pub(crate) spare_shadow: Option<SpareShadow>,
    /// Milliseconds without a step, while work is pending, after which an engine counts as hanging;
    /// more where its steps take long [default: 5000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms)]
    pub(crate) engine_hang_floor_ms: Option<u64>,
    /// Milliseconds before an engine that died soon after its start is started again, doubling with
    /// each failure in a row; one that was stable is started again at once [default: 100].
    #[arg(long, value_name = "MS")]
    pub(crate) engine_restart_backoff_min_ms: Option<u64>,
    /// The longest such wait, milliseconds [default: 30000].
    #[arg(long, value_name = "MS")]
    pub(crate) engine_restart_backoff_max_ms: Option<u64>,
    /// Failures in a row after which the node says that it failed; it is tried on at the longest
    /// wait [default: 10].
    #[arg(long, value_name = "N")]
    pub(crate) max_num_engine_failures: Option<u32>,
}

/// What it says meanwhile.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Log")]
pub(crate) struct LogArgs {
    /// error, warn, info, debug, trace, or a filter such as info,hotspare_front=debug [default:
    /// info].
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// One line for people or one JSON object, on standard error [default: human].
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// Seconds between two lines of throughput in the log; 0 for none [default: 10].
    #[arg(long, value_name = "SECONDS", hide_short_help = true)]
    pub(crate) stats_log_interval_s: Option<u64>,
    /// Do not log throughput.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub(crate) disable_log_stats: Option<bool>,
    /// Log a line for each request.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", value_parser = BoolishValueParser::new(),
          hide_possible_values = true)]
    pub(crate) enable_log_requests: Option<bool>,
}

/// Arguments of `hotspare render-template`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RenderCommandArgs {
    /// Bytes of memory beside what the program takes by itself.
    pub(crate) max_memory_bytes: u64,
    /// Seconds of processor time.
    pub(crate) timeout_s: u64,
}

/// Arguments of `hotspare engine`.
#[derive(Args, Clone, Debug)]
pub(crate) struct EngineCommandArgs {
    /// The engine's options.
    #[arg(long, value_name = "JSON")]
    pub(crate) options: String,
    /// As for `serve`.
    #[arg(long, default_value = "info")]
    pub(crate) log_level: String,
    /// As for `serve`.
    #[arg(long, default_value = "human")]
    pub(crate) log_format: LogFormat,
}

impl ServeArgs {
    /// These, and where they say nothing, `lower`.
    pub(crate) fn or(self, lower: Self) -> Self {
        Self {
            model_tag: self.model_tag.or(lower.model_tag),
            config: self.config.or(lower.config),
            server: self.server.or(lower.server),
            model: self.model.or(lower.model),
            engine: self.engine.or(lower.engine),
            supervision: self.supervision.or(lower.supervision),
            log: self.log.or(lower.log),
            request_limits: self.request_limits.or(lower.request_limits),
            link_limits: self.link_limits.or(lower.link_limits),
            hub_limits: self.hub_limits.or(lower.hub_limits),
            replay_limits: self.replay_limits.or(lower.replay_limits),
            ha: self.ha.or(lower.ha),
            ha_timers: self.ha_timers.or(lower.ha_timers),
            ha_limits: self.ha_limits.or(lower.ha_limits),
        }
    }
}

impl ServerArgs {
    fn or(self, lower: Self) -> Self {
        first_of!(
            Self,
            self,
            lower,
            host,
            port,
            api_key,
            admin_key,
            shutdown_timeout,
            allowed_origins,
            enable_prompt_tokens_details,
            enable_force_include_usage,
            sse_keep_alive_interval,
            max_body_bytes,
            max_num_connections,
            ha_node,
        )
    }
}

impl ModelArgs {
    fn or(self, lower: Self) -> Self {
        first_of!(
            Self,
            self,
            lower,
            model,
            revision,
            download_dir,
            hub_read_timeout_ms,
            served_model_name,
            max_model_len,
            load_format,
            dtype,
            kv_cache_dtype,
            quantization,
            chat_template,
            trust_request_chat_template,
            skip_tokenizer_init,
            generation_config,
            override_generation_config,
            max_logprobs,
            cache_dir,
            seed,
        )
    }
}

impl EngineArgs {
    fn or(self, lower: Self) -> Self {
        first_of!(
            Self,
            self,
            lower,
            device,
            gpu_memory_utilization,
            gpu_memory_wait_ms,
            max_cuda_graph_memory_bytes,
            numerics,
            max_num_seqs,
            max_num_batched_tokens,
            max_num_queued_reqs,
            long_prefill_token_threshold,
            scheduling_policy,
            enable_prefix_caching,
            kv_cache_memory_bytes,
            kv_mirror_memory_bytes,
            block_size,
            num_threads,
            async_scheduling,
            scripted_backend,
        )
    }
}

impl SupervisionArgs {
    fn or(self, lower: Self) -> Self {
        first_of!(
            Self,
            self,
            lower,
            engine_start_timeout,
            spare_engines,
            spare_shadow,
            engine_hang_floor_ms,
            engine_restart_backoff_min_ms,
            engine_restart_backoff_max_ms,
            max_num_engine_failures,
        )
    }
}

impl LogArgs {
    fn or(self, lower: Self) -> Self {
        first_of!(
            Self,
            self,
            lower,
            log_level,
            log_format,
            stats_log_interval_s,
            disable_log_stats,
            enable_log_requests,
        )
    }
}
