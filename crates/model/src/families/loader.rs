//! Takes weights by name from the files and gives them to a backend.
//!
//! Invariant: each tensor is checked against the shape that the config implies before a backend
//! sees it.

use crate::ops::{ExpertViews, MoeSpec, Ops, Parallelism};
use crate::options::{LoadProgress, LoadStage};
use crate::quantize::{LinearRole, Quantization, Quantizer};
use crate::weights::WeightView;
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

    /// Whether the files have a tensor `name`.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.weights.contains(name)
    }

    /// The experts of a layer, each three tensors of its own; `names` gives the names of gate, up
    /// and down of an expert.
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

    /// The experts of a layer, stacked into two tensors as transformers 5 holds them: `gate_up`
    /// `[experts, 2 * width, hidden]`, gate first, and `down` `[experts, hidden, width]`.
    pub(super) fn stacked_experts(
        &mut self,
        gate_up: &str,
        down: &str,
        hidden: usize,
        width: usize,
        spec: &MoeSpec,
    ) -> Result<O::Experts, ModelError> {
        let num_experts = spec.num_experts;
        let gate_up_view = self
            .weights
            .view(gate_up, &[num_experts, 2 * width, hidden])?;
        let down_view = self.weights.view(down, &[num_experts, hidden, width])?;
        let mut apply = |name: &str, view: Option<WeightView>| {
            let view = view.expect("the whole has the shape that was asked for");
            self.quantizer.apply(name, LinearRole::Projection, view)
        };
        let expert = |index| {
            let both = gate_up_view.part(index);
            let rows = |range| both.as_ref().and_then(|both| both.rows(range));
            Ok(ExpertViews {
                gate_up: vec![
                    apply(gate_up, rows(0..width))?,
                    apply(gate_up, rows(width..2 * width))?,
                ],
                down: apply(down, down_view.part(index))?,
            })
        };
        let experts = (0..num_experts).map(expert);
        let experts = experts.collect::<Result<_, ModelError>>()?;
        self.report(2);
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
