//! A model on an NVIDIA card.
//!
//! The card works by itself: steps are queued from the engine's own thread, which prepares the next
//! one meanwhile, so there is no thread of the device's.
//!
//! Invariant: an error that ends the card's context ends the engine with a status of its own.

use std::time::{Duration, Instant};

use hotspare_backend_cuda::card::{Card, FaultCell};
use hotspare_backend_cuda::ops::CudaOps;
use hotspare_backend_cuda::{
    CudaBackend, CudaOptions, Device, DeviceMemory, Dtype, KvBudget, Numerics,
};
use hotspare_batch::{Batch, Executor, ExecutorError, ExecutorInfo, StepOutput, StepRunner};
use hotspare_model::weights::WeightDtype;
use hotspare_model::{LoadOptions, ModelConfig, PipelinedRunner};

use crate::backend::{AnyExecutor, Loaded};
use crate::model_backend::{Prepared, from_model, quantization, stage_name};
use crate::progress::ProgressReporter;
use crate::{EngineError, EngineOptions, Faults};

/// How often free memory is looked at while it grows.
const MEMORY_POLL: Duration = Duration::from_millis(100);

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
        numerics: numerics(options),
        uses_graphs: options.lookahead,
        ..CudaOptions::new(limits.clone(), dtype)
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
        None => match from_model(error) {
            EngineError::OutOfMemory(error) => EngineError::CardOutOfMemory(error),
            error => error,
        },
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
        false => {
            let runner = NamedRunner {
                runner: runner.into_runner(),
                fault,
            };
            AnyExecutor::new(runner, options, faults)?
        }
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

/// What the KV cache may take. As in vLLM the share is of the whole card, for this engine alone, and
/// must be free when it starts.
fn kv_budget(options: &EngineOptions, card: &Card) -> Result<KvBudget, EngineError> {
    if options.num_kv_blocks_override.is_some() {
        return Ok(KvBudget::Exact);
    }
    if let Some(bytes) = options.kv_cache_memory_bytes {
        return Ok(KvBudget::Bytes(bytes));
    }
    let share = options.gpu_memory_utilization;
    let memory = await_share(
        share,
        Duration::from_millis(options.gpu_memory_wait_ms),
        card,
    )?;
    share_of_free(share, memory)
        .map(KvBudget::Utilization)
        .ok_or_else(|| {
            let mib = |bytes: usize| bytes >> 20;
            EngineError::Options(format!(
                "free memory on {} is {} of {} MiB, less than the {:.0} MiB of \
                 --gpu-memory-utilization {share}: lower it, or see with nvidia-smi what else uses \
                 the card",
                card.description(),
                mib(memory.free_bytes),
                mib(memory.total_bytes),
                memory.total_bytes as f64 * share / f64::from(1 << 20),
            ))
        })
}

/// Waits until `share` of the card is free, `limit` at most: what an engine held that just ended
/// comes back a moment after it is gone.
fn await_share(share: f64, limit: Duration, card: &Card) -> Result<DeviceMemory, EngineError> {
    let start = Instant::now();
    let mut is_said = false;
    loop {
        let memory = card.memory();
        let memory = memory.map_err(|error| ExecutorError::Device(error.to_string()))?;
        if share_of_free(share, memory).is_some() || start.elapsed() >= limit {
            return Ok(memory);
        }
        if !std::mem::replace(&mut is_said, true) {
            tracing::info!(
                free_bytes = memory.free_bytes,
                total_bytes = memory.total_bytes,
                "others use the card; waiting for what an ended process gives back"
            );
        }
        std::thread::sleep(MEMORY_POLL);
    }
}

/// The share of what is free that makes `share` of all; `None` where less is free.
fn share_of_free(share: f64, memory: DeviceMemory) -> Option<f64> {
    let allowed = memory.total_bytes as f64 * share;
    let free = memory.free_bytes as f64;
    (allowed > 0.0 && allowed <= free).then(|| allowed / free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_of_the_whole_card_and_must_be_free() {
        let share = |share, free_bytes, total_bytes| {
            let memory = DeviceMemory {
                free_bytes,
                total_bytes,
            };
            share_of_free(share, memory)
        };
        assert!((share(0.9, 1000, 1000).unwrap() - 0.9).abs() < 1e-9);
        // Another engine has 400 of 1000: half of the card is five sixths of what is free.
        assert!((share(0.5, 600, 1000).unwrap() - 5.0 / 6.0).abs() < 1e-9);
        assert!((share(0.6, 600, 1000).unwrap() - 1.0).abs() < 1e-9);
        assert_eq!(share(0.61, 600, 1000), None);
        assert_eq!(share(0.9, 0, 1000), None);
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
