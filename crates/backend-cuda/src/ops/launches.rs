//! What several operations share: norms, gates, attention's arguments, rows for tests.
//!
//! Invariant: widths are checked before a launch, so that no kernel leaves its buffers.

use hotspare_model::ops::AttentionSpec;

use super::buffer::{CudaBuffer, Rows};
use super::kv_cache::CudaKvCache;
use super::moe;
use super::sampling::logits_rows;
use super::state::CudaOps;
use super::weights::{CudaVector, WeightLoader};
use super::work::PARTIAL_ROWS;
use crate::kernels::{Activation, Attention, RmsNorm};
use crate::{Address, Device, LaunchError};

impl<D: Device> CudaOps<D> {
    pub(super) fn loader(&mut self) -> WeightLoader<'_, D> {
        WeightLoader {
            device: &mut self.device,
            dtype: self.options.dtype,
            space: &mut self.space,
        }
    }

    /// A norm of `x`, with the addition of `x` to `residual` before where there is one.
    pub(super) fn norm(
        &mut self,
        x: &CudaBuffer,
        residual: Option<&Rows>,
        weight: &CudaVector,
        eps: f32,
        out: &mut CudaBuffer,
    ) {
        let x = x.rows;
        let same = x.width == weight.len
            && out.rows.width == x.width
            && residual.is_none_or(|r| (r.width, r.num_rows) == (x.width, x.num_rows));
        if !self.resize("rms_norm", same, x.num_rows, out) {
            return;
        }
        let args = RmsNorm {
            x: x.at,
            residual: residual.map_or(Address::NULL, |rows| rows.at),
            weight: weight.at,
            out: out.rows.at,
            width: x.width as u32,
            stride: x.stride as u32,
            eps,
            unused: 0,
        };
        self.run(|device| args.launch(device, x.dtype, x.num_rows));
    }

    pub(super) fn gate(
        &mut self,
        activation: Activation,
        gate_up: &CudaBuffer,
        out: &mut CudaBuffer,
    ) {
        let rows = gate_up.rows;
        let fits = out.rows.width * 2 == rows.width;
        if self.resize("gated activation", fits, rows.num_rows, out) {
            let out = out.rows;
            self.run(|device| moe::gated(device, activation, &rows, &out));
        }
    }

    /// What attention of `layer` is launched with, items aside.
    pub(super) fn attention_args(
        &self,
        qkv: &CudaBuffer,
        layer: usize,
        kv: &CudaKvCache,
        out: &Rows,
    ) -> Option<(Attention, usize)> {
        let (on_device, work) = (self.layers.get(layer)?, self.work.as_ref()?);
        let spec = &on_device.spec;
        let [k_cache, v_cache] = kv.layer(layer);
        let args = Attention {
            qkv: qkv.rows.at,
            out: out.at,
            k_cache,
            v_cache,
            block_tables: self.step.tables_part.at(work.blob_at),
            items: Address::NULL,
            partials: work.partials,
            sinks: on_device.sinks,
            block_stride: kv.shape.block_stride() as u64,
            num_heads: spec.num_heads as u32,
            num_kv_heads: spec.num_kv_heads as u32,
            head_dim: spec.head_dim as u32,
            head_stride: kv.shape.head_stride as u32,
            block_size: kv.shape.block_size as u32,
            qkv_stride: qkv.rows.stride as u32,
            out_stride: out.stride as u32,
            partial_rows: PARTIAL_ROWS as u32,
            window: spec.sliding_window.unwrap_or(0) as u32,
            dtype: qkv.rows.dtype.code(),
            scale: spec.scale,
            soft_cap: spec.logits_soft_cap.unwrap_or(0.0),
        };
        Some((args, on_device.plan))
    }

    /// Whether `qkv` and the cache are of `spec`'s shape, and the layer was prepared with it.
    pub(super) fn attention_fits(
        &self,
        qkv: &CudaBuffer,
        spec: &AttentionSpec,
        layer: usize,
        kv: &CudaKvCache,
    ) -> bool {
        let width = (spec.num_heads + 2 * spec.num_kv_heads) * spec.head_dim;
        let shape = (kv.shape.num_kv_heads, kv.shape.head_dim);
        let is_prepared = |known: &AttentionSpec| {
            (known.num_heads, known.num_kv_heads, known.head_dim)
                == (spec.num_heads, spec.num_kv_heads, spec.head_dim)
        };
        qkv.rows.width == width
            && shape == (spec.num_kv_heads, spec.head_dim)
            && layer < kv.num_layers
            && qkv.rows.num_rows == self.step.num_padded
            && self.layers.get(layer).is_some_and(|l| is_prepared(&l.spec))
    }

    /// Copies rows of logits or activations to the host, for tests.
    pub(super) fn read_all(&mut self, buffer: &CudaBuffer) -> Result<Vec<f32>, LaunchError> {
        self.end_launches()?;
        let rows = buffer.rows;
        let num_rows = rows.num_rows.min(self.step.logits_tokens.len().max(1));
        let num_rows = if buffer.may_defer {
            num_rows
        } else {
            rows.num_rows
        };
        let mut values = Vec::with_capacity(num_rows * rows.width);
        for first in (0..num_rows).step_by(buffer.max_rows.max(1)) {
            let len = buffer.max_rows.min(num_rows - first);
            let (device, library) = (&mut self.device, &mut self.library);
            let part = logits_rows(device, library, self.space, buffer, first, len)?;
            let mut bytes = vec![0; len * part.row_bytes()];
            self.device.read(part.at, &mut bytes)?;
            let decoded = part.dtype.decode(&bytes);
            let each = decoded.chunks_exact(part.stride);
            each.for_each(|row| values.extend(&row[..part.width]));
        }
        Ok(values)
    }
}
