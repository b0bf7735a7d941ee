//! Takes weights by name from the files and gives them to a backend.
//!
//! Invariant: each tensor is checked against the shape that the config implies before a backend
//! sees it.

use crate::ops::{ExpertViews, MoeSpec, Ops, Parallelism};
use crate::options::{LoadProgress, LoadStage};
use crate::quantize::{LinearRole, Quantization, Quantizer};
use crate::{ModelError, WeightStore};

/// Gives weights to a backend, counting them.
pub(super) struct Loader<'a, O: Ops> {
    pub(super) ops: &'a mut O,
    weights: &'a WeightStore,
    quantizer: Quantizer,
    progress: &'a mut dyn FnMut(LoadProgress),
    num_done: u64,
}

impl<'a, O: Ops> Loader<'a, O> {
    /// Starts with no weight given.
    pub(super) fn new(
        ops: &'a mut O,
        weights: &'a WeightStore,
        quantization: Option<Quantization>,
        progress: &'a mut dyn FnMut(LoadProgress),
    ) -> Self {
        Self {
            ops,
            weights,
            quantizer: Quantizer::new(quantization),
            progress,
            num_done: 0,
        }
    }

    /// A linear layer that stacks the outputs of `parts` (tensor name, output width), each over
    /// `num_in`.
    pub(super) fn linear(
        &mut self,
        parts: &[(String, usize)],
        num_in: usize,
        parallelism: Parallelism,
    ) -> Result<O::Linear, ModelError> {
        self.linear_of(LinearRole::Projection, parts, num_in, parallelism)
    }

    /// As [`Loader::linear`], of a matrix with a role of its own.
    pub(super) fn linear_of(
        &mut self,
        role: LinearRole,
        parts: &[(String, usize)],
        num_in: usize,
        parallelism: Parallelism,
    ) -> Result<O::Linear, ModelError> {
        let mut views = Vec::with_capacity(parts.len());
        for (name, num_out) in parts {
            let view = self.weights.view(name, &[*num_out, num_in])?;
            views.push(self.quantizer.apply(name, role, view)?);
            self.report(1);
        }
        Ok(self.ops.new_linear(views, parallelism)?)
    }

    /// A norm's weights plus `offset`.
    pub(super) fn norm(
        &mut self,
        name: &str,
        width: usize,
        offset: f32,
    ) -> Result<O::Vector, ModelError> {
        let view = self.weights.view(name, &[width])?;
        self.report(1);
        Ok(self.ops.new_vector(vec![view], offset)?)
    }

    /// The biases that go with a linear layer's `parts`, whose names end in `weight`.
    pub(super) fn bias(&mut self, parts: &[(String, usize)]) -> Result<O::Vector, ModelError> {
        let views = parts.iter().map(|(name, num_out)| {
            let stem = name.strip_suffix("weight").unwrap_or(name);
            self.weights.view(&format!("{stem}bias"), &[*num_out])
        });
        let views = views.collect::<Result<_, _>>()?;
        self.report(parts.len());
        Ok(self.ops.new_vector(views, 0.0)?)
    }

    /// The experts of a layer; `names` gives the names of gate, up and down of an expert.
    pub(super) fn experts(
        &mut self,
        names: impl Fn(usize) -> [String; 3],
        hidden: usize,
        width: usize,
        spec: &MoeSpec,
    ) -> Result<O::Experts, ModelError> {
        let mut view = |name: &str, shape: [usize; 2]| {
            let view = self.weights.view(name, &shape)?;
            self.quantizer.apply(name, LinearRole::Projection, view)
        };
        let expert = |index| {
            let [gate, up, down] = names(index);
            Ok(ExpertViews {
                gate_up: vec![view(&gate, [width, hidden])?, view(&up, [width, hidden])?],
                down: view(&down, [hidden, width])?,
            })
        };
        let experts = (0..spec.num_experts).map(expert);
        let experts = experts.collect::<Result<_, ModelError>>()?;
        self.report(3 * spec.num_experts);
        Ok(self.ops.new_experts(experts, spec)?)
    }

    /// Ends the loading of weights: logs what was quantized, and returns what of it enters the
    /// model's numbers.
    pub(super) fn finish(self) -> Option<String> {
        self.quantizer.report();
        self.quantizer.numerics()
    }

    fn report(&mut self, num_tensors: usize) {
        self.num_done += num_tensors as u64;
        (self.progress)(LoadProgress {
            stage: LoadStage::Weights,
            done: self.num_done,
            total: (self.weights.num_tensors() as u64).max(self.num_done),
        });
    }
}
