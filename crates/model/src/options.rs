//! What loading a model is told, what it reports meanwhile, and how much memory its KV blocks take.
//!
//! Invariant: options are checked before anything is allocated.

use crate::ModelError;
use crate::config::ModelConfig;
use crate::ops::StepLimits;
use crate::quantize::Quantization;
use crate::weights::WeightDtype;

/// How a model is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Sizes of the buffers. `max_model_len` comes from [`ModelConfig::resolve_max_model_len`].
    pub limits: StepLimits,
    /// KV blocks in the pool.
    pub num_blocks: usize,
    /// Tokens a block.
    pub block_size: usize,
    /// How the KV cache stores numbers.
    pub kv_dtype: WeightDtype,
    /// Quantize dense weights; none takes them as they are stored.
    pub quantization: Option<Quantization>,
}

impl LoadOptions {
    /// Every number is at least 1, and `max_model_len` is within the model's context.
    pub(crate) fn check(&self, config: &ModelConfig) -> Result<(), ModelError> {
        for (option, value) in [
            ("max_num_batched_tokens", self.limits.max_num_batched_tokens),
            ("max_num_seqs", self.limits.max_num_seqs),
            ("num_blocks", self.num_blocks),
            ("block_size", self.block_size),
        ] {
            if value == 0 || u32::try_from(value).is_err() {
                let reason = format!("= {value} is not from 1 to {}", u32::MAX);
                return Err(ModelError::Option { option, reason });
            }
        }
        if let Some(quantization) = self.quantization
            && !Quantization::OFFERED.contains(&quantization.dtype)
        {
            let (option, dtype) = ("quantization", quantization.dtype.name());
            let offered = Quantization::offered_names();
            let reason = format!("= {dtype} has no encoder; there are {offered}");
            return Err(ModelError::Option { option, reason });
        }
        config.resolve_max_model_len(Some(self.limits.max_model_len))?;
        Ok(())
    }
}

/// Parts of loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadStage {
    /// Tensors are checked and given to the backend; counted in tensors.
    Weights,
    /// Activations and the KV pool are allocated; counted in allocations.
    Buffers,
    /// Steps are prepared; counted in forward passes.
    WarmUp,
}

/// How far loading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    /// The part.
    pub stage: LoadStage,
    /// Units done, of `total`.
    pub done: u64,
    /// Units of the stage.
    pub total: u64,
}

/// Bytes of one KV block over all layers: keys and values of `block_size` tokens in `dtype`.
pub fn kv_bytes_per_block(config: &ModelConfig, block_size: usize, dtype: WeightDtype) -> usize {
    let head_bytes = match dtype {
        // A head's last block may be short; each has a scale of two bytes.
        WeightDtype::Q8_0 => config.head_dim + 2 * config.head_dim.div_ceil(dtype.block_len()),
        dtype => dtype.num_bytes(config.head_dim).unwrap_or(usize::MAX),
    };
    (2 * config.num_hidden_layers * block_size * config.num_key_value_heads)
        .saturating_mul(head_bytes)
}
