//! Large dense products on the device's library, under `--numerics fast`.
//!
//! The library says at start-up how it would compute each shape for a few numbers of rows; a step
//! with prompt tokens then takes what was said for the next larger one. Decode steps never go
//! there: they run as graphs, and weights stream through kernels of our own.
//!
//! Invariant: whatever the library does not take, own kernels compute; nothing is planned in a
//! step; without the library nothing differs from `--numerics invariant`, `numerics_id` included.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::buffer::Rows;
use super::weights::{Matrix, dense};
use crate::dense::{DenseProduct, PlanId, ProductShape};
use crate::kernels::WeightFormat;
use crate::{CudaOptions, Device, Dtype, LaunchError, Numerics};

/// Fewer rows are for own kernels.
pub(super) const MIN_ROWS: usize = 128;

/// Rows that a library reads start at multiples of so many bytes.
const ALIGNMENT: usize = 16;

/// What the step in work does with the library.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Use {
    /// Nothing.
    #[default]
    None,
    /// Its products are planned, and nothing runs.
    Planning,
    /// Large products run there.
    Products,
}

/// The library, where there is one and it may be used.
#[derive(Debug, Default)]
pub(super) struct Library {
    name: Option<String>,
    /// `None`: the library has no way for it.
    plans: BTreeMap<ProductShape, Option<PlanId>>,
    /// Rows of a step at most.
    max_rows: usize,
    pub(super) now: Use,
}

impl Library {
    /// Sets it up, if `options` ask for it; otherwise, or where it fails, own kernels serve, and a
    /// line in the log says why.
    pub(super) fn open<D: Device>(device: &mut D, options: &CudaOptions) -> Self {
        let mut library = Self {
            max_rows: options.limits.max_num_batched_tokens,
            ..Self::default()
        };
        if options.numerics != Numerics::Fast {
            return library;
        }
        if options.dtype == Dtype::F32 || library.max_rows < MIN_ROWS {
            tracing::info!(
                "--numerics fast changes nothing here: a library is for 16-bit products of \
                 {MIN_ROWS} rows or more"
            );
            return library;
        }
        match device.open_products() {
            Ok(Some(name)) => library.name = Some(name),
            Ok(None) => library.close("this device has none"),
            Err(error) => library.close(&error.to_string()),
        }
        library
    }

    /// What it is called in `numerics_id`; `None`: own kernels compute everything.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Leaves it all to own kernels from now on, if there was a library: it takes memory of its
    /// own, which has run out.
    pub(super) fn give_up(&mut self, reason: &str) {
        if self.name.is_some() {
            self.close(reason);
        }
    }

    /// Leaves it all to own kernels from now on.
    pub(super) fn close(&mut self, reason: &str) {
        self.name = None;
        self.plans.clear();
        self.now = Use::None;
        tracing::warn!(
            reason,
            "--numerics fast: no library for dense products; own kernels compute them, as under \
             --numerics invariant"
        );
    }

    /// Ends planning: without a single plan there is no library.
    pub(super) fn end_planning(&mut self) {
        let num_plans = self.plans.values().flatten().count();
        match &self.name {
            Some(_) if num_plans == 0 => self.close("it has no way for any of the model's shapes"),
            Some(name) => tracing::info!(
                library = name,
                num_plans,
                "large dense products run on a library, which chooses its own order of sums"
            ),
            None => {}
        }
    }

    /// Numbers of rows that are planned for, largest first.
    pub(super) fn buckets(&self) -> Vec<usize> {
        if self.name.is_none() {
            return Vec::new();
        }
        let powers = (0..usize::BITS).map(|bit| 1usize << bit);
        let sizes = powers
            .filter(|&rows| rows >= MIN_ROWS)
            .map(|rows| bucket(rows, self.max_rows));
        let sizes: BTreeSet<usize> = sizes.collect();
        sizes.into_iter().rev().collect()
    }

    pub(super) fn is_planning(&self) -> bool {
        self.now == Use::Planning
    }

    /// Computes `out = weight · x` on the library, or plans it; `false` where own kernels are to.
    pub(super) fn product<D: Device>(
        &mut self,
        device: &mut D,
        x: &Rows,
        weight: &Matrix,
        out: &Rows,
    ) -> Result<bool, LaunchError> {
        if self.now == Use::None || self.name.is_none() || x.num_rows < MIN_ROWS {
            return Ok(false);
        }
        let Some(product) = self.dense_product(x, weight, out) else {
            return Ok(false);
        };
        if self.now == Use::Planning {
            if let Entry::Vacant(new) = self.plans.entry(product.shape) {
                new.insert(device.plan_product(&product.shape)?);
            }
            return Ok(true);
        }
        match self.plans.get(&product.shape) {
            Some(Some(plan)) => device.run_product(*plan, &product),
            _ => Ok(false),
        }
    }

    /// The product as a library takes it; `None` for types and addresses that it does not.
    fn dense_product(&self, x: &Rows, weight: &Matrix, out: &Rows) -> Option<DenseProduct> {
        let is_dense =
            x.dtype != Dtype::F32 && weight.format == WeightFormat::Plain(dense(x.dtype));
        let weight_row_bytes = usize::try_from(weight.weights.row_bytes).ok()?;
        let is_aligned = [
            x.at.0 as usize,
            x.row_bytes(),
            weight.weights.data.0 as usize,
            weight_row_bytes,
            out.at.0 as usize,
            out.row_bytes(),
        ];
        let is_aligned = is_aligned.iter().all(|at| at.is_multiple_of(ALIGNMENT));
        (is_dense && is_aligned && x.num_rows <= self.max_rows).then(|| DenseProduct {
            shape: ProductShape {
                dtype: x.dtype,
                out_dtype: out.dtype,
                max_rows: bucket(x.num_rows, self.max_rows),
                num_outputs: weight.num_rows,
                num_inputs: weight.width,
                x_stride: x.stride,
                weight_stride: weight_row_bytes / x.dtype.size(),
                out_stride: out.stride,
            },
            x: x.at,
            weight: weight.weights.data,
            out: out.at,
            num_rows: x.num_rows,
        })
    }
}

/// The number of rows that `num_rows` are planned as.
fn bucket(num_rows: usize, max_rows: usize) -> usize {
    num_rows
        .checked_next_power_of_two()
        .map_or(max_rows, |rows| rows.min(max_rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_rows_has_a_bucket_that_is_planned() {
        for max_rows in [128, 129, 200, 256, 2048, 3000] {
            let library = Library {
                name: Some("reference".to_owned()),
                max_rows,
                ..Library::default()
            };
            let buckets = library.buckets();
            assert!(buckets.is_sorted_by(|a, b| a > b), "{buckets:?}");
            assert_eq!(buckets[0], max_rows);
            for num_rows in MIN_ROWS..=max_rows {
                let bucket = bucket(num_rows, max_rows);
                assert!(bucket >= num_rows && bucket < 2 * num_rows);
                assert!(buckets.contains(&bucket), "{num_rows} of {max_rows}");
            }
        }
        assert!(Library::default().buckets().is_empty());
    }
}
