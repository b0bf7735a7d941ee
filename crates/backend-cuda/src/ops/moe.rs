//! Mixture of experts: rows sorted by expert, grouped products, the weighted sum.
//!
//! Invariant: pairs of an expert follow the order of rows; a row's experts are added in their
//! order.

use hotspare_model::ops::OpsError;

use super::buffer::Rows;
use super::memory::{FOR_BUFFERS, alloc, product};
use super::product::{Groups, grouped};
use super::space::Space;
use super::weights::CudaExperts;
use crate::kernels::{Activation, Gated, Moe};
use crate::{Address, Device, Dtype, LaunchError};

/// What experts work in; allocated for the largest layer.
#[derive(Debug, Default)]
pub(super) struct MoeSpace {
    sizes: [usize; 6],
    offsets: Address,
    pair_rows: Address,
    pair_of: Address,
    gate_up: Address,
    activated: Address,
    down: Address,
}

impl MoeSpace {
    /// Makes sure of the memory for `max_rows` rows of `experts`.
    ///
    /// # Errors
    /// Out of memory.
    pub(super) fn reserve<D: Device>(
        &mut self,
        device: &mut D,
        dtype: Dtype,
        max_rows: usize,
        experts: &CudaExperts,
    ) -> Result<(), OpsError> {
        const WHAT: &str = "space for experts";
        let pairs = product(WHAT, &[max_rows, experts.num_chosen])?;
        let rows = |width| product(WHAT, &[pairs, dtype.stride(width), dtype.size()]);
        let sizes = [
            4 * (experts.num_experts + 1),
            product(WHAT, &[pairs, 4])?,
            product(WHAT, &[max_rows, experts.num_experts, 4])?,
            rows(2 * experts.width)?,
            rows(experts.width)?,
            rows(experts.hidden)?,
        ];
        let places = [
            &mut self.offsets,
            &mut self.pair_rows,
            &mut self.pair_of,
            &mut self.gate_up,
            &mut self.activated,
            &mut self.down,
        ];
        for ((place, size), new) in places.into_iter().zip(&mut self.sizes).zip(sizes) {
            if new > *size {
                *place = alloc(device, WHAT, new, FOR_BUFFERS)?;
                *size = new;
            }
        }
        Ok(())
    }

    /// `out[r]` = the sum over the experts of r of the route times what the expert makes of x.
    pub(super) fn run<D: Device>(
        &self,
        device: &mut D,
        space: Option<Space>,
        experts: &CudaExperts,
        [x, routes, out]: [&Rows; 3],
    ) -> Result<(), LaunchError> {
        let dtype = x.dtype;
        let num_pairs = x.num_rows * experts.num_chosen;
        let pairs = |at, width: usize| Rows {
            at,
            dtype,
            width,
            stride: dtype.stride(width),
            num_rows: num_pairs,
        };
        let gate_up = pairs(self.gate_up, 2 * experts.width);
        let activated = pairs(self.activated, experts.width);
        let down = pairs(self.down, experts.hidden);
        let moe = Moe {
            logits: Address::NULL,
            routes: routes.at,
            offsets: self.offsets,
            pair_rows: self.pair_rows,
            pair_of: self.pair_of,
            pairs: down.at,
            out: out.at,
            num_rows: x.num_rows as u32,
            num_experts: experts.num_experts as u32,
            num_chosen: experts.num_chosen as u32,
            normalises: 0,
            logits_stride: 0,
            width: experts.hidden as u32,
            stride: down.stride as u32,
            unused: 0,
        };
        moe.plan(device)?;
        let groups = Groups {
            num_groups: experts.num_experts,
            offsets: self.offsets,
            x_rows: self.pair_rows,
            max_rows: x.num_rows,
            usual_rows: num_pairs.div_ceil(experts.num_experts),
        };
        grouped(device, space, x, &experts.gate_up, &gate_up, groups)?;
        gated(device, Activation::Silu, &gate_up, &activated)?;
        let groups = Groups {
            x_rows: Address::NULL,
            ..groups
        };
        grouped(device, space, &activated, &experts.down, &down, groups)?;
        moe.combine(device, dtype)
    }
}

/// `out = activation(gate) * up`.
pub(super) fn gated<D: Device>(
    device: &mut D,
    activation: Activation,
    gate_up: &Rows,
    out: &Rows,
) -> Result<(), LaunchError> {
    let args = Gated {
        gate_up: gate_up.at,
        out: out.at,
        width: out.width as u32,
        in_stride: gate_up.stride as u32,
        out_stride: out.stride as u32,
        unused: 0,
    };
    args.launch(device, activation, out.dtype, out.num_rows)
}
