//! Takes weights by name from the files and gives them to a backend.
//!
//! Invariant: each tensor is checked against the shape that the config implies before a backend
//! sees it.

use crate::ops::{ExpertViews, MoeSpec, Ops, Parallelism};
use crate::options::{LoadProgress, LoadStage};
use crate::{ModelError, WeightStore};

/// Gives weights to a backend, counting them.
pub(super) struct Loader<'a, O: Ops> {
    pub(super) ops: &'a mut O,
    weights: &'a WeightStore,
    progress: &'a mut dyn FnMut(LoadProgress),
    num_done: u64,
}

impl<'a, O: Ops> Loader<'a, O> {
    /// Starts with no weight given.
    pub(super) fn new(
        ops: &'a mut O,
        weights: &'a WeightStore,
        progress: &'a mut dyn FnMut(LoadProgress),
    ) -> Self {
        Self {
            ops,
            weights,
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
        let views = parts
            .iter()
            .map(|(name, num_out)| self.weights.view(name, &[*num_out, num_in]))
            .collect::<Result<_, _>>()?;
        self.report(parts.len());
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
        let expert = |index| {
            let [gate, up, down] = names(index);
            Ok(ExpertViews {
                gate_up: vec![
                    self.weights.view(&gate, &[width, hidden])?,
                    self.weights.view(&up, &[width, hidden])?,
                ],
                down: self.weights.view(&down, &[hidden, width])?,
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
        let gate_up = self
            .weights
            .view(gate_up, &[num_experts, 2 * width, hidden])?;
        let down = self.weights.view(down, &[num_experts, hidden, width])?;
        let expert = |index| {
            let gate_up = gate_up.part(index)?;
            Some(ExpertViews {
                gate_up: vec![gate_up.rows(0..width)?, gate_up.rows(width..2 * width)?],
                down: down.part(index)?,
            })
        };
        let experts: Option<Vec<_>> = (0..num_experts).map(expert).collect();
        let experts = experts.expect("both views have the shapes that were asked for");
        self.report(2);
        Ok(self.ops.new_experts(experts, spec)?)
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
