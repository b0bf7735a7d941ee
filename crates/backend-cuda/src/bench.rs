//! Times of dense products on a card: own kernels beside its library.
//!
//! Invariant: weights are read from another place each time, so that no cache flatters them.

use std::time::Instant;

use hotspare_model::weights::WeightDtype;

use crate::card::Card;
use crate::dense::{DenseProduct, ProductShape};
use crate::kernels::{Linear, Road, WeightFormat};
use crate::{Address, Device as _, Dtype, LaunchError, Launcher as _};

/// Weights are spread over so many bytes, more than any card caches.
const SPREAD_BYTES: usize = 256 << 20;
/// Products that are timed together.
const NUM_REPEATS: usize = 12;

/// A product, and what it took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProductTime {
    /// Rows of activations.
    pub num_rows: usize,
    /// Rows of weights.
    pub num_outputs: usize,
    /// Width of both.
    pub num_inputs: usize,
    /// Of own kernels, microseconds.
    pub own_us: f64,
    /// Of the library, where there is one that takes it.
    pub library_us: Option<f64>,
}

/// Times `[num_rows, num_inputs]` by `[num_outputs, num_inputs]` in bfloat16. Whether there is a
/// library is known: it was opened, or could not be.
///
/// # Errors
/// Out of memory; what the card says.
pub fn time_product(
    card: &mut Card,
    [num_rows, num_outputs, num_inputs]: [usize; 3],
    has_library: bool,
) -> Result<ProductTime, LaunchError> {
    let dtype = Dtype::Bf16;
    let stride = |width: usize| dtype.stride(width);
    let weight_bytes = num_outputs * stride(num_inputs) * dtype.size();
    let num_places = (SPREAD_BYTES / weight_bytes).max(2);
    let x = filled(card, num_rows * stride(num_inputs) * dtype.size())?;
    let weight = filled(card, num_places * weight_bytes)?;
    let out = card.alloc(num_rows * stride(num_outputs) * dtype.size())?;
    let linear = Linear {
        x,
        weight,
        scales: Address::NULL,
        out,
        x_rows: Address::NULL,
        group_offsets: Address::NULL,
        weight_row_bytes: (stride(num_inputs) * dtype.size()) as u64,
        weight_group_bytes: 0,
        scale_row_bytes: 0,
        scale_group_bytes: 0,
        num_rows: num_rows as u32,
        num_outputs: num_outputs as u32,
        num_inputs: num_inputs as u32,
        x_stride: stride(num_inputs) as u32,
        out_stride: stride(num_outputs) as u32,
        out_dtype: dtype.code(),
    };
    let at = |i: usize| weight.offset(i % num_places * weight_bytes);
    let own_us = time(card, |card, i| {
        let linear = Linear {
            weight: at(i),
            ..linear
        };
        let format = WeightFormat::Plain(WeightDtype::Bf16);
        linear.launch(card, dtype, format, Road::best(num_rows), [1, num_rows])
    })?;
    let shape = ProductShape {
        dtype,
        out_dtype: dtype,
        max_rows: num_rows,
        num_outputs,
        num_inputs,
        x_stride: stride(num_inputs),
        weight_stride: stride(num_inputs),
        out_stride: stride(num_outputs),
    };
    let product = |i: usize| DenseProduct {
        shape,
        x,
        weight: at(i),
        out,
        num_rows,
    };
    let library_us = match has_library {
        true => time_on_library(card, &shape, &product)?,
        false => None,
    };
    Ok(ProductTime {
        num_rows,
        num_outputs,
        num_inputs,
        own_us,
        library_us,
    })
}

/// `None` where the library has no way.
fn time_on_library(
    card: &mut Card,
    shape: &ProductShape,
    product: &dyn Fn(usize) -> DenseProduct,
) -> Result<Option<f64>, LaunchError> {
    let Some(plan) = card.plan_product(shape)? else {
        return Ok(None);
    };
    let mut is_queued = true;
    let us = time(card, |card, i| {
        is_queued &= card.run_product(plan, &product(i))?;
        Ok(())
    })?;
    Ok(is_queued.then_some(us))
}

/// Microseconds of one launch, after a few that are not counted.
fn time(
    card: &mut Card,
    mut launch: impl FnMut(&mut Card, usize) -> Result<(), LaunchError>,
) -> Result<f64, LaunchError> {
    for i in 0..3 {
        launch(card, i)?;
    }
    card.synchronize()?;
    let start = Instant::now();
    for i in 0..NUM_REPEATS {
        launch(card, i)?;
    }
    card.synchronize()?;
    Ok(start.elapsed().as_secs_f64() * 1e6 / NUM_REPEATS as f64)
}

/// Memory of small random numbers: zeros would save power, and time.
fn filled(card: &mut Card, num_bytes: usize) -> Result<Address, LaunchError> {
    let at = card.alloc(num_bytes)?;
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let values = (0..1 << 19).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    });
    let piece = Dtype::Bf16.encode(&values.collect::<Vec<f32>>());
    for first in (0..num_bytes).step_by(piece.len()) {
        let len = piece.len().min(num_bytes - first);
        card.write(at.offset(first), &piece[..len])?;
    }
    Ok(at)
}
