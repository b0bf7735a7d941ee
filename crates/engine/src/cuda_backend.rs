//! A model on an NVIDIA card.
//!
//! The card works by itself: steps are queued from the engine's own thread, which prepares the next
//! one meanwhile, so there is no thread of the device's.
//!
//! Invariant: an error that ends the card's context ends the engine with a status of its own.

use std::time::Duration;

use hotspare_backend_cuda::card::{Card, FaultCell};
use hotspare_backend_cuda::ops::CudaOps;
use hotspare_backend_cuda::{CudaBackend, CudaOptions, Device, Dtype, Numerics};
use hotspare_batch::{Batch, Executor, ExecutorError, ExecutorInfo, StepOutput, StepRunner};
use hotspare_model::ops::StepLimits;
use hotspare_model::weights::WeightDtype;
use hotspare_model::{LoadOptions, ModelConfig, ModelError, PipelinedRunner};

use crate::backend::{AnyExecutor, Loaded};
use crate::card_memory::kv_budget;
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
    let runner = runner.map_err(|error| load_error(&fault, error))?;
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
    Ok(Loaded {
        executor: executor(runner, fault, options, faults)?,
        max_model_len: load_options.limits.max_model_len,
        model_hash,
        numerics_id,
        device: format!("cuda:{ordinal}"),
        num_eager_blocks: usize::MAX,
    })
}

/// Why the model is not on the card.
fn load_error(fault: &FaultCell, error: ModelError) -> EngineError {
    match (fault.get(), from_model(error)) {
        (Some(fault), _) => ExecutorError::ContextLost(fault.to_string()).into(),
        (None, EngineError::OutOfMemory(error)) => EngineError::CardOutOfMemory(error),
        (None, error) => error,
    }
}

/// With look-ahead the card works by itself; without it each step is waited for.
fn executor(
    runner: PipelinedRunner<CudaOps<Card>>,
    fault: FaultCell,
    options: &EngineOptions,
    faults: &Faults,
) -> Result<AnyExecutor, EngineError> {
    if options.lookahead {
        let slow_step = faults.slow_step;
        return Ok(AnyExecutor::Card(Box::new(CardExecutor {
            runner,
            fault,
            slow_step,
        })));
    }
    let runner = NamedRunner {
        runner: runner.into_runner(),
        fault,
    };
    AnyExecutor::new(runner, options, faults)
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

/// What an error is, if it ended the context.
fn name(fault: &FaultCell, error: ExecutorError) -> ExecutorError {
    match fault.get() {
        Some(fault) => ExecutorError::ContextLost(fault.to_string()),
        None => error,
    }
}

/// A runner on a card: each step is waited for.
struct NamedRunner<R> {
    runner: R,
    fault: FaultCell,
}

impl<R: StepRunner> StepRunner for NamedRunner<R> {
    fn info(&self) -> ExecutorInfo {
        self.runner.info()
    }

    fn run(&mut self, batch: &Batch) -> Result<StepOutput, ExecutorError> {
        let output = self.runner.run(batch);
        output.map_err(|error| name(&self.fault, error))
    }
}

/// Steps on a card.
pub(crate) struct CardExecutor {
    runner: PipelinedRunner<CudaOps<Card>>,
    fault: FaultCell,
    slow_step: Duration,
}

impl Executor for CardExecutor {
    fn info(&self) -> &ExecutorInfo {
        self.runner.info()
    }

    fn submit(&mut self, batch: Batch) -> Result<(), ExecutorError> {
        let submitted = self.runner.submit(batch);
        submitted.map_err(|error| name(&self.fault, error))
    }

    fn wait(&mut self) -> Result<StepOutput, ExecutorError> {
        if !self.slow_step.is_zero() {
            std::thread::sleep(self.slow_step);
        }
        let output = self.runner.wait();
        output.map_err(|error| name(&self.fault, error))
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

#[cfg(test)]
mod tests {
    use hotspare_backend_cuda::DEFAULT_MAX_GRAPH_BYTES;

    use super::*;

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
