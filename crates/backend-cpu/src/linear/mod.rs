//! Linear layers: weights as they lie in the file, and the product with a step's rows.
//!
//! Invariant: an output element's bits depend on its weight row and its activation row alone, never
//! on the number of rows, their place, or the number of threads.

mod blocks;
mod columns;
mod dense;
#[cfg(test)]
mod dense_test;
mod format;
mod pack;
#[cfg(target_arch = "x86_64")]
mod pairs;
#[cfg(not(target_arch = "x86_64"))]
#[path = "no_pairs.rs"]
mod pairs;
mod product;
mod quantized;
mod tile;
mod wide;

use hotspare_model::ops::OpsError;
use hotspare_model::weights::WeightView;

use crate::simd::Isa;
use crate::workers::Workers;

use dense::WeightMatrix;
pub(crate) use pack::PackSpace;
pub(crate) use product::estimate_ns;

/// How products are computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arithmetic {
    pub(crate) isa: Isa,
    /// Whether activations are rounded to bfloat16 where they meet weights of that type.
    pub(crate) bf16_activations: bool,
}

/// A linear layer's weights, `[num_outputs, num_inputs]`: matrices one above the other, each in its
/// own format.
#[derive(Debug)]
pub struct CpuLinear {
    parts: Vec<WeightMatrix>,
    num_outputs: usize,
    num_inputs: usize,
}

impl CpuLinear {
    /// Takes views whose outputs are concatenated.
    ///
    /// # Errors
    /// [`OpsError::Unsupported`] for anything but matrices of one width.
    pub(crate) fn new(parts: Vec<WeightView>) -> Result<Self, OpsError> {
        let parts = parts
            .into_iter()
            .map(WeightMatrix::new)
            .collect::<Result<Vec<_>, _>>()?;
        let num_inputs = parts.first().map_or(0, WeightMatrix::num_inputs);
        if num_inputs == 0 || parts.iter().any(|part| part.num_inputs() != num_inputs) {
            return Err(unsupported(
                "a linear layer without inputs, or of unlike parts",
            ));
        }
        let num_outputs = parts.iter().map(WeightMatrix::num_outputs).sum();
        Ok(Self {
            parts,
            num_outputs,
            num_inputs,
        })
    }

    /// Width of the output.
    pub fn num_outputs(&self) -> usize {
        self.num_outputs
    }

    /// Width of the input.
    pub fn num_inputs(&self) -> usize {
        self.num_inputs
    }

    /// `out[r] = weight · x[r]` for every row of `x`. `space` is scratch.
    ///
    /// # Errors
    /// Out of memory for scratch.
    pub(crate) fn forward(
        &self,
        arithmetic: Arithmetic,
        workers: &Workers,
        space: &mut PackSpace,
        x: &[f32],
        out: &mut [f32],
    ) -> Result<(), OpsError> {
        product::product(arithmetic, workers, space, &self.parts, x, out)
    }

    /// Writes row `index`, widened and multiplied by `scale`, to `out`; NaN where there is no such
    /// row, which fails the sequence that asked for it and no other.
    pub(crate) fn embed_row(&self, index: usize, scale: f32, out: &mut [f32]) {
        let mut index = index;
        for part in &self.parts {
            if index < part.num_outputs() {
                return part.widen_row(index, scale, out);
            }
            index -= part.num_outputs();
        }
        out.fill(f32::NAN);
    }
}

fn unsupported(what: &str) -> OpsError {
    OpsError::Unsupported {
        backend: "cpu",
        what: what.to_owned(),
    }
}
