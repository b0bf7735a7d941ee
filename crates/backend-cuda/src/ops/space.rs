//! The space in which weights are widened: a piece of a matrix at a time, for the product that
//! comes next on the stream.
//!
//! Invariant: what is written here is read before the next piece is, for both are queued in order.

use super::weights::{Matrix, dense};
use crate::kernels::{WeightFormat, Weights};
use crate::{Address, Device, Dtype, LaunchError};

/// Where it lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    pub(super) at: Address,
    pub(super) num_bytes: usize,
}

impl Space {
    /// Rows of `width` of `dtype` that fit: whole tiles of outputs, where that many do.
    ///
    /// # Errors
    /// Not one does.
    pub(super) fn num_rows(&self, dtype: Dtype, width: usize) -> Result<usize, LaunchError> {
        let fit = self.num_bytes / row_bytes(dtype, width);
        match fit {
            0 => Err(LaunchError::Misuse(format!("rows of {width}"))),
            1..128 => Ok(fit),
            _ => Ok(fit / 128 * 128),
        }
    }

    /// `piece`, which fits, in `dtype`; of `groups` as [`Matrix::widen`] says.
    pub(super) fn widen<D: Device>(
        &self,
        device: &mut D,
        piece: &Matrix,
        dtype: Dtype,
        groups: Option<(Address, usize)>,
    ) -> Result<Matrix, LaunchError> {
        piece.widen(
            device,
            dtype,
            self.at,
            row_bytes(dtype, piece.width),
            groups,
        )?;
        Ok(self.holding(piece, dtype))
    }

    /// What `piece` is once it was widened.
    pub(super) fn holding(&self, piece: &Matrix, dtype: Dtype) -> Matrix {
        Matrix {
            format: WeightFormat::Plain(dense(dtype)),
            weights: Weights {
                data: self.at,
                row_bytes: row_bytes(dtype, piece.width) as u64,
                ..Weights::default()
            },
            ..*piece
        }
    }
}

fn row_bytes(dtype: Dtype, width: usize) -> usize {
    dtype.stride(width) * dtype.size()
}
