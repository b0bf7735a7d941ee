//! What the merged options mean: the settings of each part, with defaults applied.
//!
//! Invariant: a value that is here was checked; what can only be checked with the model's files is
//! left to the part that reads them.

use std::path::PathBuf;
use std::time::Duration;

use hotspare_engine::{
    Backend, EngineOptions, ScriptedOptions, is_quantization, quantization_names,
};
use hotspare_front::{FrontConfig, GenerationConfigSource, LoadFormat, ModelOptions, ShadowMode};
use hotspare_http::HttpConfig;
use serde_json::{Map, Value};

use super::CliError;
use super::args::{EngineArgs, LogArgs, ModelArgs, ServeArgs, ServerArgs, SupervisionArgs};
use super::ha_args::HaSettings;
use super::hub_args::hub_options;
use super::values::{ContextLen, LogFormat, Numerics, Policy, Secret};
use crate::hub::HubOptions;

/// The model of a server that names none.
const DEFAULT_MODEL: &str = "spark";

/// Settings of `hotspare serve`.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Whether a key is needed; the keys themselves are in `http`.
    pub(crate) shutdown_timeout: Duration,
    pub(crate) http: HttpConfig,
    pub(crate) front: FrontConfig,
    pub(crate) model: ModelOptions,
    pub(crate) engine: EngineOptions,
    pub(crate) ha: HaSettings,
    /// Branch, tag or commit of a model on the hub.
    pub(crate) revision: Option<String>,
    /// Where models from the hub are kept.
    pub(crate) download_dir: Option<PathBuf>,
    /// How patient downloads are.
    pub(crate) hub: HubOptions,
    pub(crate) log_level: String,
    pub(crate) log_format: LogFormat,
    /// To be logged once there is a log.
    pub(crate) warnings: Vec<String>,
}

impl Settings {
    /// Applies defaults to `args`.
    pub(crate) fn resolve(args: ServeArgs, mut warnings: Vec<String>) -> Result<Self, CliError> {
        let hub = hub_options(&args);
        let ServeArgs {
            model_tag,
            config: _,
            server,
            model,
            engine,
            supervision,
            log,
            request_limits,
            link_limits,
            hub_limits: _,
            replay_limits,
            ha,
            ha_timers,
            ha_limits,
        } = args;
        let model_options = model_options(&model, model_tag)?;
        let mut engine_options = engine_options(&engine, &model, &model_options, &mut warnings)?;
        let mut front = front_config(&supervision, &log, &server);
        link_limits.apply(&mut front, &mut engine_options);
        front.assigned_seed = model.seed;
        front.has_kv_mirror =
            engine_options.enable_prefix_caching && engine_options.kv_mirror_memory_bytes > 0;
        let mut http = http_config(&server)?;
        http.max_logprobs = model.max_logprobs.map_or(http.max_logprobs, i64::from);
        http.trust_request_chat_template = model.trust_request_chat_template.unwrap_or(false);
        let defaults = HttpConfig::default();
        let shutdown_timeout_ms = server
            .shutdown_timeout
            .map_or(defaults.shutdown_timeout_ms, |s| s.saturating_mul(1000));
        http.shutdown_timeout_ms = shutdown_timeout_ms;
        request_limits.apply(&mut http)?;
        replay_limits.apply(&mut front, &mut http);
        let ha = ha.resolve(&ha_timers, &ha_limits, &mut front, &mut warnings);
        if !engine_options.enable_prefix_caching {
            // What is read along is found again by the prefix cache only.
            (front.spare_shadow, front.peer_shadow) = (ShadowMode::Off, ShadowMode::Off);
        }
        Ok(Self {
            ha,
            host: server.host.unwrap_or_else(|| "127.0.0.1".to_owned()),
            port: server.port.unwrap_or(8000),
            shutdown_timeout: Duration::from_millis(shutdown_timeout_ms),
            http,
            front,
            model: model_options,
            engine: engine_options,
            revision: model.revision,
            download_dir: model.download_dir,
            hub,
            log_level: log.log_level.unwrap_or_else(|| "info".to_owned()),
            log_format: log.log_format.unwrap_or(LogFormat::Human),
            warnings,
        })
    }
}

