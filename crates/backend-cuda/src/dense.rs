//! Dense products as libraries take them: column-major matrices, chosen for by shape.
//!
//! Rows of ours are columns of theirs: row-major `x[rows, k]`, `k_stride` apart, is the same memory
//! as a column-major `k` by `rows` with that leading dimension. `out[r] = weight · x[r]` is then
//! `D = Aᵀ B` with A the weights, B the activations and D the result, nothing being moved.
//!
//! Invariant: elements between a row's end and the next row's start are neither read into a sum nor
//! written.

use crate::{Address, Dtype};

/// Products for which a library chooses its way once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProductShape {
    /// Of activations and weights: sixteen bits.
    pub dtype: Dtype,
    /// Of the result.
    pub out_dtype: Dtype,
    /// Rows of activations at most.
    pub max_rows: usize,
    /// Rows of weights.
    pub num_outputs: usize,
    /// Width of activations and weights.
    pub num_inputs: usize,
    /// Elements from one row of activations to the next.
    pub x_stride: usize,
    /// Elements from one row of weights to the next.
    pub weight_stride: usize,
    /// Elements from one row of the result to the next.
    pub out_stride: usize,
}

/// How a library computes products of a shape: its own number for what it chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlanId(pub u32);

/// One product: `out[r] = weight · x[r]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DenseProduct {
    /// Its sizes; `max_rows` is for the plan.
    pub shape: ProductShape,
    /// `[num_rows, num_inputs]`.
    pub x: Address,
    /// `[num_outputs, num_inputs]`.
    pub weight: Address,
    /// `[num_rows, num_outputs]`.
    pub out: Address,
    /// Rows of activations, at most `shape.max_rows`.
    pub num_rows: usize,
}

/// A column-major matrix as it lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnMajor {
    /// Of its elements.
    pub dtype: Dtype,
    /// Elements of a column.
    pub num_rows: usize,
    /// Columns.
    pub num_columns: usize,
    /// Elements from one column to the next.
    pub leading: usize,
}

/// `D = Aᵀ B`, A and B stored `k` by `m` and `k` by `n`, D `m` by `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gemm {
    /// The weights, taken transposed.
    pub a: ColumnMajor,
    /// The activations.
    pub b: ColumnMajor,
    /// The result.
    pub d: ColumnMajor,
}

impl ProductShape {
    /// What a product of this shape and `num_rows` rows is to a library.
    #[must_use]
    pub fn gemm(&self, num_rows: usize) -> Gemm {
        let matrix = |dtype, num_rows, num_columns, leading| ColumnMajor {
            dtype,
            num_rows,
            num_columns,
            leading,
        };
        Gemm {
            a: matrix(
                self.dtype,
                self.num_inputs,
                self.num_outputs,
                self.weight_stride,
            ),
            b: matrix(self.dtype, self.num_inputs, num_rows, self.x_stride),
            d: matrix(self.out_dtype, self.num_outputs, num_rows, self.out_stride),
        }
    }
}

impl ColumnMajor {
    /// Elements from the first to the last, those between columns included.
    #[must_use]
    pub fn span(&self) -> usize {
        match self.num_columns {
            0 => 0,
            columns => (columns - 1) * self.leading + self.num_rows,
        }
    }
}

impl Gemm {
    /// The product on the host, with sums in f32 over K in order: what a library's is held to. `d`
    /// has [`ColumnMajor::span`] elements, of which those between columns stay.
    pub fn run(&self, a: &[f32], b: &[f32], d: &mut [f32]) {
        for n in 0..self.d.num_columns {
            for m in 0..self.d.num_rows {
                let a = &a[m * self.a.leading..][..self.a.num_rows];
                let b = &b[n * self.b.leading..][..self.b.num_rows];
                d[n * self.d.leading + m] = a.iter().zip(b).map(|(a, b)| a * b).sum();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `len` rows of `width`, `stride` apart, NaN between them.
    fn rows(len: usize, width: usize, stride: usize, at: impl Fn(usize, usize) -> f32) -> Vec<f32> {
        let mut all = vec![f32::NAN; len * stride];
        for row in 0..len {
            for column in 0..width {
                all[row * stride + column] = at(row, column);
            }
        }
        all
    }

    #[test]
    fn rows_of_ours_are_columns_of_theirs() {
        for (num_rows, num_outputs, num_inputs, pads) in [
            (1, 1, 1, [0, 0, 0]),
            (3, 5, 7, [1, 2, 3]),
            (6, 2, 9, [0, 7, 5]),
            (4, 8, 8, [8, 0, 16]),
        ] {
            let shape = ProductShape {
                dtype: Dtype::Bf16,
                out_dtype: Dtype::F32,
                max_rows: num_rows,
                num_outputs,
                num_inputs,
                x_stride: num_inputs + pads[0],
                weight_stride: num_inputs + pads[1],
                out_stride: num_outputs + pads[2],
            };
            let x_at = |row: usize, i: usize| (row * 31 + i * 7 % 11) as f32 - 9.0;
            let weight_at = |output: usize, i: usize| (output * 5 + i * 3) as f32 / 4.0 - 3.0;
            let x = rows(num_rows, num_inputs, shape.x_stride, x_at);
            let weight = rows(num_outputs, num_inputs, shape.weight_stride, weight_at);
            let gemm = shape.gemm(num_rows);
            assert_eq!([gemm.a.num_rows, gemm.b.num_rows], [num_inputs; 2]);
            let mut out = vec![f32::NAN; gemm.d.span()];
            gemm.run(&weight, &x, &mut out);
            for (place, &found) in out.iter().enumerate() {
                let (row, output) = (place / shape.out_stride, place % shape.out_stride);
                if output >= num_outputs {
                    assert!(found.is_nan(), "wrote between rows, at {place}");
                    continue;
                }
                let expected: f32 = (0..num_inputs)
                    .map(|i| x_at(row, i) * weight_at(output, i))
                    .sum();
                assert_eq!(found, expected, "row {row}, output {output} of {shape:?}");
            }
        }
    }

    #[test]
    fn a_span_ends_with_the_last_column() {
        let matrix = |num_columns| ColumnMajor {
            dtype: Dtype::F16,
            num_rows: 5,
            num_columns,
            leading: 8,
        };
        assert_eq!([0, 1, 3].map(|columns| matrix(columns).span()), [0, 5, 21]);
    }
}
