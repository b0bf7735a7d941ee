//! Random weights for any config: to try a model's speed and memory without its files.
//!
//! A tensor is made when it is asked for, by all cores, and belongs to whoever asked: nothing is
//! made twice or kept here. Matrices are uniform with a variance of one over their inputs, norms
//! lie around one, so that activations and logits of every depth stay finite.
//!
//! Invariant: a tensor depends on its name, its shape, the dtype and the seed alone, not on the
//! number of cores.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;

use half::{bf16, f16};

use crate::config::ModelConfig;
use crate::tensor_list::{TensorKind, TensorSpec};
use crate::weights::{WeightBytes, WeightDtype};

/// Enters the content hash: raised when other numbers come from the same seed.
pub(crate) const DUMMY_VERSION: &str = "dummy weights 1";

/// Elements that are made from one state; a multiple of four.
const CHUNK_ELEMENTS: usize = 1 << 18;

/// How to make one tensor.
#[derive(Clone, Debug)]
pub(crate) struct DummyTensor {
    num_elements: usize,
    dtype: WeightDtype,
    /// Numbers are uniform in `center ± spread`.
    center: f32,
    spread: f32,
    seed: u64,
}

/// Random weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dummy {
    pub(crate) seed: u64,
}

impl Dummy {
    /// The dtype of all tensors: the config's, as far as it is one of sixteen bits.
    pub(crate) fn dtype(config: &ModelConfig) -> WeightDtype {
        match config.dtype.as_deref() {
            Some("bfloat16") => WeightDtype::Bf16,
            Some("float16") => WeightDtype::F16,
            _ => WeightDtype::F32,
        }
    }

    /// How to make tensor `spec` of a model with `config`.
    pub(crate) fn tensor(self, config: &ModelConfig, spec: &TensorSpec) -> DummyTensor {
        // The standard deviation of a uniform number is its spread over the root of three.
        let inputs = spec.shape.last().copied().unwrap_or(1).max(1);
        let unit = (3.0 / inputs as f32).sqrt();
        let (center, spread) = match spec.kind {
            TensorKind::Embedding | TensorKind::Matrix => (0.0, unit),
            TensorKind::Bias => (0.0, 0.02),
            TensorKind::Norm => (1.0 - config.decoder.norm_offset, 0.1),
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(spec.name.as_bytes());
        let mut seed = [0; 8];
        hasher.finalize_xof().fill(&mut seed);
        DummyTensor {
            num_elements: usize::try_from(spec.num_elements()).unwrap_or(usize::MAX),
            dtype: Self::dtype(config),
            center,
            spread,
            seed: u64::from_le_bytes(seed),
        }
    }
}

impl DummyTensor {
    /// Bytes of the tensor.
    pub(crate) fn num_bytes(&self) -> usize {
        self.dtype
            .num_bytes(self.num_elements)
            .unwrap_or(usize::MAX)
    }

    /// Makes the numbers. `None` where there is no memory for them.
    pub(crate) fn make(&self) -> Option<Arc<dyn WeightBytes>> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(self.num_bytes()).ok()?;
        bytes.resize(self.num_bytes(), 0);
        let chunk_bytes = CHUNK_ELEMENTS * self.dtype.block_bytes();
        let num_chunks = bytes.len().div_ceil(chunk_bytes).max(1);
        let num_threads = available_parallelism().map_or(1, NonZero::get);
        // Each thread takes a run of chunks; small tensors are not worth a thread.
        let run = num_chunks.div_ceil(num_threads.min(num_chunks));
        let fill_run = |(first, bytes): (usize, &mut [u8])| {
            for (index, chunk) in bytes.chunks_mut(chunk_bytes).enumerate() {
                self.fill(first * run + index, chunk);
            }
        };
        match num_chunks {
            1 => fill_run((0, &mut bytes)),
            _ => std::thread::scope(|scope| {
                for part in bytes.chunks_mut(run * chunk_bytes).enumerate() {
                    scope.spawn(move || fill_run(part));
                }
            }),
        }
        Some(Arc::new(bytes))
    }

    /// Fills chunk number `index`.
    fn fill(&self, index: usize, bytes: &mut [u8]) {
        let first = (index * CHUNK_ELEMENTS / 4) as u64;
        match self.dtype {
            WeightDtype::Bf16 => self.fill_with(first, bytes, |x| bf16::from_f32(x).to_le_bytes()),
            WeightDtype::F16 => self.fill_with(first, bytes, |x| f16::from_f32(x).to_le_bytes()),
            _ => self.fill_with(first, bytes, f32::to_le_bytes),
        }
    }

    /// Four elements from each state of a counter, from `first` on.
    fn fill_with<const SIZE: usize>(
        &self,
        first: u64,
        bytes: &mut [u8],
        encode: impl Fn(f32) -> [u8; SIZE],
    ) {
        let scale = self.spread / 32768.0;
        for (counter, quad) in (first..).zip(bytes.chunks_mut(4 * SIZE)) {
            let bits = mix(self.seed, counter);
            for (lane, element) in quad.chunks_exact_mut(SIZE).enumerate() {
                let number = (bits >> (16 * lane)) as u16 as i16;
                element.copy_from_slice(&encode(self.center + f32::from(number) * scale));
            }
        }
    }
}

/// 64 bits that look random: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014) over a
/// counter.
fn mix(seed: u64, counter: u64) -> u64 {
    let step = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut z = seed.wrapping_add(step);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
#[path = "dummy_test.rs"]
mod dummy_test;