fn http_config(server: &ServerArgs) -> Result<HttpConfig, CliError> {
    let defaults = HttpConfig::default();
    let keys = server.api_key.iter().flatten().map(Secret::reveal);
    let mut allowed_origins = Vec::new();
    for origin in server.allowed_origins.iter().flatten() {
        // vLLM takes one JSON list.
        match origin.starts_with('[') {
            false => allowed_origins.push(origin.clone()),
            true => allowed_origins.extend(
                serde_json::from_str::<Vec<String>>(origin)
                    .map_err(|e| CliError::usage(format!("--allowed-origins: {e}")))?,
            ),
        }
    }
    Ok(HttpConfig {
        api_keys: keys.map(str::to_owned).collect(),
        admin_key: server.admin_key.as_ref().map(|key| key.reveal().to_owned()),
        allowed_origins,
        enable_prompt_tokens_details: server.enable_prompt_tokens_details.unwrap_or(false),
        enable_force_include_usage: server.enable_force_include_usage.unwrap_or(false),
        sse_keep_alive_interval_ms: server
            .sse_keep_alive_interval
            .unwrap_or(defaults.sse_keep_alive_interval_ms),
        max_body_bytes: server.max_body_bytes.unwrap_or(defaults.max_body_bytes),
        max_num_connections: server
            .max_num_connections
            .unwrap_or(defaults.max_num_connections),
        ..defaults
    })
}

fn front_config(supervision: &SupervisionArgs, log: &LogArgs, server: &ServerArgs) -> FrontConfig {
    let mut config = FrontConfig {
        node: server.ha_node.clone().unwrap_or_else(host_name),
        log_requests: log.enable_log_requests.unwrap_or(false),
        ..FrontConfig::default()
    };
    set!(supervision => config;
        engine_hang_floor_ms, engine_restart_backoff_min_ms, engine_restart_backoff_max_ms,
        max_num_engine_failures,
    );
    set!(log => config; stats_log_interval_s);
    if let Some(timeout_s) = supervision.engine_start_timeout {
        config.engine_start_timeout_s = timeout_s;
    }
    if let Some(num) = supervision.spare_engines {
        config.num_spare_engines = num;
    }
    if let Some(shadow) = supervision.spare_shadow {
        config.spare_shadow = shadow.into();
    }
    if log.disable_log_stats == Some(true) {
        config.stats_log_interval_s = 0;
    }
    config
}

/// This machine's name.
fn host_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy().trim().to_owned();
    if name.is_empty() {
        "hotspare".to_owned()
    } else {
        name
    }
}

fn model_options(model: &ModelArgs, tag: Option<String>) -> Result<ModelOptions, CliError> {
    let name = tag.or(model.model.clone());
    let over = model.override_generation_config.as_deref();
    let over: Map<String, Value> = match over {
        None => Map::new(),
        Some(json) => serde_json::from_str(json).map_err(|e| {
            CliError::usage(format!(
                "--override-generation-config is no JSON object: {e}"
            ))
        })?,
    };
    let source = match model.generation_config.as_deref() {
        None | Some("auto") => GenerationConfigSource::Model,
        Some("vllm") => GenerationConfigSource::Neutral,
        Some(directory) => GenerationConfigSource::Directory(PathBuf::from(directory)),
    };
    Ok(ModelOptions {
        model: name.unwrap_or_else(|| DEFAULT_MODEL.to_owned()),
        root: None,
        load_format: load_format(model.load_format.as_deref())?,
        dummy_seed: model.seed.unwrap_or(0),
        served_model_names: model.served_model_name.clone().unwrap_or_default(),
        max_model_len: match model.max_model_len {
            None | Some(ContextLen::Auto) => None,
            Some(ContextLen::Tokens(tokens)) => Some(tokens),
        },
        chat_template: model
            .chat_template
            .as_deref()
            .map(chat_template)
            .transpose()?,
        skip_tokenizer_init: model.skip_tokenizer_init.unwrap_or(false),
        generation_config: source,
        override_generation_config: over,
    })
}

/// The template in a file, or the argument itself where it looks like one.
fn chat_template(value: &str) -> Result<String, CliError> {
    match std::fs::read_to_string(value) {
        Ok(text) => Ok(text),
        Err(_) if value.contains(['{', '\n']) => Ok(value.to_owned()),
        Err(error) => Err(CliError::usage(format!("--chat-template {value}: {error}"))),
    }
}

