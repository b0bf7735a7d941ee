//! The real backend: a model's files, on the CPU; a card takes what is prepared here.
//!
//! Invariant: an engine that cannot start says what is missing and which flag helps.

use std::thread::available_parallelism;

use hotspare_backend_cpu::{CpuOps, CpuOptions};
use hotspare_batch::StepRunner;
use hotspare_model::ops::{OpsError, StepLimits};
use hotspare_model::weights::WeightDtype;
use hotspare_model::{
    HashCache, LoadFormat, LoadOptions, LoadStage, ModelConfig, ModelError, ModelFiles,
    ModelRunner, ModelSource, Quantization, kv_bytes_per_block,
};

use crate::backend::{AnyExecutor, Loaded};
use crate::device::{self, Place};
use crate::outbox::Outbox;
use crate::progress::ProgressReporter;
use crate::{EngineError, EngineOptions, Faults, kv_size};

/// A model's files and what the options make of them, for any device.
pub(crate) struct Prepared {
    pub(crate) files: ModelFiles,
    pub(crate) config: ModelConfig,
    pub(crate) limits: StepLimits,
    pub(crate) model_hash: String,
    /// For quantizing at load, and on the CPU for everything.
    pub(crate) num_threads: usize,
}

/// Loads the model that the options name. Progress goes to the front.
pub(crate) fn load(
    options: &EngineOptions,
    faults: &Faults,
    outbox: &mut Outbox,
) -> Result<Loaded, EngineError> {
    check_names(options)?;
    let mut progress = ProgressReporter::new(outbox);
    // Before a long load: a card that cannot be used is said at once.
    let place = device::find(&options.device)?;
    let prepared = prepare(options, &mut progress)?;
    match place {
        Place::Cpu => load_on_cpu(options, faults, prepared, progress),
        #[cfg(feature = "cuda")]
        Place::Card(card, fault) => {
            crate::cuda_backend::load(options, faults, prepared, (*card, fault), progress)
        }
    }
}

fn prepare(
    options: &EngineOptions,
    progress: &mut ProgressReporter<'_>,
) -> Result<Prepared, EngineError> {
    let format: LoadFormat = options.load_format.parse()?;
    let source = ModelSource::resolve_as(&options.model, format, options.dummy_seed)?;
    let files = source.open()?;
    let config = files.config()?;
    let max_model_len = config.resolve_max_model_len(options.max_model_len)?;
    let cache_dir = options.cache_dir.clone().or_else(HashCache::default_dir);
    let cache = cache_dir.as_deref().map(HashCache::new);
    let model_hash = files.content_hash(cache.as_ref(), &mut |done, total| {
        progress.report("hashing the model", done, total);
    });
    let num_threads = options.num_threads.unwrap_or_else(default_num_threads);
    Ok(Prepared {
        config,
        limits: StepLimits {
            max_num_batched_tokens: options.max_num_batched_tokens,
            max_num_seqs: options.max_num_seqs,
            max_model_len,
        },
        model_hash: model_hash.to_string(),
        num_threads: num_threads.max(1),
        files,
    })
}

/// What loading says meanwhile.
pub(crate) fn stage_name(stage: LoadStage, is_quantizing: bool) -> &'static str {
    match stage {
        LoadStage::Weights if is_quantizing => "quantizing weights",
        LoadStage::Weights => "loading weights",
        LoadStage::Buffers => "allocating buffers",
        LoadStage::WarmUp => "capturing decode steps",
    }
}

fn load_on_cpu(
    options: &EngineOptions,
    faults: &Faults,
    prepared: Prepared,
    mut progress: ProgressReporter<'_>,
) -> Result<Loaded, EngineError> {
    let Prepared {
        files,
        config,
        limits,
        model_hash,
        num_threads,
    } = prepared;
    if options.dtype == "float16" {
        tracing::warn!(
            "--dtype float16: activations on a CPU are float32, rounded to bfloat16 where the \
             weights are"
        );
    }
    let max_model_len = limits.max_model_len;
    let kv_dtype = kv_dtype(options, &config)?;
    let bytes_per_block = kv_bytes_per_block(&config, options.block_size, kv_dtype);
    let num_blocks = kv_size::num_blocks(options, max_model_len, bytes_per_block)?;
    let ops = CpuOps::new(CpuOptions {
        num_threads,
        limits: limits.clone(),
        bf16_activations: has_bf16_activations(options),
    });
    let load_options = LoadOptions {
        limits,
        num_blocks,
        block_size: options.block_size,
        kv_dtype,
        quantization: quantization(options, num_threads)?,
    };
    let is_quantizing = load_options.quantization.is_some();
    let ops = ops.map_err(|error| from_model(error.into()))?;
    let runner = ModelRunner::load(ops, &files, &load_options, &mut |at| {
        progress.report(stage_name(at.stage, is_quantizing), at.done, at.total);
    });
    let runner = runner.map_err(from_model)?;
    progress.finish()?;
    let numerics_id = runner.numerics_id();
    tracing::info!(
        model = options.model,
        num_threads,
        num_blocks,
        kv_cache_bytes = num_blocks * bytes_per_block,
        vocab_size = runner.info().vocab_size,
        max_model_len,
        numerics_id,
        "the model is loaded"
    );
    Ok(Loaded {
        executor: AnyExecutor::new(runner, options, faults)?,
        max_model_len,
        model_hash,
        numerics_id,
        device: "cpu".to_owned(),
        num_eager_blocks: kv_size::num_eager_blocks(options, max_model_len),
    })
}

