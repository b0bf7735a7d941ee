//! Activations on the device.
//!
//! Invariant: rows start at multiples of sixteen bytes; at most `max_rows` are in use, but for
//! logits, of which there may be more than fit: those are computed as they are needed.

use super::weights::CudaLinear;
use crate::{Address, Dtype};

/// Where rows lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    pub(super) at: Address,
    pub(super) dtype: Dtype,
    pub(super) width: usize,
    /// Elements from one row to the next.
    pub(super) stride: usize,
    /// In use.
    pub(super) num_rows: usize,
}

impl Rows {
    pub(super) fn row_bytes(&self) -> usize {
        self.stride * self.dtype.size()
    }

    /// Rows `first` to `first + num_rows`.
    pub(super) fn part(&self, first: usize, num_rows: usize) -> Self {
        Self {
            at: self.at.offset(first * self.row_bytes()),
            num_rows,
            ..*self
        }
    }
}

/// A product that is computed part by part, when its rows are needed.
#[derive(Clone, Debug)]
pub(super) struct Deferred {
    pub(super) x: Rows,
    pub(super) weight: CudaLinear,
    pub(super) soft_cap: Option<f32>,
}

/// Activations, `[max_rows, width]`.
#[derive(Debug)]
pub struct CudaBuffer {
    pub(super) rows: Rows,
    pub(super) max_rows: usize,
    /// Whether more rows than fit may be deferred.
    pub(super) may_defer: bool,
    pub(super) deferred: Option<Deferred>,
}

impl CudaBuffer {
    pub(super) fn new(at: Address, dtype: Dtype, max_rows: usize, width: usize) -> Self {
        Self {
            rows: Rows {
                at,
                dtype,
                width,
                stride: dtype.stride(width),
                num_rows: 0,
            },
            max_rows,
            may_defer: false,
            deferred: None,
        }
    }

    /// Puts rows in use; `false` where they do not fit.
    pub(super) fn resize(&mut self, num_rows: usize) -> bool {
        self.deferred = None;
        let fits = num_rows <= self.max_rows;
        self.rows.num_rows = if fits { num_rows } else { 0 };
        fits
    }
}