fn engine_options(
    engine: &EngineArgs,
    model: &ModelArgs,
    served: &ModelOptions,
    warnings: &mut Vec<String>,
) -> Result<EngineOptions, CliError> {
    let defaults = EngineOptions::default();
    let device = device(engine.device.as_deref())?;
    let backend = match engine.scripted_backend.as_deref() {
        None => Backend::Model,
        Some(json) => {
            let options: ScriptedOptions = serde_json::from_str(json)
                .map_err(|e| CliError::usage(format!("--scripted-backend: {e}")))?;
            warnings.push(
                "The scripted backend answers with meaningless tokens; it is for tests.".to_owned(),
            );
            Backend::Scripted(options)
        }
    };
    Ok(EngineOptions {
        model: served.model.clone(),
        device,
        gpu_memory_utilization: engine
            .gpu_memory_utilization
            .unwrap_or(defaults.gpu_memory_utilization),
        gpu_memory_wait_ms: engine
            .gpu_memory_wait_ms
            .unwrap_or(defaults.gpu_memory_wait_ms),
        max_cuda_graph_memory_bytes: engine
            .max_cuda_graph_memory_bytes
            .unwrap_or(defaults.max_cuda_graph_memory_bytes),
        numerics: match engine.numerics {
            Some(Numerics::Fast) => "fast".to_owned(),
            _ => defaults.numerics,
        },
        load_format: served.load_format.name().to_owned(),
        dummy_seed: served.dummy_seed,
        dtype: dtype(model.dtype.as_deref())?,
        kv_cache_dtype: kv_cache_dtype(model.kv_cache_dtype.as_deref())?,
        quantization: quantization(model.quantization.as_deref())?,
        cache_dir: model.cache_dir.clone(),
        max_num_seqs: engine.max_num_seqs.unwrap_or(defaults.max_num_seqs),
        max_num_batched_tokens: engine
            .max_num_batched_tokens
            .unwrap_or(defaults.max_num_batched_tokens),
        max_num_waiting: engine
            .max_num_queued_reqs
            .unwrap_or(defaults.max_num_waiting),
        long_prefill_token_threshold: engine
            .long_prefill_token_threshold
            .unwrap_or(defaults.long_prefill_token_threshold),
        priority_scheduling: engine.scheduling_policy == Some(Policy::Priority),
        kv_cache_memory_bytes: engine.kv_cache_memory_bytes,
        kv_mirror_memory_bytes: engine
            .kv_mirror_memory_bytes
            .unwrap_or(defaults.kv_mirror_memory_bytes),
        block_size: engine.block_size.unwrap_or(defaults.block_size),
        enable_prefix_caching: engine
            .enable_prefix_caching
            .unwrap_or(defaults.enable_prefix_caching),
        num_threads: engine.num_threads,
        lookahead: engine.async_scheduling.unwrap_or(defaults.lookahead),
        backend,
        ..EngineOptions::default()
    })
}

/// Where a model can run: on the CPU, or, in a build with the feature `cuda`, on a card.
fn device(name: Option<&str>) -> Result<String, CliError> {
    let name = name.unwrap_or("auto");
    // vLLM's name of the first one.
    let name = if name == "cuda" { "cuda:0" } else { name };
    let is_card = name
        .strip_prefix("cuda:")
        .is_some_and(|number| number.parse::<usize>().is_ok());
    match name {
        "auto" | "cpu" => Ok(name.to_owned()),
        _ if is_card && hotspare_engine::HAS_CUDA => Ok(name.to_owned()),
        _ if is_card => Err(CliError::usage(format!(
            "--device {name}: this build has no CUDA backend (it is a feature: `cargo build \
             --release --features cuda`); use `--device cpu`"
        ))),
        _ => Err(CliError::usage(format!(
            "--device {name}: there are `auto`, `cpu` and `cuda:N`, such as cuda:0"
        ))),
    }
}

/// Formats that the engine reads.
fn load_format(name: Option<&str>) -> Result<LoadFormat, CliError> {
    let format = name.unwrap_or("auto").parse();
    format.map_err(|e| CliError::usage(format!("--load-format: {e}")))
}

/// Types that a KV cache has; the engine refuses what its device lacks.
fn kv_cache_dtype(name: Option<&str>) -> Result<String, CliError> {
    match name.unwrap_or("auto") {
        "auto" => Ok("auto".to_owned()),
        "float16" | "half" | "f16" => Ok("float16".to_owned()),
        "bfloat16" | "bf16" => Ok("bfloat16".to_owned()),
        "float32" | "float" | "f32" => Ok("float32".to_owned()),
        "q8_0" => Ok("q8_0".to_owned()),
        other => Err(CliError::usage(format!(
            "--kv-cache-dtype {other}: there are `auto`, `float32`, `float16`, `bfloat16` (on a \
             GPU) and `q8_0` (on the CPU)"
        ))),
    }
}

/// Types that weights can be quantized to at load. vLLM's own names are of checkpoints that are
/// quantized already, or of types that a CPU does not have.
fn quantization(name: Option<&str>) -> Result<String, CliError> {
    let name = name.unwrap_or("none").to_lowercase();
    if is_quantization(&name) {
        return Ok(name);
    }
    Err(CliError::usage(format!(
        "--quantization {name}: this build quantizes dense weights while it loads them, to {}; \
         `none` takes them as they are stored (GGUF files may be quantized already)",
        quantization_names()
    )))
}

/// vLLM's names of types; a CPU computes in float32 whatever is asked for, and says so.
fn dtype(name: Option<&str>) -> Result<String, CliError> {
    match name {
        None | Some("auto") => Ok("auto".to_owned()),
        Some("float32" | "float") => Ok("float32".to_owned()),
        Some("bfloat16") => Ok("bfloat16".to_owned()),
        Some("half" | "float16") => Ok("float16".to_owned()),
        Some(other) => Err(CliError::usage(format!(
            "--dtype {other}: there are `auto`, `bfloat16`, `float16` and `float32`"
        ))),
    }
}