/// Whether the CPU backend can run the model: loads it with the smallest buffers, and drops it.
///
/// # Errors
/// What a start would fail with.
pub fn check_on_cpu(files: &ModelFiles) -> Result<(), ModelError> {
    const NUM_TOKENS: usize = 16;
    let config = files.config()?;
    let limits = StepLimits {
        max_num_batched_tokens: 1,
        max_num_seqs: 1,
        max_model_len: NUM_TOKENS.min(config.max_context_len()),
    };
    let options = LoadOptions {
        limits: limits.clone(),
        num_blocks: 1,
        block_size: NUM_TOKENS,
        kv_dtype: WeightDtype::F32,
        quantization: None,
    };
    let ops = CpuOps::new(CpuOptions {
        num_threads: 1,
        limits,
        bf16_activations: true,
    })?;
    ModelRunner::load(ops, files, &options, &mut |_| {}).map(drop)
}

/// Checks the options that are names.
fn check_names(options: &EngineOptions) -> Result<(), EngineError> {
    let unknown = |flag: &str, value: &str, known: &str| {
        Err(EngineError::Options(format!(
            "{flag} {value} is not supported; this build has {known}"
        )))
    };
    if !["invariant", "fast"].contains(&options.numerics.as_str()) {
        return unknown("--numerics", &options.numerics, "invariant and fast");
    }
    match options.dtype.as_str() {
        "auto" | "bfloat16" | "float16" | "float32" => Ok(()),
        dtype => unknown("--dtype", dtype, "auto, bfloat16, float16 and float32"),
    }
}

/// Whether activations are rounded to bfloat16 where they meet weights of that type, as `auto` in
/// vLLM and as llama.cpp.
fn has_bf16_activations(options: &EngineOptions) -> bool {
    options.dtype != "float32"
}

/// The type that `--kv-cache-dtype` names. As in vLLM, `auto` follows the model's weights.
fn kv_dtype(options: &EngineOptions, config: &ModelConfig) -> Result<WeightDtype, EngineError> {
    match options.kv_cache_dtype.as_str() {
        "auto" => match config.dtype.as_deref() {
            Some("bfloat16" | "float16") => Ok(WeightDtype::F16),
            _ => Ok(WeightDtype::F32),
        },
        "float32" => Ok(WeightDtype::F32),
        "float16" => Ok(WeightDtype::F16),
        "q8_0" => Ok(WeightDtype::Q8_0),
        other => Err(EngineError::Options(format!(
            "--kv-cache-dtype {other} is not supported on the CPU, which has auto, float32, \
             float16 and q8_0"
        ))),
    }
}

/// Whether `--quantization` takes that name: `none`, or one of [`quantization_names`].
pub fn is_quantization(name: &str) -> bool {
    name == "none" || Quantization::dtype_from_name(name).is_some()
}

/// The types that weights can be quantized to at load, as a list for messages.
pub fn quantization_names() -> String {
    Quantization::offered_names()
}

/// What `--quantization` asks for.
pub(crate) fn quantization(
    options: &EngineOptions,
    num_threads: usize,
) -> Result<Option<Quantization>, EngineError> {
    let name = options.quantization.as_str();
    match Quantization::dtype_from_name(name) {
        Some(dtype) => Ok(Some(Quantization {
            dtype,
            num_threads: num_threads.max(1),
        })),
        None if name == "none" => Ok(None),
        None => Err(EngineError::Options(format!(
            "--quantization {name} is not supported; this build has none, {}",
            quantization_names()
        ))),
    }
}

fn default_num_threads() -> usize {
    available_parallelism().map_or(1, |num_threads| num_threads.get())
}

pub(crate) fn from_model(error: ModelError) -> EngineError {
    match error {
        ModelError::Ops(error @ OpsError::OutOfMemory { .. }) => EngineError::OutOfMemory(error),
        error => EngineError::Model(error),
    }
}
