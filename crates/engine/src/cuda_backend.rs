//! A model on an NVIDIA card.
//!
//! The card works by itself: steps are queued from the engine's own thread, which prepares the next
//! one meanwhile, so there is no thread of the device's.
//!
//! Invariant: an error that ends the card's context ends the engine with a status of its own.

use std::time::Duration;

use hotspare_backend_cuda::card::{Card, FaultCell};
use hotspare_backend_cuda::ops::CudaOps;
use hotspare_backend_cuda::{CudaBackend, CudaOptions, Device, Dtype, KvBudget, Numerics};
use hotspare_batch::{Batch, Executor, ExecutorError, ExecutorInfo, StepOutput};
use hotspare_model::ops::StepLimits;
use hotspare_model::weights::WeightDtype;
use hotspare_model::{LoadOptions, ModelConfig, PipelinedRunner};

use crate::backend::{AnyExecutor, Loaded};
use crate::model_backend::{Prepared, from_model, quantization, stage_name};
use crate::progress::ProgressReporter;
use crate::{EngineError, EngineOptions, Faults};

/// Loads what was prepared onto `card`, which leaves the error that ends it in `fault`.
pub(crate) fn load(
    options: &EngineOptions,
    faults: &Faults,
    prepared: Prepared,
    (card, fault): (Card, FaultCell),
    mut progress: ProgressReporter<'_>,
) -> Result<Loaded, EngineError> {
    let Prepared {
        files,
        config,
        limits,
        model_hash,
        num_threads,
    } = prepared;
    let dtype = dtype(options, &config);
    let ordinal = card.info().ordinal;
    let device = card.description();
    let cuda_options = CudaOptions {
        kv_budget: kv_budget(options, &card)?,
        ..cuda_options(options, &limits, dtype)
    };
    let quantization = quantization(options, num_threads)?;
    let load_options = LoadOptions {
        limits,
        // As many as fit, unless a number was given.
        num_blocks: options
            .num_kv_blocks_override
            .unwrap_or(i32::MAX as usize / options.block_size.max(1)),
        block_size: options.block_size,
        kv_dtype: kv_dtype(options, dtype)?,
        quantization,
    };
    let is_quantizing = quantization.is_some();
    let runner = CudaBackend::load(card, cuda_options, &files, &load_options, &mut |at| {
        progress.report(stage_name(at.stage, is_quantizing), at.done, at.total);
    });
    let runner = runner.map_err(|error| match fault.get() {
        Some(fault) => ExecutorError::ContextLost(fault.to_string()).into(),
        None => from_model(error),
    })?;
    progress.finish()?;
    let numerics_id = runner.numerics_id();
    tracing::info!(
        model = options.model,
        device,
        num_blocks = runner.info().num_blocks,
        vocab_size = runner.info().vocab_size,
        max_model_len = load_options.limits.max_model_len,
        numerics_id,
        "the model is loaded"
    );
    let executor = match options.lookahead {
        true => AnyExecutor::Card(Box::new(CardExecutor {
            runner,
            fault,
            slow_step: faults.slow_step,
        })),
        false => AnyExecutor::new(runner.into_runner(), options, faults)?,
    };
    Ok(Loaded {
        executor,
        max_model_len: load_options.limits.max_model_len,
        model_hash,
        numerics_id,
        device: format!("cuda:{ordinal}"),
        num_eager_blocks: usize::MAX,
    })
}

/// All but the memory of the KV cache.
fn cuda_options(options: &EngineOptions, limits: &StepLimits, dtype: Dtype) -> CudaOptions {
    CudaOptions {
        numerics: numerics(options),
        uses_graphs: options.lookahead,
        max_graph_bytes: options.max_cuda_graph_memory_bytes,
        ..CudaOptions::new(limits.clone(), dtype)
    }
}

/// Steps on a card.
pub(crate) struct CardExecutor {
    runner: PipelinedRunner<CudaOps<Card>>,
    fault: FaultCell,
    slow_step: Duration,
}

impl CardExecutor {
    /// What the error is, if it ended the context.
    fn name(&self, error: ExecutorError) -> ExecutorError {
        match self.fault.get() {
            Some(fault) => ExecutorError::ContextLost(fault.to_string()),
            None => error,
        }
    }
}

impl Executor for CardExecutor {
    fn info(&self) -> &ExecutorInfo {
        self.runner.info()
    }

    fn submit(&mut self, batch: Batch) -> Result<(), ExecutorError> {
        let submitted = self.runner.submit(batch);
        submitted.map_err(|error| self.name(error))
    }

    fn wait(&mut self) -> Result<StepOutput, ExecutorError> {
        if !self.slow_step.is_zero() {
            std::thread::sleep(self.slow_step);
        }
        let output = self.runner.wait();
        output.map_err(|error| self.name(error))
    }
}

