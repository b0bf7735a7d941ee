//! The families of models, behind one type.
//!
//! Invariant: a family's forward pass is a list of operations on named buffers; it allocates
//! nothing.

mod decoder;
mod llama;

use crate::config::{Architecture, ModelConfig};
use crate::ops::Ops;
use crate::options::{LoadOptions, LoadProgress};
use crate::{ModelError, WeightStore};

/// A loaded model of any family.
pub(crate) enum CausalLm<O: Ops> {
    /// Llama and what has its shape.
    Llama(llama::Llama<O>),
}

impl<O: Ops> CausalLm<O> {
    /// Gives the weights to `ops` and allocates every buffer.
    pub(crate) fn load(
        ops: &mut O,
        config: &ModelConfig,
        weights: &WeightStore,
        options: &LoadOptions,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, ModelError> {
        match config.architecture {
            Architecture::Llama => {
                llama::Llama::load(ops, config, weights, options, progress).map(Self::Llama)
            }
        }
    }

    /// Runs the batch that `ops` has begun; the result holds the logits of the gathered rows.
    pub(crate) fn forward(&mut self, ops: &mut O) -> &mut O::Buffer {
        match self {
            Self::Llama(model) => model.forward(ops),
        }
    }
}
