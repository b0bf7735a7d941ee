//! What attention of each layer is asked with, put on the device at load.
//!
//! Invariant: a rotary table is uploaded once for all layers that share it.

use std::sync::Arc;

use hotspare_model::ops::{AttentionSpec, OpsError, RopeTable};

use super::memory::{FOR_WEIGHTS, alloc, device_error, unsupported};
use crate::attention_plan::PlanShape;
use crate::{Address, Device};

/// Heads at most so wide have a kernel.
const MAX_HEAD_DIM: usize = 256;

/// A rotary table on the device.
#[derive(Debug)]
struct RopeOnDevice {
    /// Kept, so that no other table gets its place in memory.
    table: Arc<RopeTable>,
    cos: Address,
    sin: Address,
}

/// One layer.
#[derive(Clone, Debug)]
pub(super) struct LayerOnDevice {
    pub(super) spec: AttentionSpec,
    pub(super) sinks: Address,
    /// Its place among [`Layers::plans`].
    pub(super) plan: usize,
    pub(super) cos: Address,
    pub(super) sin: Address,
    pub(super) num_positions: usize,
    pub(super) rotary_dim: usize,
    pub(super) is_interleaved: bool,
}

/// All layers.
#[derive(Debug, Default)]
pub(super) struct Layers {
    ropes: Vec<RopeOnDevice>,
    layers: Vec<Option<LayerOnDevice>>,
    /// The ways that layers cut a step.
    pub(super) plans: Vec<PlanShape>,
}

impl Layers {
    pub(super) fn get(&self, layer: usize) -> Option<&LayerOnDevice> {
        self.layers.get(layer)?.as_ref()
    }

    /// # Errors
    /// A shape without a kernel, or out of memory.
    pub(super) fn prepare<D: Device>(
        &mut self,
        device: &mut D,
        layer: usize,
        spec: &AttentionSpec,
        rope: &Arc<RopeTable>,
    ) -> Result<(), OpsError> {
        let divides = spec.num_kv_heads > 0 && spec.num_heads.is_multiple_of(spec.num_kv_heads);
        let fits = divides && spec.head_dim > 0 && spec.head_dim <= MAX_HEAD_DIM;
        if !fits || rope.rotary_dim > spec.head_dim {
            let AttentionSpec {
                num_heads,
                num_kv_heads,
                head_dim,
                ..
            } = spec;
            return Err(unsupported(format!(
                "attention of {num_heads} heads over {num_kv_heads} of {head_dim} dimensions, {} \
                 of them rotated",
                rope.rotary_dim
            )));
        }
        let plan = PlanShape {
            group: spec.num_heads / spec.num_kv_heads,
            head_dim: spec.head_dim,
            window: spec.sliding_window,
        };
        let index = self.plans.iter().position(|known| *known == plan);
        let index = index.unwrap_or_else(|| {
            self.plans.push(plan);
            self.plans.len() - 1
        });
        let [cos, sin] = self.rope(device, rope)?;
        let half = (rope.rotary_dim / 2).max(1);
        let sinks = match spec.sinks.is_empty() {
            true => Address::NULL,
            false => put(device, &spec.sinks)?,
        };
        self.layers.resize(self.layers.len().max(layer + 1), None);
        self.layers[layer] = Some(LayerOnDevice {
            spec: spec.clone(),
            sinks,
            plan: index,
            cos,
            sin,
            num_positions: rope.cos.len() / half,
            rotary_dim: rope.rotary_dim,
            is_interleaved: rope.is_interleaved,
        });
        Ok(())
    }

    fn rope<D: Device>(
        &mut self,
        device: &mut D,
        rope: &Arc<RopeTable>,
    ) -> Result<[Address; 2], OpsError> {
        let known = self
            .ropes
            .iter()
            .find(|known| Arc::ptr_eq(&known.table, rope));
        if let Some(known) = known {
            return Ok([known.cos, known.sin]);
        }
        let new = RopeOnDevice {
            table: Arc::clone(rope),
            cos: put(device, &rope.cos)?,
            sin: put(device, &rope.sin)?,
        };
        let addresses = [new.cos, new.sin];
        self.ropes.push(new);
        Ok(addresses)
    }
}

fn put<D: Device>(device: &mut D, values: &[f32]) -> Result<Address, OpsError> {
    let at = alloc(device, "rotary tables", size_of_val(values), FOR_WEIGHTS)?;
    let written = device.write(at, bytemuck::cast_slice(values));
    written.map_err(|error| device_error(&error))?;
    Ok(at)
}