/// The order of sums that `--numerics` names.
fn numerics(options: &EngineOptions) -> Numerics {
    match options.numerics.as_str() {
        "fast" => Numerics::Fast,
        _ => Numerics::Invariant,
    }
}

/// The type of activations: what was asked for, or the model's.
fn dtype(options: &EngineOptions, config: &ModelConfig) -> Dtype {
    let name = match options.dtype.as_str() {
        "auto" => config.dtype.as_deref().unwrap_or("bfloat16"),
        name => name,
    };
    match name {
        "float32" => Dtype::F32,
        "float16" => Dtype::F16,
        _ => Dtype::Bf16,
    }
}

/// The type of keys and values: what was asked for, or the activations', of sixteen bits at most.
fn kv_dtype(options: &EngineOptions, dtype: Dtype) -> Result<WeightDtype, EngineError> {
    match (options.kv_cache_dtype.as_str(), dtype) {
        ("bfloat16", _) | ("auto", Dtype::Bf16) => Ok(WeightDtype::Bf16),
        ("float16" | "auto", _) => Ok(WeightDtype::F16),
        (other, _) => Err(EngineError::Options(format!(
            "--kv-cache-dtype {other} is not supported on a GPU, which has auto, float16 and \
             bfloat16"
        ))),
    }
}

/// What the KV cache may take. As in vLLM the share is of the whole card, and what others use of it
/// counts.
fn kv_budget(options: &EngineOptions, card: &Card) -> Result<KvBudget, EngineError> {
    if options.num_kv_blocks_override.is_some() {
        return Ok(KvBudget::Exact);
    }
    if let Some(bytes) = options.kv_cache_memory_bytes {
        return Ok(KvBudget::Bytes(bytes));
    }
    let memory = card.memory();
    let memory = memory.map_err(|error| ExecutorError::Device(error.to_string()))?;
    let share = options.gpu_memory_utilization;
    share_of_free(share, memory.free_bytes, memory.total_bytes)
        .map(KvBudget::Utilization)
        .ok_or_else(|| {
            EngineError::Options(format!(
                "--gpu-memory-utilization {share}: others use {} of the {} bytes of {} already; \
                 raise it, or see with nvidia-smi what they are",
                memory.total_bytes - memory.free_bytes,
                memory.total_bytes,
                card.description()
            ))
        })
}

/// The share of what is free that makes `share` of all; `None` where others use more.
fn share_of_free(share: f64, free_bytes: usize, total_bytes: usize) -> Option<f64> {
    let used = total_bytes.saturating_sub(free_bytes) as f64;
    let allowed = total_bytes as f64 * share - used;
    (allowed > 0.0 && free_bytes > 0).then(|| (allowed / free_bytes as f64).min(1.0))
}

#[cfg(test)]
mod tests {
    use hotspare_backend_cuda::DEFAULT_MAX_GRAPH_BYTES;

    use super::*;

    #[test]
    fn the_share_is_of_the_whole_card() {
        let share = |share, free, total| share_of_free(share, free, total).unwrap();
        assert!((share(0.9, 1000, 1000) - 0.9).abs() < 1e-9);
        // Others have 400 of 1000: of 900 are 500 left, five sixths of what is free.
        assert!((share(0.9, 600, 1000) - 5.0 / 6.0).abs() < 1e-9);
        assert!((share(1.0, 600, 1000) - 1.0).abs() < 1e-9);
        assert_eq!(share_of_free(0.4, 600, 1000), None);
        assert_eq!(share_of_free(0.9, 0, 1000), None);
    }

    #[test]
    fn graphs_have_the_bound_that_was_given() {
        let limits = StepLimits {
            max_num_batched_tokens: 2048,
            max_num_seqs: 256,
            max_model_len: 4096,
        };
        let options = EngineOptions {
            max_cuda_graph_memory_bytes: 77,
            ..EngineOptions::default()
        };
        let given = cuda_options(&options, &limits, Dtype::Bf16);
        assert_eq!((given.max_graph_bytes, given.uses_graphs), (77, true));
        let default = cuda_options(&EngineOptions::default(), &limits, Dtype::Bf16);
        assert_eq!(default.max_graph_bytes, DEFAULT_MAX_GRAPH_BYTES);
    }

    #[test]
    fn keys_and_values_follow_the_activations_in_sixteen_bits() {
        let kv = |name: &str, dtype| {
            let options = EngineOptions {
                kv_cache_dtype: name.to_owned(),
                ..EngineOptions::default()
            };
            kv_dtype(&options, dtype).map_err(|error| error.to_string())
        };
        assert_eq!(kv("auto", Dtype::Bf16), Ok(WeightDtype::Bf16));
        assert_eq!(kv("auto", Dtype::F32), Ok(WeightDtype::F16));
        assert_eq!(kv("float16", Dtype::Bf16), Ok(WeightDtype::F16));
        assert!(kv("q8_0", Dtype::Bf16).unwrap_err().contains("q8_0"));
    }
}
