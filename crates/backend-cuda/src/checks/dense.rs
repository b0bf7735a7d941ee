//! Large dense products on a device's library, against the CPU's operation.
//!
//! Invariant: every number of rows up to the planned one is right; what lies between rows, and the
//! rows behind the last, stay as they were.

use super::linear::{product, sum_tolerance};
use super::support::{Random, Rows, compare, wrong};
use crate::dense::{DenseProduct, ProductShape};
use crate::{Device, Dtype, LaunchError};

/// Runs products of random shapes on `device`, whose library was opened.
///
/// # Errors
/// What differs; what the library says.
pub fn dense_products(device: &mut dyn Device, seed: u64) -> Result<(), LaunchError> {
    let mut random = Random::new("dense_products", seed);
    let mut num_run = 0;
    for dtype in Dtype::HALVES {
        for out_dtype in [dtype, Dtype::F32] {
            let max_rows = random.choose(&[128, 200, 256]);
            let num_outputs = random.choose(&[16, 50, 130, 384]);
            let num_inputs = random.choose(&[64, 100, 333, 512]);
            let x = random.floats(dtype, max_rows * num_inputs);
            let weight = random.floats(dtype, num_outputs * num_inputs);
            let expected = product(&x, &weight, num_inputs)?;
            let x = Rows::new(device, dtype, num_inputs, &x)?;
            let weight = Rows::new(device, dtype, num_inputs, &weight)?;
            let out = Rows::poisoned(device, out_dtype, max_rows, num_outputs)?;
            let shape = ProductShape {
                dtype,
                out_dtype,
                max_rows,
                num_outputs,
                num_inputs,
                x_stride: x.stride(),
                weight_stride: weight.stride(),
                out_stride: out.stride(),
            };
            let what = format!("a library's {max_rows}x{num_outputs}x{num_inputs} {dtype:?}");
            let Some(plan) = device.plan_product(&shape)? else {
                continue;
            };
            for num_rows in [max_rows, random.within(max_rows / 2 + 1, max_rows), 128] {
                let out = Rows::poisoned(device, out_dtype, max_rows, num_outputs)?;
                let product = DenseProduct {
                    shape,
                    x: x.at,
                    weight: weight.at,
                    out: out.at,
                    num_rows,
                };
                if !device.run_product(plan, &product)? {
                    continue;
                }
                num_run += 1;
                let found = out.read(device)?;
                let (found, behind) = found.split_at(num_rows * num_outputs);
                let expected = &expected[..num_rows * num_outputs];
                compare(&what, found, expected, sum_tolerance(out_dtype, num_inputs))?;
                if behind.iter().any(|x| !x.is_nan()) {
                    return Err(wrong(format!("{what}: wrote behind its rows")));
                }
            }
        }
    }
    match num_run {
        0 => Err(wrong("the library has no way for any shape".to_owned())),
        _ => Ok(()),
    }
}
